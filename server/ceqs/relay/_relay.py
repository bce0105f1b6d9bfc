"""The relay of one log."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from ceqs.log import LogReader
from ceqs.model import EventDecoder
from ceqs.relay._lane import Lane, StreamStatus
from ceqs.relay._limits import StreamLimits


class Relay:
    """Carries a log to its two streams: every event to one, the public ones once more to the other.

    The stream itself says where to go on: its last sequence is the position of the last event in it, and an atomic
    batch is taken only after the sequence that it names. So there is no checkpoint and no deduplication, two relays at
    once are harmless, and a crash at any point neither loses, repeats nor reorders.
    """

    def __init__(
        self, reader: LogReader, decoder: EventDecoder, nats_url: str, limits: StreamLimits | None = None
    ) -> None:
        limits = limits or StreamLimits()
        self._lanes = [Lane(reader, decoder, nats_url, limits, public=public) for public in (False, True)]

    async def run(self) -> None:
        """Relay until cancelled; whatever is unreachable meanwhile is tried again.

        Where a stream holds what the log does not, that stream stands still, with an alarm, until a new epoch begins.

        Raises LogReplaced where the reader's log is another one by now, Misconfigured where the nats-server is unfit.
        """
        try:
            async with asyncio.TaskGroup() as lanes:
                for lane in self._lanes:
                    lanes.create_task(lane.run())
        except ExceptionGroup as group:
            raise group.exceptions[0] from None

    def status(self) -> tuple[StreamStatus, ...]:
        """Say how far the streams follow the log: the log stream, and the public one."""
        return tuple(replace(lane.status) for lane in self._lanes)
