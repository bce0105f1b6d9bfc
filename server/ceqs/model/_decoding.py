"""Reading what is recorded: from stored bytes to the message that handlers see, the newest version of its event."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from google.protobuf.message import DecodeError, Message

from ceqs.contract import Contract, EarlierForm, EventType
from ceqs.errors import Misconfigured, Unreadable
from ceqs.v1.events_pb2 import RecordedEvent

Upcast: TypeAlias = Callable[[Any], Message]
"""Makes of an earlier form of an event the next one."""


class EventDecoder:
    """Reads the recorded events of one contract. Every reading of events goes through it.

    `upcasters` make of each earlier form of an event the next one, by the names of their methods.
    """

    def __init__(self, contract: Contract, upcasters: Mapping[str, Upcast] | None = None) -> None:
        self.contract = contract
        self._upcasters = dict(upcasters or {})
        self._forms = {
            (form.type_name, form.version): form for event in contract.events.values() for form in event.earlier
        }
        self._shapes = {form.message.DESCRIPTOR.full_name: form for form in self._forms.values()}

    @property
    def evolved(self) -> frozenset[str]:
        """The types of which the log may hold an earlier form."""
        return frozenset(name for name, _ in self._forms)

    def missing(self, events: Iterable[EventType]) -> list[EarlierForm]:
        """Give the earlier forms of events that no upcaster makes anything of."""
        return [form for event in events for form in event.earlier if form.method not in self._upcasters]

    def upcasts(self, event: EventType) -> Mapping[str, Upcast]:
        """Give the upcasters on the way to an event, by the names of their methods."""
        names = (form.method for form in event.earlier)
        return {name: self._upcasters[name] for name in names if name in self._upcasters}

    def decode(self, event: RecordedEvent) -> Message:
        """Give the message of a recorded event, as the newest version.

        Raises Unreadable where this build does not know its type, its version, how it is encoded or how to upcast it.
        """
        kind = self.contract.events.get(event.type)
        if kind is None or kind.version != (event.schema_version or 1) or event.codec or event.key_ref:
            return self._decode_earlier(event)
        return _parsed(kind.message, event)

    def decode_stored(self, envelope: bytes) -> Message:
        """Give the message of a stored envelope, as `decode` does."""
        return self.decode(RecordedEvent.FromString(envelope))

    def newest(self, message: Message, where: str = "") -> Message:
        """Give an event of any version as the newest one. An event that is no earlier form is given as it is."""
        seen = message
        while (form := self._shapes.get(seen.DESCRIPTOR.full_name)) is not None:
            seen = self._upcast(form, seen, where)
        return seen

    def renewed(self, event: RecordedEvent) -> RecordedEvent:
        """Give an event of an earlier form as if the newest had been recorded; all but its content stays."""
        if (event.type, event.schema_version or 1) not in self._forms:
            return event
        message = self.decode(event)
        kind = self.contract.event(message)
        renewed = RecordedEvent()
        renewed.CopyFrom(event)
        renewed.type, renewed.schema_version = kind.full_name, kind.version
        renewed.payload = message.SerializeToString(deterministic=True)
        return renewed

    def _decode_earlier(self, event: RecordedEvent) -> Message:
        where = f"{event.type} at position {event.position}"
        if event.codec or event.key_ref:
            raise Unreadable(f"{where} is encoded in a way unknown to this build")
        kind, version = self.contract.recorded.get(event.type), event.schema_version or 1
        if kind is None:
            raise Unreadable(f"{where} is no event of this build's contract; deploy the build that knows it")
        form = self._forms.get((event.type, version))
        if form is None:
            raise Unreadable(f"{where} is of version {version}, which this build does not know; deploy one that does")
        return self.newest(_parsed(form.message, event), where)

    def _upcast(self, form: EarlierForm, message: Message, where: str) -> Message:
        where = where or form.type_name
        upcast = self._upcasters.get(form.method)
        if upcast is None:
            raise Unreadable(
                f"{where} was recorded as version {form.version}, and no upcaster says what it is today: add "
                f"{form.method} to the context's upcasters"
            )
        try:
            found = upcast(message)
        except Exception as error:
            raise Unreadable(
                f"{where}, recorded as version {form.version}, cannot be upcast: {form.method} raised "
                f"{type(error).__name__}"
            ) from error
        if not isinstance(found, form.becomes):
            wanted = form.becomes.DESCRIPTOR.full_name
            raise Misconfigured(f"{form.method} returned {type(found).__name__}, not {wanted}")
        return found


def _parsed(kind: type[Message], event: RecordedEvent) -> Message:
    try:
        return kind.FromString(event.payload)
    except DecodeError as error:
        raise Unreadable(f"{event.type} at position {event.position} cannot be decoded: {error}") from error
