"""What users extend: folds, upcasters, command and query handlers, projections, publishers and subscribers.

The generated bases derive from these. A method of an event that a handler need not hear carries `@unheard` in the
generated base; a handler hears the events whose methods it overrides.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from google.protobuf.message import Message

from ceqs.contract import Contract, EventType, KeyedModel, StateType, snake, tags_of
from ceqs.errors import Misconfigured

if TYPE_CHECKING:
    from sqlalchemy import MetaData

F = TypeVar("F", bound=Callable[..., Any])


def unheard(method: F) -> F:
    """Mark a method of a generated base: it counts where a handler overrides it, and is not heard where none does."""
    method.__dict__["__ceqs_unheard__"] = True
    return method


@dataclass(frozen=True, slots=True)
class Gate:
    """How a gatekeeper's method guards."""

    within: float = 1.0
    """How long, in seconds, it may take."""
    when_down: Literal["open", "closed"] = "closed"
    """What becomes of commands while it cannot say, because what it asks is unavailable or takes too long."""


def gate(*, within: float = 1.0, when_down: Literal["open", "closed"] = "closed") -> Callable[[F], F]:
    """Say how a gatekeeper's method guards: `@gate(within=0.2, when_down="open")`; see Gate.

    An open gate lets through what it would have refused; a subscriber puts that right afterwards. A closed one answers
    UNAVAILABLE.
    """

    def mark(method: F) -> F:
        method.__dict__["__ceqs_gate__"] = Gate(within, when_down)
        return method

    return mark


def gate_of(method: Callable[..., Any]) -> Gate:
    """Give how a gatekeeper's method guards."""
    found: Gate = getattr(method, "__ceqs_gate__", Gate())
    return found


class CommandHandler:
    """Decides commands: one method per command rpc of a service, `(request, state, ctx) -> events`.

    Beside each stands `<command>_boundary`, `(request, boundary) -> boundary`, which a handler may override to narrow
    or widen what the decision depends on. It belongs to the handler and not to the fold: several commands decide on one
    state, and each knows best what it needs of it. It sees the request only, since the state is loaded by what it says.
    """

    ceqs_service: ClassVar[str]


class Gatekeeper:
    """Refuses commands before they are decided: `async (request, ctx) -> None` for each command that it guards.

    It may ask queries, of its own (`ctx.ask`) and of other services, for the best view that there is; it appends
    nothing. It raises Rejected to refuse. `@gate(...)` says how long it may take, and what happens while it cannot say.
    A command that was accepted before gets its receipt, whatever a gatekeeper says now.
    """

    ceqs_service: ClassVar[str]

    def ceqs_guards(self) -> dict[str, Callable[..., Any]]:
        """Give the methods that guard a command, by name.

        Raises Misconfigured for a public method that belongs to no command: misspelt, it would guard nothing.
        """
        base = next(cls for cls in type(self).__mro__ if "ceqs_service" in cls.__dict__)
        commands = [name for name in vars(base) if is_unheard(vars(base)[name])]
        return _public_methods(self, commands, f"command of {self.ceqs_service}", beside="ceqs_guards")


class QueryHandler:
    """Answers queries: one method per query rpc of a service that needs code."""

    ceqs_service: ClassVar[str]


class EventHandler:
    """Hears events of one contract, by methods `on_<event>`."""

    ceqs_contract: ClassVar[Contract]

    @classmethod
    def ceqs_hearable(cls) -> Mapping[str, EventType]:
        """Give the events that this kind of handler may hear, by method name."""
        return {event.handler: event for event in cls.ceqs_contract.events.values()}

    def ceqs_heard(self) -> dict[str, Callable[..., Any]]:
        """Give the methods of the events that this handler hears, by the event's full name.

        Raises Misconfigured for a method `on_*` that belongs to no event which this handler may hear.
        """
        hearable = self.ceqs_hearable()
        heard: dict[str, Callable[..., Any]] = {}
        for name in dir(type(self)):
            if not name.startswith("on_") or not callable(getattr(type(self), name)):
                continue
            if name not in hearable:
                raise Misconfigured(
                    f"{type(self).__name__}.{name} belongs to no event that it may hear{hint(name, hearable)}"
                )
            if not is_unheard(getattr(type(self), name)):
                heard[hearable[name].full_name] = getattr(self, name)
        return heard


class Fold(EventHandler):
    """Folds a state: one method per event that the state lists, `(state, event) -> None`."""

    ceqs_state: ClassVar[str]
    version: ClassVar[int] = 1
    """Raise it where a change of the fold's results does not show in its code; kept states are then folded anew."""

    @classmethod
    def ceqs_hearable(cls) -> Mapping[str, EventType]:
        """Give the events that the state lists, by method name."""
        return {event.handler: event for event in cls.ceqs_contract.states[cls.ceqs_state].folds}


class Upcasters:
    """Says what events mean today that were recorded earlier: one pure method `(earlier) -> next` per earlier form.

    A form is an event's earlier version or an event type that was replaced. Each method takes one step; the platform
    chains them wherever events are read, so that everybody else knows the newest version only.
    """

    ceqs_contract: ClassVar[Contract]

    def ceqs_upcasts(self) -> dict[str, Callable[..., Any]]:
        """Give the methods by name. Raises Misconfigured for a public method that belongs to no earlier form."""
        contract = self.ceqs_contract
        methods = [form.method for event in contract.events.values() for form in event.earlier]
        of = f"earlier form of an event of {contract.context}"
        return _public_methods(self, methods, of, beside="ceqs_upcasts")


class NamedHandler(EventHandler):
    """An event handler with a checkpoint of its own, known by its name."""

    name: ClassVar[str] = ""
    """Kebab case. Defaults to the class name; changing it starts the handler from nothing."""
    max_parked: ClassVar[int] = 1000
    """How many events may be parked, those included that wait behind one that failed; beyond, the handler pauses."""
    max_unsent: ClassVar[int] = 10_000
    """How many calls of its may wait to be sent; beyond, the handler pauses until there are fewer."""

    @classmethod
    def ceqs_name(cls) -> str:
        """Give the handler's name."""
        return cls.name or snake(cls.__name__).replace("_", "-")


class PrivateHearing(NamedHandler):
    """Hears the private events of its contract."""

    @classmethod
    def ceqs_hearable(cls) -> Mapping[str, EventType]:
        """Give the contract's private events, by method name."""
        return {event.handler: event for event in cls.ceqs_contract.events.values() if not event.public}


class PublicHearing(NamedHandler):
    """Hears the public events of its contract."""

    @classmethod
    def ceqs_hearable(cls) -> Mapping[str, EventType]:
        """Give the contract's public events, by method name."""
        return {event.handler: event for event in cls.ceqs_contract.events.values() if event.public}


class Projection(PrivateHearing):
    """Keeps a query model in places of its own, one for each version.

    It folds one log: its own context's, or the public events of another one, whose contract is the `ceqs_contract`.
    """

    version: ClassVar[int] = 1
    """Raise it when the tables or the handlers change: the new version fills a new place from the log."""


class TableProjection(Projection):
    """Writes a query model: `async (session, event, meta) -> None` per event, into the tables of `metadata`."""

    ceqs_projection: ClassVar[str]
    metadata: ClassVar[MetaData]
    """The SQLAlchemy tables that the projection writes. They are created in a place of the projection's own."""
    partition_by: ClassVar[str] = ""
    """The tag key, such as `order`, to a value of which each row belongs: then several workers may fill the projection,
    each with keys of its own. All events that it hears must be partitioned by it."""

    @classmethod
    def ceqs_name(cls) -> str:
        """Give the projection's name, as queries name it."""
        return cls.ceqs_projection


class KeyedProjection(Projection):
    """Folds a query model that needs no tables: `(model, event, meta) -> None` per event that the model lists.

    The platform keeps one message under each value of the model's key. A method gets that of the event's key, with the
    key's field filled and everything else unset before the first event, and changes it. One that it clears
    (`model.Clear()`) is deleted; a later event of the key begins anew.
    """

    ceqs_model: ClassVar[KeyedModel]
    """What the projection keeps."""

    @classmethod
    def ceqs_name(cls) -> str:
        """Give the model's name."""
        return cls.ceqs_model.name

    @classmethod
    def ceqs_hearable(cls) -> Mapping[str, EventType]:
        """Give the events that the model lists, by method name."""
        return {event.handler: event for event in cls.ceqs_model.folds}


class Publisher(PrivateHearing):
    """Derives public events: `(event, ctx) -> public events` per private event; `async def` where it asks queries."""


class Subscriber(NamedHandler):
    """Reacts to events: `(event, ctx) -> command requests of its own context` per event.

    `async def` where it asks queries, or does something in systems that are not ours: at least once, with
    `ctx.event_id` as the idempotency key. It may raise Unavailable to be tried again for as long as that takes.
    """


class ProcessManager(PrivateHearing, Subscriber):
    """A subscriber with a state of its own: `(event, state, ctx) -> command requests` per event that the state lists.

    The state is kept under the value of its boundary's key, and committed together with the commands and the
    checkpoint. A method gets a copy, changes it, and yields what is to be done; if it raises, nothing of that has
    happened. A state that is again as it was before its first event (`state.Clear()`) takes no room. It waits for
    nobody: its state is in a transaction.
    """

    ceqs_process: ClassVar[str]

    @classmethod
    def ceqs_hearable(cls) -> Mapping[str, EventType]:
        """Give the events that the state lists, by method name."""
        return {event.handler: event for event in cls.ceqs_state().folds}

    @classmethod
    def ceqs_state(cls) -> StateType:
        """Give what the manager keeps."""
        return cls.ceqs_contract.processes[cls.ceqs_process]

    @classmethod
    def ceqs_tags(cls, event: Message) -> tuple[str, ...]:
        """Give the tags of an event under whose values states are kept: `order:536365`; none where it has no value."""
        key, declared = cls.ceqs_state().boundary[0], cls.ceqs_contract.event(event)
        return tags_of(event, [tag for tag in declared.tags if tag.key == key])


def _public_methods(handler: object, known: Collection[str], of: str, *, beside: str) -> dict[str, Callable[..., Any]]:
    """Give the methods that a handler's author has written, by name.

    Raises Misconfigured for one that belongs to nothing `known`: misspelt, it would never be called. `beside`: a method
    of the platform's own.
    """
    found: dict[str, Callable[..., Any]] = {}
    for name in dir(type(handler)):
        method = getattr(type(handler), name)
        if name.startswith("_") or name == beside or not callable(method) or is_unheard(method):
            continue
        if name not in known:
            raise Misconfigured(
                f"{type(handler).__name__}.{name} belongs to no {of}{hint(name, known)} "
                "(names of helpers begin with an underscore)"
            )
        found[name] = getattr(handler, name)
    return found


def is_unheard(method: object) -> bool:
    """Whether a method is a generated base's own, which nobody overrode."""
    return bool(getattr(method, "__ceqs_unheard__", False))


def hint(name: str, names: Collection[str]) -> str:
    """Say which of the names was meant, or which there are."""
    near = difflib.get_close_matches(name, names, 1)
    return f"; did you mean {near[0]}?" if near else f"; there is {', '.join(names) or 'none'}"
