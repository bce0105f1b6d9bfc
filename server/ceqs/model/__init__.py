"""States, deciding and folding: pure."""

from ceqs.errors import Rejected
from ceqs.model._boundary import Boundary, boundary_of
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
from ceqs.model._query import ALL, Query, QueryItem, item_matches, matches

__all__ = [
    "ALL",
    "Admission",
    "Boundary",
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
    "Query",
    "QueryHandler",
    "QueryItem",
    "Reaction",
    "Recorded",
    "Rejected",
    "Subscriber",
    "boundary_of",
    "decide",
    "item_matches",
    "matches",
    "unheard",
]
