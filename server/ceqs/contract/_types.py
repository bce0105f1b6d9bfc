"""What a contract declares, as values."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from google.protobuf.message import Message

from ceqs.errors import Misconfigured


class Locking(enum.Enum):
    """How decisions of one boundary are kept apart."""

    OPTIMISTIC = "optimistic"
    PESSIMISTIC = "pessimistic"


class Persistence(enum.Enum):
    """How a state is kept between commands."""

    EVENT_SOURCED = "event-sourced"
    STATE_STORED = "state-stored"


class TagField(NamedTuple):
    """A field whose values are tags: `key:value`."""

    field: str
    key: str
    repeated: bool


@dataclass(frozen=True, slots=True)
class EarlierForm:
    """How an event was recorded once: under which type and version, in which shape, and what it becomes.

    `method` is the name of the upcaster that makes one of the other: `order_placed_v1`, or `order_placed` where the
    type was replaced.
    """

    type_name: str
    version: int
    message: type[Message]
    becomes: type[Message]
    method: str


@dataclass(frozen=True, slots=True)
class EventType:
    """An event of the contract. `handler` is the name of the method that hears it: `on_order_placed`."""

    name: str
    full_name: str
    message: type[Message]
    handler: str
    public: bool
    version: int
    tags: tuple[TagField, ...]
    partition_by: str
    """The tag key that keeps events in order relative to each other; empty where the event has no tag."""
    earlier: tuple[EarlierForm, ...] = ()
    """How it was recorded before its version became what it is."""

    @property
    def recorded_as(self) -> frozenset[str]:
        """The full names of the types under which the log may hold it: its own, and those that it has replaced."""
        return frozenset((self.full_name, *(form.type_name for form in self.earlier)))

    def can_carry(self, tags: Iterable[str]) -> bool:
        """Whether one event of this type can carry all of these tags: several of a key need as many fields."""
        free = list(self.tags)
        for tag in tags:
            field = next((field for field in free if tag.startswith(f"{field.key}:")), None)
            if field is None:
                return False
            if not field.repeated:
                free.remove(field)
        return True


@dataclass(frozen=True, slots=True, eq=False)
class StateType:
    """A state: its boundary (tag keys) and the events it folds, by name in the contract's order.

    Equal to itself only: boundaries are looked up by it.
    """

    name: str
    full_name: str
    message: type[Message]
    boundary: tuple[str, ...]
    folds: tuple[EventType, ...]
    types: frozenset[str]
    """The full names of the types under which the log may hold the events."""
    locking: Locking
    persistence: Persistence
    snapshot_every: int
    tags: tuple[TagField, ...]


class ColumnKind(enum.Enum):
    """As what the values of a field are kept in a column, so that they compare as they should."""

    TEXT = "text"
    INTEGER = "integer"
    NATURAL = "natural"
    """An integer that may be beyond what a database's integers hold."""
    BOOLEAN = "boolean"
    TIME = "time"


@dataclass(frozen=True, slots=True)
class Column:
    """A field of a keyed model by which its rows are found and ordered."""

    field: str
    kind: ColumnKind


@dataclass(frozen=True, slots=True, eq=False)
class KeyedModel:
    """A keyed model: one message for each value of a tag key, folded from the events that carry it.

    Equal to itself only: tables are looked up by it.
    """

    name: str
    full_name: str
    message: type[Message]
    key: str
    """The tag key."""
    columns: tuple[Column, ...]
    """The key's field first, then the indexed ones."""
    folds: tuple[EventType, ...]
    source: str
    """The package of what it folds: the own one, or that of another context."""
    partitioned: bool
    """Whether each event is about one key, by which the log keeps it in order: then several workers may fold."""

    @property
    def key_field(self) -> str:
        """The field that holds the key."""
        return self.columns[0].field


@dataclass(frozen=True, slots=True)
class CommandRpc:
    """A command rpc. `path` is `/package.Service/Method`, `method` the handler's method: `place_order`."""

    name: str
    service: str
    path: str
    method: str
    request: type[Message]
    response: type[Message]
    state: StateType
    tags: tuple[TagField, ...]
    command_id_field: str
    """The request's field that carries the command id; empty where none is annotated."""
    receipt_number: int
    """The number of the response's field of type ceqs.v1.Receipt; 0 where it has none."""
    answers: bool
    """Whether the response has fields of its own, which the handler fills."""


@dataclass(frozen=True, slots=True)
class QueryRpc:
    """A query rpc. It reads the state, or the projection of that name, or neither (an aggregator).

    `model` is the keyed model that the projection keeps, where it is of that kind.
    """

    name: str
    service: str
    path: str
    method: str
    request: type[Message]
    response: type[Message]
    streaming: bool
    state: StateType | None
    projection: str
    model: KeyedModel | None
    tags: tuple[TagField, ...]
    age_field: str
    """The response's field of type ceqs.v1.Age; empty where it has none."""
    parts_field: str
    """The response's field that says how old its parts are, `map<string, ceqs.v1.PartAge>`; empty where it has none."""
    row_field: str
    """The response's only own field, where it has the type of the state or the keyed model. Else empty."""
    list_field: str
    """The response's field that lists the rows of a keyed model, where the request says which by its columns alone."""

    @property
    def needs_code(self) -> bool:
        """Whether the platform cannot answer it by itself."""
        return not (self.row_field or self.list_field)


@dataclass(frozen=True, slots=True)
class Contract:
    """What one bounded context declares.

    `events`, `commands` and `queries` are keyed by full name and by rpc path; `states` by name. `recorded` has every
    type name that the log may hold, with the event that it is read as. `processes` are the states of process managers,
    which are none of `states`. `models` are the keyed ones, by name, each of which is one of the `projections`: those
    say, by name, of which package each folds the events, private ones of the own, public ones of another context's.
    """

    context: str
    package: str
    events: Mapping[str, EventType]
    recorded: Mapping[str, EventType]
    states: Mapping[str, StateType]
    processes: Mapping[str, StateType]
    models: Mapping[str, KeyedModel]
    commands: Mapping[str, CommandRpc]
    queries: Mapping[str, QueryRpc]
    command_services: tuple[str, ...]
    query_services: tuple[str, ...]
    projections: Mapping[str, str]
    _by_request: Mapping[str, CommandRpc] = field(repr=False)
    _by_message: Mapping[type[Message], EventType] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_message", {event.message: event for event in self.events.values()})

    def event(self, message: Message) -> EventType:
        """Give the event type of a message. Raises Misconfigured where the context does not declare it."""
        found = self._by_message.get(type(message)) or self.events.get(message.DESCRIPTOR.full_name)
        if found is None:
            raise Misconfigured(f"{message.DESCRIPTOR.full_name} is not an event of the context {self.context!r}")
        return found

    def command_of(self, request: Message) -> CommandRpc:
        """Give the command rpc that takes a request. Raises Misconfigured where none of the context does."""
        found = self._by_request.get(request.DESCRIPTOR.full_name)
        if found is None:
            raise Misconfigured(f"{request.DESCRIPTOR.full_name} is no command of the context {self.context!r}")
        return found
