"""Atomic batches: messages that a stream takes together, after a given sequence, or not at all.

The wire protocol is that of ADR-50 (https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-50.md).
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Sequence

import nats.errors
from nats.js.errors import APIError

from ceqs.errors import Unavailable
from ceqs.streams import StreamClient, StreamMessage

MAX_MESSAGES = 500
MAX_BYTES = 4 * 1024 * 1024
_FRAME = 1024
"""More than a message's subject and the names of its headers take."""


_WRONG_LAST_SEQUENCE = 10071  # JSStreamWrongLastSequenceErrF of nats-server


class Overtaken(Exception):
    """The stream has gone on: another relay published meanwhile."""


async def publish_batch(client: StreamClient, messages: Sequence[StreamMessage], *, after: int, within: float) -> int:
    """Publish messages as one batch that takes the sequences after `after`; give the last, when they are on disk.

    Raises Overtaken where the stream's last sequence is not `after`; APIError where the server refuses the batch for
    another reason; Unavailable where no stream hears the subjects; nats.errors.TimeoutError, with an unknown outcome,
    where no answer comes within that many seconds.
    """
    *most, last = _numbered(messages, uuid.uuid4().hex, after)
    await client.publish_all(most)
    try:
        answer = await client.request(last.subject, last.data, timeout=within, headers=last.headers)
    except nats.errors.NoRespondersError as error:
        raise Unavailable(f"no stream hears {last.subject}") from error
    ack = json.loads(answer.data)
    if "error" in ack:
        if ack["error"].get("err_code") == _WRONG_LAST_SEQUENCE:
            raise Overtaken(ack["error"].get("description", ""))
        raise APIError.from_error(ack["error"])
    if (ack["seq"], ack.get("count")) != (after + len(messages), len(messages)):
        raise Unavailable(f"the batch of {len(messages)} after {after} was acknowledged as {ack}")
    return after + len(messages)


def _numbered(messages: Sequence[StreamMessage], batch: str, after: int) -> Iterator[StreamMessage]:
    for number, message in enumerate(messages, start=1):
        headers = {**message.headers, "Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}
        if number == 1:
            headers["Nats-Expected-Last-Sequence"] = str(after)
        if number == len(messages):
            headers["Nats-Batch-Commit"] = "1"
        yield message._replace(headers=headers)


def in_batches(messages: Iterable[StreamMessage]) -> Iterator[list[StreamMessage]]:
    """Cut messages into batches within the limits."""
    batch: list[StreamMessage] = []
    size = 0
    for message in messages:
        own = len(message.data) + sum(map(len, message.headers.values())) + _FRAME
        if batch and (len(batch) == MAX_MESSAGES or size + own > MAX_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(message)
        size += own
    if batch:
        yield batch
