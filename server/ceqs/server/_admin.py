"""AdminService: what a context's own processes append without a command."""

from __future__ import annotations

import hashlib
import uuid

from ceqs.contract import bucket_of, tags_of
from ceqs.errors import Invalid, Unreadable, Violation
from ceqs.log import Entry, Log, NewEvent
from ceqs.model import EventDecoder
from ceqs.server._calls import DERIVED, checked
from ceqs.server._decode import violations_of
from ceqs.v1.admin_pb2 import AppendPublicRequest, AppendPublicResponse, PublicEvent
from ceqs.v1.events_pb2 import RecordedEvent

_PATH = b"/ceqs.v1.AdminService/AppendPublic"


async def append_public(
    decoder: EventDecoder, log: Log, request: AppendPublicRequest, *, expires: float | None
) -> AppendPublicResponse:
    """Append the public events that a publisher derived. A repeated append id gets its first receipt.

    Raises Invalid where an event is no public event of the context or breaks its own rules; nothing is appended then.
    """
    append_id = checked("append_id", request.append_id)
    if not append_id.startswith(DERIVED):
        raise Invalid(violations=[Violation("append_id", f"must begin with {DERIVED!r}")])
    if not request.events:
        raise Invalid(violations=[Violation("events", "must not be empty")])
    appended = await log.append(
        Entry(
            command_id=append_id,
            content_hash=hashlib.sha256(_PATH + b"\0" + request.SerializeToString(deterministic=True)).digest(),
            derived=True,
            events=tuple(_new_event(decoder, event, f"events[{i}]") for i, event in enumerate(request.events)),
            causation_id=checked("causation_id", request.causation_id),
            correlation_id=checked("correlation_id", request.correlation_id),
            causation_depth=request.causation_depth,
            expires=expires,
        )
    )
    return AppendPublicResponse(receipt=appended.receipt)


def _new_event(decoder: EventDecoder, event: PublicEvent, path: str) -> NewEvent:
    """Give the newest version of what a publisher derived: an earlier build of it may have."""
    kind = decoder.contract.recorded.get(event.type)
    if kind is None or not kind.public:
        raise _invalid(f"{path}.type", f"{event.type!r} is no public event of the context {decoder.contract.context!r}")
    if not _is_uuid(event.id):
        raise _invalid(f"{path}.id", "must be a UUID, lower case with hyphens")
    given = RecordedEvent(type=event.type, payload=event.payload, schema_version=event.schema_version)
    try:
        message = decoder.decode(given)
    except Unreadable as error:
        raise _invalid(f"{path}.payload", f"is no {event.type}: {error}") from error
    if broken := violations_of(message):
        raise Invalid(violations=[Violation(f"{path}.payload.{v.field}", v.description) for v in broken])
    tags = tags_of(message, kind.tags)
    return NewEvent(
        id=event.id,
        type=kind.full_name,
        payload=decoder.renewed(given).payload,
        tags=tags,
        public=True,
        bucket=bucket_of(kind, tags),
        version=kind.version,
    )


def _invalid(field: str, description: str) -> Invalid:
    return Invalid(violations=[Violation(field, description)])


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
