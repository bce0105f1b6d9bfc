"""States, deciding and folding: pure."""

from ceqs.errors import Rejected
from ceqs.model._asking import Admission, Asked, Asker
from ceqs.model._boundary import Boundary, boundary_of
from ceqs.model._context import Context
from ceqs.model._decide import Decided, Decision, Folder, Recorded, decide, initial
from ceqs.model._decoding import EventDecoder
from ceqs.model._handlers import (
    CommandHandler,
    EventHandler,
    Fold,
    Gate,
    Gatekeeper,
    KeyedProjection,
    NamedHandler,
    PrivateHearing,
    ProcessManager,
    Projection,
    PublicHearing,
    Publisher,
    QueryHandler,
    Subscriber,
    TableProjection,
    Upcasters,
    gate,
    gate_of,
    unheard,
)
from ceqs.model._keyed import Key, KeyedFolder
from ceqs.model._query import ALL, Query, QueryItem, item_matches, matches
from ceqs.model._reactions import Cancelled, Reacted, Reaction, Reactions, Scheduled, looks_around, react

__all__ = [
    "ALL",
    "Admission",
    "Asked",
    "Asker",
    "Boundary",
    "Cancelled",
    "CommandHandler",
    "Context",
    "Decided",
    "Decision",
    "EventDecoder",
    "EventHandler",
    "Fold",
    "Folder",
    "Gate",
    "Gatekeeper",
    "Key",
    "KeyedFolder",
    "KeyedProjection",
    "NamedHandler",
    "PrivateHearing",
    "ProcessManager",
    "Projection",
    "PublicHearing",
    "Publisher",
    "Query",
    "QueryHandler",
    "QueryItem",
    "Reacted",
    "Reaction",
    "Reactions",
    "Recorded",
    "Rejected",
    "Scheduled",
    "Subscriber",
    "TableProjection",
    "Upcasters",
    "boundary_of",
    "decide",
    "gate",
    "gate_of",
    "initial",
    "item_matches",
    "looks_around",
    "matches",
    "react",
    "unheard",
]
