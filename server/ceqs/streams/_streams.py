"""Finding a log's streams."""

from __future__ import annotations

from dataclasses import dataclass

from nats.js import JetStreamContext
from nats.js.api import StreamInfo
from nats.js.errors import NotFoundError

from ceqs.streams._names import subjects

LOG_ID = "ceqs-log-id"
EPOCH = "ceqs-epoch"
RETIRED = "ceqs-retired."
"""Begins the subject that a stream has instead of the log's when a later epoch has begun."""


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream of a log as JetStream has it."""

    name: str
    log_id: str
    """The log that its sequences are positions of."""
    epoch: int
    first: int
    """The first sequence that it still holds."""
    last: int
    """Its last sequence; 0 while it is empty."""
    deleted: int = 0
    """How many messages between the first and the last are missing."""
    retired: bool = False
    """Whether it hears no subjects of the log any more, for a stream of a later epoch does."""
    messages: int = 0
    size: int = 0
    """In bytes."""

    @classmethod
    def of(cls, info: StreamInfo) -> Stream:
        """Give what a stream info says."""
        metadata, state = info.config.metadata or {}, info.state
        return cls(
            name=info.config.name or "",
            log_id=metadata.get(LOG_ID, ""),
            epoch=int(metadata.get(EPOCH, 0)),
            first=state.first_seq,
            last=state.last_seq,
            deleted=state.num_deleted or 0,
            retired=any(subject.startswith(RETIRED) for subject in info.config.subjects or ()),
            messages=state.messages,
            size=state.bytes,
        )


async def find_stream(js: JetStreamContext, log: str, *, public: bool = True) -> Stream | None:
    """Give the stream of a log's newest epoch; None where the relay has not made it yet.

    Only the newest epoch's stream has the log's subjects: the relay takes them away from the older ones.
    """
    try:
        name = await js.find_stream_name_by_subject(subjects(log, public=public))
        return Stream.of(await js.stream_info(name))
    except NotFoundError:
        return None
