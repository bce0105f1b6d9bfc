"""The relay: carries the event log to JetStream, where stream sequence == position."""

from ceqs.relay._lane import StreamStatus, remedy, status_subject
from ceqs.relay._limits import StreamLimits
from ceqs.relay._relay import Relay
from ceqs.relay._survey import ALARMING, Condition, Survey, survey
from ceqs.relay._verify import differences

__all__ = [
    "ALARMING",
    "Condition",
    "Relay",
    "StreamLimits",
    "StreamStatus",
    "Survey",
    "differences",
    "remedy",
    "status_subject",
    "survey",
]
