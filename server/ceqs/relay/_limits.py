"""How much of its log a stream keeps. The log is the deeper history: whoever needs more reads it."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from nats.js.api import StreamConfig

from ceqs.log import Head, LogReader

_UNLIMITED = -1
_MEGABYTE = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLimits:
    """How much a stream keeps at most, and by how many servers of a cluster; 0 is no limit."""

    days: float = 0
    """An event is kept for so long after it was published."""
    messages: int = 0
    megabytes: int = 0
    replicas: int = 1

    def apply(self, config: StreamConfig) -> bool:
        """Put the limits into the configuration of a stream. Say whether that changed it."""
        before = (config.max_age or 0, config.max_msgs, config.max_bytes, config.num_replicas)
        config.max_age = self.days * 86_400
        config.max_msgs = self.messages or _UNLIMITED
        config.max_bytes = self.megabytes * _MEGABYTE or _UNLIMITED
        config.num_replicas = self.replicas
        return before != (config.max_age, config.max_msgs, config.max_bytes, config.num_replicas)

    async def first(self, reader: LogReader, head: Head, *, public: bool, now: dt.datetime) -> int:
        """Give the first position (public position) that a new stream has to have: what it would drop is left out."""
        last = head.public_position if public else head.position
        first = last - self.messages + 1 if self.messages else 1
        if self.days:
            begin = now - dt.timedelta(days=self.days)
            first = max(first, await reader.position_before(begin, public=public) + 1)
        return max(1, first)
