"""States, deciding and folding: pure."""

from ceqs.errors import Rejected
from ceqs.model._context import Context
from ceqs.model._decide import Admission, Decided, Decision, Folder, Reaction, Recorded, decide
from ceqs.model._handlers import (
    CommandHandler,
    EventHandler,
    Fold,
    Gatekeeper,
    NamedHandler,
    PrivateHearing,
    Projection,
    PublicHearing,
    Publisher,
    QueryHandler,
    Subscriber,
    unheard,
)

__all__ = [
    "Admission",
    "CommandHandler",
    "Context",
    "Decided",
    "Decision",
    "EventHandler",
    "Fold",
    "Folder",
    "Gatekeeper",
    "NamedHandler",
    "PrivateHearing",
    "Projection",
    "PublicHearing",
    "Publisher",
    "QueryHandler",
    "Reaction",
    "Recorded",
    "Rejected",
    "Subscriber",
    "decide",
    "unheard",
]
