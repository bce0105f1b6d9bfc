"""The relay: carries the event log to JetStream, where stream sequence == position."""

from ceqs.relay._relay import Fork, Relay, StreamStatus
from ceqs.relay._verify import differences

__all__ = ["Fork", "Relay", "StreamStatus", "differences"]
