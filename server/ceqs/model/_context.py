"""A bounded context: its contract and the handlers that fill it in."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from google.protobuf.message import Message

from ceqs.contract import CommandRpc, Contract, EventType, QueryRpc, boundary_method
from ceqs.errors import Misconfigured
from ceqs.model._asking import Asker
from ceqs.model._boundary import Boundary, boundary_of
from ceqs.model._decide import Folder
from ceqs.model._decoding import EventDecoder
from ceqs.model._handlers import (
    CommandHandler,
    EventHandler,
    Fold,
    Gatekeeper,
    KeyedProjection,
    NamedHandler,
    ProcessManager,
    Projection,
    Publisher,
    QueryHandler,
    Subscriber,
    TableProjection,
    Upcasters,
    hint,
    is_unheard,
)
from ceqs.model._reactions import looks_around

H = TypeVar("H", CommandHandler, Gatekeeper, QueryHandler)


class Context:
    """A contract with its handlers, checked against each other when it is made.

    Raises Misconfigured, by name, where a handler is missing, twice, or hears an event that it may not hear.
    """

    ceqs_contract: ClassVar[Contract]
    ceqs_asker: ClassVar[type[Asker]] = Asker
    """Asks the context's queries."""

    def __init__(
        self,
        *,
        commands: CommandHandler | Sequence[CommandHandler] = (),
        folds: Sequence[Fold] = (),
        gatekeepers: Sequence[Gatekeeper] = (),
        projections: Sequence[Projection] = (),
        publishers: Sequence[Publisher] = (),
        subscribers: Sequence[Subscriber] = (),
        upcasters: Sequence[Upcasters] = (),
        queries: QueryHandler | Sequence[QueryHandler] = (),
    ) -> None:
        contract = self.contract
        versions = sorted(projections, key=lambda projection: projection.version)
        self.projections = {p.ceqs_name(): p for p in versions}
        self.earlier = [p for p in _unique(versions) if self.projections[p.ceqs_name()] is not p]
        """Projections of which there is a higher version: their places are fed until they are dropped."""
        self.publishers = {p.ceqs_name(): p for p in _unique(publishers)}
        self.subscribers = {s.ceqs_name(): s for s in _unique(subscribers)}
        _unique([*publishers, *subscribers])
        for handler in (*folds, *projections, *publishers, *subscribers):
            self._belongs(handler)
            methods = handler.ceqs_heard()
            if not methods and not isinstance(handler, Fold):
                raise Misconfigured(f"{type(handler).__name__} hears no event; override one of its on_ methods")
            _waits_where_it_may(handler, methods.values())
        for projection in projections:
            _declared(contract, projection)
            _suits(projection)
        _managed(contract, subscribers)
        self._decoders = _decoders(contract, upcasters, (*projections, *publishers, *subscribers))
        self.decoder = self._decoders[contract.package]
        """Reads the context's own events."""
        self.folders = {name: self._folder(name, fold) for name, fold in self._folds(folds).items()}
        self._methods: dict[str, Callable[..., Any]] = {}
        by_service = _by_service(commands, contract.command_services, "commands")
        for path, command in contract.commands.items():
            self._methods[path] = _method(by_service[command.service], command)
        self._tailors: dict[str, Callable[..., Any]] = {}
        for service, deciding in by_service.items():
            self._tailors |= _tailors(deciding, [c for c in contract.commands.values() if c.service == service])
        self._guards = _guards(contract, gatekeepers)
        needing = {q.service for q in contract.queries.values() if q.needs_code}
        answering = _by_service(queries, contract.query_services, "queries", needed=needing)
        for path, query in contract.queries.items():
            if query.service in answering and (query.needs_code or hasattr(answering[query.service], query.method)):
                self._methods[path] = _method(answering[query.service], query)
        _projected(contract, self.projections)

    @property
    def contract(self) -> Contract:
        """What the context declares."""
        return self.ceqs_contract

    @property
    def name(self) -> str:
        """The context's name."""
        return self.ceqs_contract.context

    def method(self, rpc: CommandRpc | QueryRpc) -> Callable[..., Any] | None:
        """Give the handler's method for an rpc; None for a query that needs no code."""
        return self._methods.get(rpc.path)

    def guard(self, rpc: CommandRpc) -> Callable[..., Any] | None:
        """Give the gatekeeper's method for a command; None where nothing guards it."""
        return self._guards.get(rpc.path)

    @property
    def guarded(self) -> bool:
        """Whether any of its commands has a gatekeeper."""
        return bool(self._guards)

    def boundary(self, rpc: CommandRpc, request: Message) -> Boundary:
        """Give the boundary of a command: what its request addresses, as the handler narrows or widens it.

        Raises Invalid where the request has no value for a key of the boundary.
        """
        addressed = boundary_of(rpc.state, rpc.tags, request)
        tailor = self._tailors.get(rpc.path)
        if tailor is None:
            return addressed
        boundary = tailor(request, addressed)
        if not isinstance(boundary, Boundary) or boundary.state is not rpc.state:
            raise Misconfigured(
                f"{boundary_method(rpc.name)} gave {boundary!r}, which is no boundary of {rpc.state.name}"
            )
        return boundary

    def decoder_of(self, contract: Contract) -> EventDecoder:
        """Give what reads the events of a contract that a handler of this context hears."""
        return self._decoders[contract.package]

    def _folder(self, name: str, fold: Fold) -> Folder:
        state = self.contract.states[name]
        upcasts = {method: step for event in state.folds for method, step in self.decoder.upcasts(event).items()}
        return Folder(state, _folding(fold), upcasts)

    def _belongs(self, handler: EventHandler) -> None:
        foreign = handler.ceqs_contract.package != self.contract.package
        if foreign and not all(event.public for event in handler.ceqs_hearable().values()):
            raise Misconfigured(
                f"{type(handler).__name__} is a handler of the context {handler.ceqs_contract.context!r}, "
                f"not of {self.name!r}; of other contexts only public events are heard"
            )

    def _folds(self, folds: Sequence[Fold]) -> dict[str, Fold]:
        given: dict[str, Fold] = {}
        for fold in folds:
            if fold.ceqs_state in given:
                raise Misconfigured(f"two folds for the state {fold.ceqs_state}; keep one")
            given[fold.ceqs_state] = fold
        for state in self.contract.states:
            if state not in given:
                raise Misconfigured(f"the state {state} has no fold; pass a {state}FoldBase (folds=[...])")
        return given


def _decoders(
    contract: Contract, upcasters: Iterable[Upcasters], heard: Iterable[NamedHandler]
) -> dict[str, EventDecoder]:
    """Give what reads the events of each contract, by its package.

    Raises Misconfigured where nothing says what an earlier form of an event means: of any event of the context's own,
    and of the foreign ones that it hears.
    """
    contracts = {contract.package: contract}
    needed: dict[str, dict[str, EventType]] = {contract.package: dict(contract.events)}
    for handler in heard:
        foreign = handler.ceqs_contract
        contracts.setdefault(foreign.package, foreign)
        needed.setdefault(foreign.package, {}).update((name, foreign.events[name]) for name in handler.ceqs_heard())
    methods: dict[str, dict[str, Callable[..., Any]]] = {package: {} for package in contracts}
    for one in upcasters:
        package = one.ceqs_contract.package
        if package not in contracts:
            raise Misconfigured(f"{type(one).__name__} is of {package}, of which the context hears nothing")
        for name, method in one.ceqs_upcasts().items():
            _is_async(one, method, False)
            if name in methods[package]:
                raise Misconfigured(f"two upcasters {name} of {package}; keep one")
            methods[package][name] = method
    decoders = {package: EventDecoder(contracts[package], methods[package]) for package in contracts}
    for package, decoder in decoders.items():
        for form in decoder.missing(needed[package].values()):
            raise Misconfigured(
                f"{form.type_name} was recorded in another way as version {form.version}, and nothing says what that "
                f"is today; pass upcasters of {package} with the method {form.method} (upcasters=[...])"
            )
    return decoders


def _folding(fold: Fold) -> dict[str, Callable[..., Any]]:
    """Give the methods of a fold. It must hear every event that its state lists: what is listed moves the boundary."""
    heard = fold.ceqs_heard()
    _hears_all(fold, f"the state {fold.ceqs_state}", heard)
    return heard


def _managed(contract: Contract, subscribers: Iterable[Subscriber]) -> None:
    """Check that each process has its manager, which hears every event that the process lists."""
    managers = [subscriber for subscriber in subscribers if isinstance(subscriber, ProcessManager)]
    for manager in managers:
        _hears_all(manager, f"the process {manager.ceqs_process}", manager.ceqs_heard())
    for process in contract.processes:
        if process not in [manager.ceqs_process for manager in managers]:
            raise Misconfigured(f"{process} has no process manager; pass a {process}Process (subscribers=[...])")


def _guards(contract: Contract, gatekeepers: Sequence[Gatekeeper]) -> dict[str, Callable[..., Any]]:
    """Give the gatekeepers' methods by the path of the command that each guards."""
    guarding = _by_service(gatekeepers, contract.command_services, "gatekeepers", needed=())
    methods = {service: gatekeeper.ceqs_guards() for service, gatekeeper in guarding.items()}
    found: dict[str, Callable[..., Any]] = {}
    for path, command in contract.commands.items():
        if guard := methods.get(command.service, {}).get(command.method):
            _is_async(guarding[command.service], guard, True)
            found[path] = guard
    return found


def _projected(contract: Contract, projections: Collection[str]) -> None:
    """Check that each keyed model has its projection, and so has each query that names one."""
    for model in contract.models:
        if model not in projections:
            raise Misconfigured(f"the model {model} has no projection; pass a {model}Projection (projections=[...])")
    for query in contract.queries.values():
        if query.projection and query.projection not in projections:
            raise Misconfigured(
                f"{query.name} reads the projection {query.projection!r}; pass a {query.projection}Projection "
                f"to the context {contract.context!r} (projections=[...])"
            )


def _declared(contract: Contract, projection: Projection) -> None:
    """Check that a projection folds the log that the contract says, if the contract knows it."""
    name, package = projection.ceqs_name(), projection.ceqs_contract.package
    if contract.projections.get(name, contract.package) != package:
        raise Misconfigured(
            f"{type(projection).__name__} folds events of {package}, and no projection {name} of {contract.package} "
            "does; is it another context's?"
        )


def _suits(projection: Projection) -> None:
    """Check a projection of tables for its partitions, a keyed one for what its model lists."""
    if isinstance(projection, TableProjection):
        _partitioned(projection)
    elif isinstance(projection, KeyedProjection):
        _hears_all(projection, f"the model {projection.ceqs_name()}", projection.ceqs_heard())


def _hears_all(handler: EventHandler, of: str, heard: Mapping[str, Callable[..., Any]]) -> None:
    for name, event in handler.ceqs_hearable().items():
        if event.full_name not in heard:
            raise Misconfigured(f"{type(handler).__name__} has no method {name}; {of} lists it")


def _tailors(handler: CommandHandler, commands: Iterable[CommandRpc]) -> dict[str, Callable[..., Any]]:
    """Give the methods that narrow or widen a command's boundary, by the rpc's path.

    Raises Misconfigured for one that belongs to no command: misspelt, it would tailor nothing.
    """
    paths = {boundary_method(command.name): command.path for command in commands}
    deciding = {command.method for command in commands}
    found: dict[str, Callable[..., Any]] = {}
    for name in dir(type(handler)):
        method = getattr(type(handler), name)
        if name.startswith("_") or name in deciding or not callable(method) or is_unheard(method):
            continue
        if name in paths:
            _is_async(handler, method, False)
            found[paths[name]] = getattr(handler, name)
        elif difflib.get_close_matches(name.rpartition("_")[2], ["boundary"], 1, 0.8):
            raise Misconfigured(
                f"{type(handler).__name__}.{name} is the boundary of no command of {handler.ceqs_service}"
                f"{hint(name, paths)} (names of helpers begin with an underscore)"
            )
    return found


def _partitioned(projection: TableProjection) -> None:
    """Refuse a partition key by which an event that is heard is not partitioned: rows would have two writers."""
    key = projection.partition_by
    for full_name in projection.ceqs_heard() if key else ():
        event = projection.ceqs_contract.events[full_name]
        if event.partition_by != key:
            by = f"is partitioned by {event.partition_by!r}" if event.partition_by else "is not partitioned"
            raise Misconfigured(
                f"{type(projection).__name__}.partition_by is {key!r}, but {event.name}, which it hears, {by}: say "
                f"(ceqs.v1.event).partition_by = {key!r} in the contract, or do without"
            )


def _waits_where_it_may(handler: EventHandler, methods: Iterable[Callable[..., Any]]) -> None:
    """Refuse what waits and is pure, or is pure and has to wait. Publishers and subscribers are free to choose."""
    if isinstance(handler, (Fold, Projection, ProcessManager)):
        for method in methods:
            _is_async(handler, method, isinstance(handler, TableProjection))


def _is_async(handler: object, method: Callable[..., Any], expected: bool) -> None:
    if inspect.iscoroutinefunction(method) != expected or (not expected and looks_around(method)):
        rule = "must be `async def`" if expected else "must not be `async def`: it is pure"
        raise Misconfigured(f"{type(handler).__name__}.{method.__name__} {rule}")


def _unique(handlers: Iterable[Any]) -> list[Any]:
    seen: dict[str, NamedHandler] = {}
    for handler in handlers:
        name = handler.ceqs_name()
        if isinstance(handler, Projection):
            name = f"{name} v{handler.version}"
        if name in seen:
            raise Misconfigured(f"{type(handler).__name__} and {type(seen[name]).__name__} are both named {name!r}")
        seen[name] = handler
    return list(seen.values())


def _by_service(
    handlers: H | Sequence[H], services: Sequence[str], argument: str, needed: Iterable[str] | None = None
) -> dict[str, H]:
    given = list(handlers) if isinstance(handlers, Sequence) else [handlers]
    found: dict[str, H] = {}
    for handler in given:
        if handler.ceqs_service not in services:
            raise Misconfigured(f"{type(handler).__name__} serves {handler.ceqs_service}, not a service of the context")
        if handler.ceqs_service in found:
            raise Misconfigured(f"two handlers for {handler.ceqs_service}; keep one")
        found[handler.ceqs_service] = handler
    for service in services if needed is None else needed:
        if service not in found:
            raise Misconfigured(f"{service} has no handler; pass one to the context ({argument}=...)")
    return found


def _method(handler: CommandHandler | QueryHandler, rpc: CommandRpc | QueryRpc) -> Callable[..., Any]:
    method = getattr(handler, rpc.method, None)
    if not callable(method):
        own = [name for name in dir(type(handler)) if not name.startswith("_")]
        near = difflib.get_close_matches(rpc.method, own, 1)
        hint = f"; is {near[0]} misspelt?" if near else ""
        raise Misconfigured(f"{type(handler).__name__} has no method {rpc.method} for the rpc {rpc.name}{hint}")
    _is_async(handler, method, isinstance(rpc, QueryRpc))
    result: Callable[..., Any] = method
    return result
