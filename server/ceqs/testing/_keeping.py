"""What a keyed model has of what has happened."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from ceqs.errors import Misconfigured
from ceqs.model import Context, Key, KeyedFolder, KeyedProjection, Recorded
from ceqs.projectors import key_of
from ceqs.testing._reacting import EVENT_ID


def kept(context: Context, events: Iterable[Message], model: type[Message], now: Timestamp) -> Sequence[Message]:
    """Fold events into a keyed model, one by one; give its rows in the order of their keys.

    Raises Misconfigured where it is none of the context's.
    """
    projection = context.projections.get(model.DESCRIPTOR.name)
    if not isinstance(projection, KeyedProjection):
        raise Misconfigured(f"{model.DESCRIPTOR.full_name} is no keyed model of the context {context.name!r}")
    folder, rows = KeyedFolder(projection), dict[Key, Message]()
    heard = {event.full_name for event in folder.model.folds}
    for position, event in enumerate(events, 1):
        name = event.DESCRIPTOR.full_name
        if name not in heard:
            continue
        recorded_at = now.ToDatetime(dt.UTC)
        meta = Recorded(event_id=EVENT_ID, type=name, position=position, public_position=0, recorded_at=recorded_at)
        for key in (key_of(folder.model, tag) for tag in folder.tags(event)):
            row = folder.fold(rows.pop(key, None), key, event, meta)
            if row is not None:
                rows[key] = row
    return [rows[key] for key in sorted(rows)]
