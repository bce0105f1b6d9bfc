"""The client's side of a context: commands that cannot duplicate, queries with their age, events that resume."""

from ceqs.client._answers import Answer, Event
from ceqs.client._client import ContextClient
from ceqs.client._history import History, HistoryCommand, HistoryEvent, read_history
from ceqs.client._outcomes import Outcome
from ceqs.client._services import Services
from ceqs.client._stream import Commands, CommandStream, Sent

__all__ = [
    "Answer",
    "CommandStream",
    "Commands",
    "ContextClient",
    "Event",
    "History",
    "HistoryCommand",
    "HistoryEvent",
    "Outcome",
    "Sent",
    "Services",
    "read_history",
]
