"""Folding keyed models: pure, one message for each key."""

from __future__ import annotations

from typing import TypeAlias

from google.protobuf.message import Message

from ceqs.contract import tags_of
from ceqs.errors import Misconfigured
from ceqs.model._decide import Recorded
from ceqs.model._handlers import KeyedProjection

Key: TypeAlias = str | int
"""A value of the key's field."""


class KeyedFolder:
    """Folds the rows of a keyed model with the methods of its projection."""

    def __init__(self, projection: KeyedProjection) -> None:
        self.model = projection.ceqs_model
        self._projection = type(projection).__name__
        self._methods = projection.ceqs_heard()
        self._tags = {
            event.full_name: [tag for tag in event.tags if tag.key == self.model.key] for event in self.model.folds
        }

    def tags(self, event: Message) -> tuple[str, ...]:
        """Give the tags of an event under whose values rows are kept: `book:1`; none where it has no value."""
        return tags_of(event, self._tags[event.DESCRIPTOR.full_name])

    def fold(self, kept: Message | None, key: Key, event: Message, meta: Recorded) -> Message | None:
        """Fold an event into the row under a key, in place; None is no row, before and after.

        Raises what the method raises, and Misconfigured where it gives the row another key.
        """
        row, field = kept, self.model.key_field
        if row is None:
            row = self.model.message()
            setattr(row, field, key)
        name = event.DESCRIPTOR.full_name
        self._methods[name](row, event, meta)
        if getattr(row, field) == key:
            return row
        if not row.ByteSize():
            return None
        raise Misconfigured(
            f"{self._projection}.{self._methods[name].__name__} made {field} {getattr(row, field)!r} of {key!r}, by "
            "which the row is kept; leave it as it is, or delete the row: Clear()"
        )
