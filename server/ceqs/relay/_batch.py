"""Messages that a stream takes after a given sequence, each at its own.

Many go as an atomic batch: the wire protocol is that of ADR-50 (https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-50.md).
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
FEW = 8
"""So many messages go one by one: a batch costs the server 2.5 ms, whatever its size, and a message 0.25 ms."""
MAX_BYTES = 4 * 1024 * 1024
_FRAME = 1024
"""More than a message's subject and the names of its headers take."""


_EXPECTED = "Nats-Expected-Last-Sequence"
_WRONG_LAST_SEQUENCE = 10071  # JSStreamWrongLastSequenceErrF of nats-server


class Overtaken(Exception):
    """The stream has gone on: another relay published meanwhile."""


async def publish_batch(client: StreamClient, messages: Sequence[StreamMessage], *, after: int, within: float) -> int:
    """Publish messages that take the sequences after `after`; give the last, when they are on disk.

    Many are taken together, or not at all. A few go one by one, each only at its own sequence, where any relay of the
    log would put the same event; the last one's answer is that of all.

    Raises Overtaken where the stream's last sequence is another one; APIError where the server refuses them for another
    reason; Unavailable where no stream hears the subjects, and, with an unknown outcome, where no answer comes within
    that many seconds.
    """
    *most, last = _in_order(messages, after) if len(messages) <= FEW else _as_batch(messages, after)
    await client.publish_all(most)
    try:
        answer = await client.request(last.subject, last.data, timeout=within, headers=last.headers)
    except nats.errors.NoRespondersError as error:
        raise Unavailable(f"no stream hears {last.subject}") from error
    except nats.errors.TimeoutError as error:
        some = f"{after + 1} to {after + len(messages)}"
        raise Unavailable(f"the nats-server has not acknowledged {some} within {within:g} s: see its log") from error
    ack = json.loads(answer.data)
    if "error" in ack:
        if ack["error"].get("err_code") == _WRONG_LAST_SEQUENCE:
            raise Overtaken(ack["error"].get("description", ""))
        raise APIError.from_error(ack["error"])
    if ack["seq"] != after + len(messages) or ack.get("count", len(messages)) != len(messages):
        raise Unavailable(f"{len(messages)} messages after {after} were acknowledged as {ack}")
    return after + len(messages)


def _in_order(messages: Sequence[StreamMessage], after: int) -> Iterator[StreamMessage]:
    for before, message in enumerate(messages, start=after):
        yield message._replace(headers={**message.headers, _EXPECTED: str(before)})


def _as_batch(messages: Sequence[StreamMessage], after: int) -> Iterator[StreamMessage]:
    batch = uuid.uuid4().hex
    for number, message in enumerate(messages, start=1):
        headers = {**message.headers, "Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}
        if number == 1:
            headers[_EXPECTED] = str(after)
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
