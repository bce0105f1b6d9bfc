"""`<context>_ceqs.py`: the contract, and a typed base for each handler that a team writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from keyword import iskeyword

from google.protobuf.descriptor import FileDescriptor

from ceqs.codegen._module import Module, docstring, wrapped
from ceqs.codegen._names import (
    context_class,
    fold_class,
    gatekeeper_class,
    message_names,
    process_class,
    projection_class,
    service_class,
)
from ceqs.codegen._sources import Sources
from ceqs.contract import (
    CommandRpc,
    Contract,
    EventType,
    KeyedModel,
    QueryRpc,
    StateType,
    boundary_method,
    read_public,
    snake,
)

MODEL = "ceqs.model"
BODY = "        "


def bases_module(
    contract: Contract,
    files: Sequence[FileDescriptor],
    sources: Sources,
    telling: Mapping[str, Sequence[FileDescriptor]],
) -> str:
    """Give the source of the bases module. `telling`: the files that declare public events, by package."""
    return _Bases(contract, files, sources, telling).text()


class _Bases:
    def __init__(
        self,
        contract: Contract,
        files: Sequence[FileDescriptor],
        sources: Sources,
        telling: Mapping[str, Sequence[FileDescriptor]],
    ) -> None:
        self.contract, self.sources, self.telling = contract, sources, telling
        self.private = [event for event in contract.events.values() if not event.public]
        self.public = [event for event in contract.events.values() if event.public]
        self.module = Module(
            f"Typed bases for the handlers of the context {contract.context}.",
            contract.package,
            [file.name for file in files],
            message_names(files),
        )
        self._contract_and_unions(files)
        self.folds = [self._fold(state) for state in contract.states.values()]
        self.asker = self._asker()
        self.commands = [self._commands(service) for service in contract.command_services]
        self.gatekeepers = [self._gatekeeper(service) for service in contract.command_services]
        self.projections = [
            self._keyed(contract.models[name]) if name in contract.models else self._projection(name, source)
            for name, source in contract.projections.items()
        ]
        self.queries = [name for service in contract.query_services if (name := self._queries(service))]
        self._reactions()
        for process in contract.processes.values():
            self._process(process)
        self._upcasters("Upcasters", self.private)
        self._upcasters("PublicUpcasters", self.public)
        self._context()

    def text(self) -> str:
        return self.module.text()

    def _named(self, suffix: str) -> str:
        return context_class(self.contract.context, suffix)

    def _contract_and_unions(self, files: Sequence[FileDescriptor]) -> None:
        reader = self.module.use("ceqs.contract", "read_contract")
        descriptors = [self.module.descriptor(file) for file in files]
        self.module.constant("CONTRACT", wrapped(f"CONTRACT = {reader}", "(", descriptors, ")"))
        requests = [command.request for command in self.contract.commands.values()]
        for suffix, members in (
            ("Event", [event.message for event in self.private]),
            ("PublicEvent", [event.message for event in self.public]),
            ("Command", requests),
        ):
            names = dict.fromkeys(self.module.message(member) for member in members)
            self.module.alias(self._named(suffix), list(names))

    def _fold(self, state: StateType) -> str:
        name, of = fold_class(state.name), f"{parameter(state.name)}: {self.module.message(state.message)}"
        attributes = ["    ceqs_contract = CONTRACT", f'    ceqs_state = "{state.name}"']
        self._of_state(name, "Fold", "Folds the state", attributes, state, lambda event: [of, event], "None")
        return name

    def _of_state(
        self,
        name: str,
        base: str,
        does: str,
        attributes: Sequence[str],
        state: StateType | KeyedModel,
        parameters: Callable[[str], list[str]],
        result: str,
    ) -> None:
        """Define a base with a method for each event that a state or a model lists; parameters go by the event's."""
        body = [
            f"class {name}({self.module.use(MODEL, base)}, {self.module.use('abc', 'ABC')}):",
            *docstring(_joined(f"{does} {state.name}.", self._comment(state.full_name)), "    "),
            "",
            *attributes,
        ]
        for event in state.folds:
            own = ["self", *parameters(f"event: {self.module.message(event.message)}")]
            body += ["", f"    @{self.module.use('abc', 'abstractmethod')}"]
            body += wrapped(f"def {event.handler}", "(", own, f") -> {result}:", "    ")
            body += self._event_doc(event)
        self.module.define(name, *body)

    def _asker(self) -> str:
        """Define what asks the context's queries; without any it has nothing to add."""
        name, asker = self._named("Asker"), self.module.use(MODEL, "Asker")
        body = [f"class {name}({asker}):", *docstring(f"Asks the queries of {self.contract.context}.", "    ")]
        for rpc in self.contract.queries.values():
            if rpc.streaming:
                continue
            request, response = self.module.message(rpc.request), self.module.message(rpc.response)
            head = f") -> {self.module.use(MODEL, 'Asked')}[{response}]:"
            body += ["", *wrapped(f"async def {rpc.method}", "(", ["self", f"request: {request}"], head, "    ")]
            body += docstring(self._comment(f"{rpc.service}.{rpc.name}") or f"Ask {rpc.name}.", BODY)
            body += wrapped("return await self._ask", "(", [f'"{rpc.path}"', "request", response], ")", BODY)
        self.module.define(name, *body)
        return name

    def _commands(self, service: str) -> str:
        name = service_class(service)
        handler, abc = self.module.use(MODEL, "CommandHandler"), self.module.use("abc", "ABC")
        body = [
            f"class {name}({handler}, {abc}):",
            *docstring(self._comment(service) or f"Decides the commands of {service}.", "    "),
            "",
            f'    ceqs_service = "{service}"',
        ]
        for rpc in self.contract.commands.values():
            if rpc.service == service:
                body += ["", f"    @{self.module.use('abc', 'abstractmethod')}", *self._command(rpc)]
                body += ["", f"    @{self.module.use(MODEL, 'unheard')}", *self._boundary(rpc)]
        self.module.define(name, *body)
        return name

    def _boundary(self, rpc: CommandRpc) -> list[str]:
        boundary = self.module.use(MODEL, "Boundary")
        parameters = ["self", f"request: {self.module.message(rpc.request)}", f"boundary: {boundary}"]
        head = wrapped(f"def {boundary_method(rpc.name)}", "(", parameters, f") -> {boundary}:", "    ")
        doc = f"Narrow or widen what {rpc.name} depends on: the boundary of its request in the state {rpc.state.name}."
        return [*head, *docstring(doc, BODY), f"{BODY}return boundary"]

    def _command(self, rpc: CommandRpc) -> list[str]:
        state = rpc.state
        parameters = [
            "self",
            f"request: {self.module.message(rpc.request)}",
            f"{parameter(state.name)}: {self.module.message(state.message)}",
            f"ctx: {self.module.use(MODEL, 'Decision')}",
        ]
        result = f"{self.module.use('collections.abc', 'Iterable')}[{self._named('Event')}]"
        if rpc.answers:
            generator = self.module.use("collections.abc", "Generator")
            result = f"{generator}[{self._named('Event')}, None, {self.module.message(rpc.response)}]"
        doc = self._comment(f"{rpc.service}.{rpc.name}") or f"Decide {rpc.name} on the state {state.name}."
        return [*wrapped(f"def {rpc.method}", "(", parameters, f") -> {result}:", "    "), *docstring(doc, BODY)]

    def _gatekeeper(self, service: str) -> str:
        name = gatekeeper_class(service)
        body = [
            f"class {name}({self.module.use(MODEL, 'Gatekeeper')}):",
            *docstring(f"Guards the commands of {service}; override what it refuses.", "    "),
            "",
            f'    ceqs_service = "{service}"',
        ]
        for rpc in self.contract.commands.values():
            if rpc.service == service:
                admission = f"{self.module.use(MODEL, 'Admission')}[{self.asker}]"
                parameters = ["self", f"request: {self.module.message(rpc.request)}", f"ctx: {admission}"]
                body += ["", f"    @{self.module.use(MODEL, 'unheard')}"]
                body += wrapped(f"async def {rpc.method}", "(", parameters, ") -> None:", "    ")
                body += docstring(f"Let {rpc.name} pass, or raise Rejected.", BODY)
        self.module.define(name, *body)
        return name

    def _projection(self, projection: str, source: str) -> str:
        name, base, events, of = (
            projection_class(projection),
            self.module.use(MODEL, "TableProjection"),
            self.private,
            "",
        )
        if source != self.contract.package:
            base = f"{self.module.use(MODEL, 'PublicHearing')}, {base}"
            told = read_public(*self.telling[source])
            events, of = list(told.events.values()), f" of {told.context}"
        session = self.module.use("sqlalchemy.ext.asyncio", "AsyncSession", typing=True)
        body = [
            f"class {name}({base}):",
            *docstring(f"Writes the query model {projection}; override what it hears{of}.", "    "),
            "",
            *self._folded(source),
            f'    ceqs_projection = "{projection}"',
        ]
        for event in events:
            message, recorded = self.module.message(event.message), self.module.use(MODEL, "Recorded")
            parameters = ["self", f"session: {session}", f"event: {message}", f"meta: {recorded}"]
            body += ["", f"    @{self.module.use(MODEL, 'unheard')}"]
            body += wrapped(f"async def {event.handler}", "(", parameters, ") -> None:", "    ")
            body += self._event_doc(event)
        self.module.define(name, *body)
        return name

    def _keyed(self, model: KeyedModel) -> str:
        name, of = projection_class(model.name), f"{parameter(model.name)}: {self.module.message(model.message)}"
        does, meta = "Folds the query model", f"meta: {self.module.use(MODEL, 'Recorded')}"
        attributes = [*self._folded(model.source), f'    ceqs_model = CONTRACT.models["{model.name}"]']
        self._of_state(name, "KeyedProjection", does, attributes, model, lambda event: [of, event, meta], "None")
        return name

    def _folded(self, source: str) -> list[str]:
        """Give the attribute that says of which contract a projection folds the events."""
        if source == self.contract.package:
            return ["    ceqs_contract = CONTRACT"]
        descriptors = [self.module.descriptor(file) for file in self.telling[source]]
        reader = self.module.use("ceqs.contract", "read_public")
        return wrapped(f"ceqs_contract = {reader}", "(", descriptors, ")", "    ")

    def _queries(self, service: str) -> str:
        """Define the base of a query service; none where the platform answers all of its queries."""
        queries = [rpc for rpc in self.contract.queries.values() if rpc.service == service and rpc.needs_code]
        if not queries:
            return ""
        name = service_class(service)
        handler, abc = self.module.use(MODEL, "QueryHandler"), self.module.use("abc", "ABC")
        body = [
            f"class {name}({handler}, {abc}):",
            *docstring(self._comment(service) or f"Answers the queries of {service}.", "    "),
            "",
            f'    ceqs_service = "{service}"',
        ]
        for rpc in queries:
            body += ["", f"    @{self.module.use('abc', 'abstractmethod')}", *self._query(rpc)]
        self.module.define(name, *body)
        return name

    def _query(self, rpc: QueryRpc) -> list[str]:
        parameters = ["self", f"request: {self.module.message(rpc.request)}"]
        if rpc.state:
            parameters.append(f"{parameter(rpc.state.name)}: {self.module.message(rpc.state.message)}")
        elif rpc.model:
            rows = self.module.use("ceqs.queries", "Rows", typing=True)
            parameters.append(f"rows: {rows}[{self.module.message(rpc.model.message)}]")
        elif rpc.projection:
            parameters.append(f"session: {self.module.use('sqlalchemy.ext.asyncio', 'AsyncSession', typing=True)}")
        else:
            parameters.append(f"ctx: {self.module.use('ceqs.queries', 'Gathering', typing=True)}[{self.asker}]")
        result = self.module.message(rpc.response)
        model = (rpc.state and f" from the state {rpc.state.name}") or (
            rpc.projection and f" from the projection {rpc.projection}"
        )
        doc = self._comment(f"{rpc.service}.{rpc.name}") or f"Answer {rpc.name}{model or ''}."
        return [*wrapped(f"async def {rpc.method}", "(", parameters, f") -> {result}:", "    "), *docstring(doc, BODY)]

    def _reactions(self) -> None:
        use, context = self.module.use, self.contract.context
        if self.private and self.public:
            publisher = f"class {self._named('Publisher')}({use(MODEL, 'Publisher')}):"
            doc = f"Derives public events of {context} from its private ones; override what it hears."
            self._reaction("Publisher", publisher, doc, self.private, self._named("PublicEvent"))
        if self.public:
            bases = f"{use(MODEL, 'PublicHearing')}, {use(MODEL, 'Subscriber')}"
            subscriber = f"class {self._named('Subscriber')}({bases}):"
            doc = f"Reacts to public events of {context} with commands of another context; override what it hears."
            self._reaction("Subscriber", subscriber, doc, self.public, use("google.protobuf.message", "Message"))
        if self.private:
            bases = f"{use(MODEL, 'PrivateHearing')}, {use(MODEL, 'Subscriber')}"
            subscriber = f"class {self._named('PrivateSubscriber')}({bases}):"
            doc = f"Reacts to private events of {context} with its own commands; override what it hears."
            self._reaction("PrivateSubscriber", subscriber, doc, self.private, self._named("Command"))

    def _reaction(self, suffix: str, head: str, doc: str, events: Sequence[EventType], item: str) -> None:
        body = [head, *docstring(doc, "    "), "", "    ceqs_contract = CONTRACT"]
        result = f"{self.module.use(MODEL, 'Reactions')}[{item}]"
        # Whoever hears public events is of another context, and asks the queries of that one.
        asker = self.module.use("typing", "Any") if events is self.public else self.asker
        for event in events:
            message = self.module.message(event.message)
            parameters = ["self", f"event: {message}", f"ctx: {self.module.use(MODEL, 'Reaction')}[{asker}]"]
            body += ["", f"    @{self.module.use(MODEL, 'unheard')}"]
            body += wrapped(f"def {event.handler}", "(", parameters, f") -> {result}:", "    ")
            body += [*self._event_doc(event), f"{BODY}return ()"]
        self.module.define(self._named(suffix), *body)

    def _process(self, state: StateType) -> None:
        name, of = process_class(state.name), f"{parameter(state.name)}: {self.module.message(state.message)}"
        ctx = f"ctx: {self.module.use(MODEL, 'Reaction')}"
        result = f"{self.module.use('collections.abc', 'Iterable')}[{self._named('Command')}]"
        does, attributes = "Manages the process", ["    ceqs_contract = CONTRACT", f'    ceqs_process = "{state.name}"']
        self._of_state(name, "ProcessManager", does, attributes, state, lambda event: [event, of, ctx], result)

    def _upcasters(self, suffix: str, events: Sequence[EventType]) -> None:
        """Define the base that says what earlier forms of events are today; none where there are no such forms."""
        forms = [form for event in events for form in event.earlier]
        if not forms:
            return
        kind = "public events" if events is self.public else "events"
        body = [
            f"class {self._named(suffix)}({self.module.use(MODEL, 'Upcasters')}, {self.module.use('abc', 'ABC')}):",
            *docstring(f"Says what {kind} of {self.contract.context} are today that were recorded earlier.", "    "),
            "",
            "    ceqs_contract = CONTRACT",
        ]
        for form in forms:
            becomes = self.module.message(form.becomes)
            parameters = ["self", f"earlier: {self.module.message(form.message)}"]
            doc = self._comment(form.message.DESCRIPTOR.full_name)
            what = f"Give the {becomes} that version {form.version} of {form.type_name.rpartition('.')[2]} is."
            body += ["", f"    @{self.module.use('abc', 'abstractmethod')}"]
            body += wrapped(f"def {form.method}", "(", parameters, f") -> {becomes}:", "    ")
            body += docstring(_joined(what, doc), BODY)
        self.module.define(self._named(suffix), *body)

    def _context(self) -> None:
        sequence = f"{self.module.use('collections.abc', 'Sequence')}[{{}}]".format
        several = {
            "Commands": self.commands,
            "Fold": self.folds,
            "Gatekeeper": self.gatekeepers,
            "Projection": self.projections,
            "Queries": self.queries,
        }
        unions = {f"Any{kind}": names for kind, names in several.items() if len(names) > 1}
        if unions:
            self.module.add("", "")
        for union, names in unions.items():
            self.module.alias(union, names)
        arguments: dict[str, str] = {}
        if self.commands:
            arguments["commands"] = sequence("AnyCommands") if self.commands[1:] else self.commands[0]
        if self.folds:
            arguments["folds"] = sequence("AnyFold" if self.folds[1:] else self.folds[0])
        if self.gatekeepers:
            kind = "AnyGatekeeper" if self.gatekeepers[1:] else self.gatekeepers[0]
            arguments["gatekeepers"] = f"{sequence(kind)} = ()"
        if self.projections:
            arguments["projections"] = sequence("AnyProjection" if self.projections[1:] else self.projections[0])
        if self.private and self.public:
            arguments["publishers"] = f"{sequence(self._named('Publisher'))} = ()"
        arguments["subscribers"] = f"{sequence(self.module.use(MODEL, 'Subscriber'))}"
        if not self.contract.processes:
            arguments["subscribers"] += " = ()"
        evolved = any(event.earlier for event in self.contract.events.values())
        arguments["upcasters"] = sequence(self.module.use(MODEL, "Upcasters")) + ("" if evolved else " = ()")
        if self.queries:
            arguments["queries"] = sequence("AnyQueries") if self.queries[1:] else self.queries[0]
        parameters = ["self", "*", *(f"{name}: {kind}" for name, kind in arguments.items())]
        name = self._named("Context")
        self.module.define(
            name,
            f"class {name}({self.module.use(MODEL, 'Context')}):",
            *docstring(f"The context {self.contract.context} with its handlers.", "    "),
            "",
            "    ceqs_contract = CONTRACT",
            f"    ceqs_asker = {self.asker}",
            "",
            *wrapped("def __init__", "(", parameters, ") -> None:", "    "),
            *wrapped("super().__init__", "(", [f"{name}={name}" for name in arguments], ")", BODY),
        )

    def _comment(self, name: str) -> str:
        return self.sources.comment(name)

    def _event_doc(self, event: EventType) -> list[str]:
        return docstring(self._comment(event.full_name) or f"Hear {event.name}.", BODY)


def parameter(state: str) -> str:
    """Give the name of the parameter that takes a state or a keyed model: `Order` -> `order`."""
    name = snake(state)
    return f"{name}_" if iskeyword(name) or name in ("self", "request", "ctx", "event", "meta") else name


def _joined(*parts: str) -> str:
    return "\n\n".join(filter(None, parts))
