"""`<context>_ceqs.py`: the contract, and a typed base for each handler that a team writes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
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
    EarlierForm,
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
        doc = _joined(f"{does} {state.name}.", self._comment(state.full_name))
        methods = (
            self._method(
                f"def {event.handler}",
                parameters(f"event: {self.module.message(event.message)}"),
                result,
                self._event_doc(event),
                mark=self._abstract,
            )
            for event in state.folds
        )
        self._class(name, self._abstract_base(base), doc, attributes, methods)

    def _asker(self) -> str:
        """Define what asks the context's queries; without any it has nothing to add."""
        name, asker = self._named("Asker"), self.module.use(MODEL, "Asker")
        rpcs = (rpc for rpc in self.contract.queries.values() if not rpc.streaming)
        self._class(name, asker, f"Asks the queries of {self.contract.context}.", [], map(self._ask, rpcs))
        return name

    def _ask(self, rpc: QueryRpc) -> list[str]:
        request, response = self.module.message(rpc.request), self.module.message(rpc.response)
        result = f"{self.module.use(MODEL, 'Asked')}[{response}]"
        doc = self._comment(f"{rpc.service}.{rpc.name}") or f"Ask {rpc.name}."
        call = wrapped("return await self._ask", "(", [f'"{rpc.path}"', "request", response], ")", BODY)
        return self._method(f"async def {rpc.method}", [f"request: {request}"], result, doc, *call)

    def _commands(self, service: str) -> str:
        name = service_class(service)
        doc = self._comment(service) or f"Decides the commands of {service}."
        rpcs = (rpc for rpc in self.contract.commands.values() if rpc.service == service)
        methods = (method for rpc in rpcs for method in (self._command(rpc), self._boundary(rpc)))
        self._class(name, self._abstract_base("CommandHandler"), doc, [f'    ceqs_service = "{service}"'], methods)
        return name

    def _boundary(self, rpc: CommandRpc) -> list[str]:
        boundary = self.module.use(MODEL, "Boundary")
        parameters = [f"request: {self.module.message(rpc.request)}", f"boundary: {boundary}"]
        doc = f"Narrow or widen what {rpc.name} depends on: the boundary of its request in the state {rpc.state.name}."
        head = f"def {boundary_method(rpc.name)}"
        return self._method(head, parameters, boundary, doc, f"{BODY}return boundary", mark=self._unheard)

    def _command(self, rpc: CommandRpc) -> list[str]:
        state = rpc.state
        parameters = [
            f"request: {self.module.message(rpc.request)}",
            f"{parameter(state.name)}: {self.module.message(state.message)}",
            f"ctx: {self.module.use(MODEL, 'Decision')}",
        ]
        result = f"{self.module.use('collections.abc', 'Iterable')}[{self._named('Event')}]"
        if rpc.answers:
            generator = self.module.use("collections.abc", "Generator")
            result = f"{generator}[{self._named('Event')}, None, {self.module.message(rpc.response)}]"
        doc = self._comment(f"{rpc.service}.{rpc.name}") or f"Decide {rpc.name} on the state {state.name}."
        return self._method(f"def {rpc.method}", parameters, result, doc, mark=self._abstract)

    def _gatekeeper(self, service: str) -> str:
        name, base = gatekeeper_class(service), self.module.use(MODEL, "Gatekeeper")
        doc = f"Guards the commands of {service}; override what it refuses."
        rpcs = (rpc for rpc in self.contract.commands.values() if rpc.service == service)
        self._class(name, base, doc, [f'    ceqs_service = "{service}"'], map(self._guard, rpcs))
        return name

    def _guard(self, rpc: CommandRpc) -> list[str]:
        admission = f"{self.module.use(MODEL, 'Admission')}[{self.asker}]"
        parameters = [f"request: {self.module.message(rpc.request)}", f"ctx: {admission}"]
        doc = f"Let {rpc.name} pass, or raise Rejected."
        return self._method(f"async def {rpc.method}", parameters, "None", doc, mark=self._unheard)

    def _projection(self, projection: str, source: str) -> str:
        base, events, of = self.module.use(MODEL, "TableProjection"), self.private, ""
        if source != self.contract.package:
            base = f"{self.module.use(MODEL, 'PublicHearing')}, {base}"
            told = read_public(*self.telling[source])
            events, of = list(told.events.values()), f" of {told.context}"
        doc = f"Writes the query model {projection}; override what it hears{of}."
        attributes = [*self._folded(source), f'    ceqs_projection = "{projection}"']
        name = projection_class(projection)
        self._class(name, base, doc, attributes, map(self._write, events))
        return name

    def _write(self, event: EventType) -> list[str]:
        session = self.module.use("sqlalchemy.ext.asyncio", "AsyncSession", typing=True)
        message, recorded = self.module.message(event.message), self.module.use(MODEL, "Recorded")
        parameters = [f"session: {session}", f"event: {message}", f"meta: {recorded}"]
        doc = self._event_doc(event)
        return self._method(f"async def {event.handler}", parameters, "None", doc, mark=self._unheard)

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
        name, doc = service_class(service), self._comment(service) or f"Answers the queries of {service}."
        attributes = [f'    ceqs_service = "{service}"']
        self._class(name, self._abstract_base("QueryHandler"), doc, attributes, map(self._query, queries))
        return name

    def _query(self, rpc: QueryRpc) -> list[str]:
        parameters = [f"request: {self.module.message(rpc.request)}"]
        if rpc.state:
            parameters.append(f"{parameter(rpc.state.name)}: {self.module.message(rpc.state.message)}")
        elif rpc.model:
            rows = self.module.use("ceqs.queries", "Rows", typing=True)
            parameters.append(f"rows: {rows}[{self.module.message(rpc.model.message)}]")
        elif rpc.projection:
            parameters.append(f"session: {self.module.use('sqlalchemy.ext.asyncio', 'AsyncSession', typing=True)}")
        else:
            parameters.append(f"ctx: {self.module.use('ceqs.queries', 'Gathering', typing=True)}[{self.asker}]")
        model = (rpc.state and f" from the state {rpc.state.name}") or (
            rpc.projection and f" from the projection {rpc.projection}"
        )
        doc = self._comment(f"{rpc.service}.{rpc.name}") or f"Answer {rpc.name}{model or ''}."
        result = self.module.message(rpc.response)
        return self._method(f"async def {rpc.method}", parameters, result, doc, mark=self._abstract)

    def _reactions(self) -> None:
        use, context = self.module.use, self.contract.context
        if self.private and self.public:
            doc = f"Derives public events of {context} from its private ones; override what it hears."
            self._reaction("Publisher", use(MODEL, "Publisher"), doc, self.private, self._named("PublicEvent"))
        if self.public:
            bases = f"{use(MODEL, 'PublicHearing')}, {use(MODEL, 'Subscriber')}"
            doc = f"Reacts to public events of {context} with commands of another context; override what it hears."
            self._reaction("Subscriber", bases, doc, self.public, use("google.protobuf.message", "Message"))
        if self.private:
            bases = f"{use(MODEL, 'PrivateHearing')}, {use(MODEL, 'Subscriber')}"
            doc = f"Reacts to private events of {context} with its own commands; override what it hears."
            self._reaction("PrivateSubscriber", bases, doc, self.private, self._named("Command"))

    def _reaction(self, suffix: str, bases: str, doc: str, events: Sequence[EventType], item: str) -> None:
        result = f"{self.module.use(MODEL, 'Reactions')}[{item}]"
        # Whoever hears public events is of another context, and asks the queries of that one.
        asker = self.module.use("typing", "Any") if events is self.public else self.asker
        ctx = f"ctx: {self.module.use(MODEL, 'Reaction')}[{asker}]"
        methods = (
            self._method(
                f"def {event.handler}",
                [f"event: {self.module.message(event.message)}", ctx],
                result,
                self._event_doc(event),
                f"{BODY}return ()",
                mark=self._unheard,
            )
            for event in events
        )
        self._class(self._named(suffix), bases, doc, ["    ceqs_contract = CONTRACT"], methods)

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
        doc = f"Says what {kind} of {self.contract.context} are today that were recorded earlier."
        attributes = ["    ceqs_contract = CONTRACT"]
        self._class(self._named(suffix), self._abstract_base("Upcasters"), doc, attributes, map(self._upcast, forms))

    def _upcast(self, form: EarlierForm) -> list[str]:
        becomes = self.module.message(form.becomes)
        what = f"Give the {becomes} that version {form.version} of {form.type_name.rpartition('.')[2]} is."
        doc = _joined(what, self._comment(form.message.DESCRIPTOR.full_name))
        parameters = [f"earlier: {self.module.message(form.message)}"]
        return self._method(f"def {form.method}", parameters, becomes, doc, mark=self._abstract)

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
        kinds = {kind: f"Any{kind}" if names[1:] else names[0] for kind, names in several.items() if names}
        arguments: dict[str, str] = {}
        if kind := kinds.get("Commands"):
            arguments["commands"] = sequence(kind) if self.commands[1:] else kind
        if kind := kinds.get("Fold"):
            arguments["folds"] = sequence(kind)
        if kind := kinds.get("Gatekeeper"):
            arguments["gatekeepers"] = f"{sequence(kind)} = ()"
        if kind := kinds.get("Projection"):
            arguments["projections"] = sequence(kind)
        if self.private and self.public:
            arguments["publishers"] = f"{sequence(self._named('Publisher'))} = ()"
        arguments["subscribers"] = sequence(self.module.use(MODEL, "Subscriber"))
        if not self.contract.processes:
            arguments["subscribers"] += " = ()"
        evolved = any(event.earlier for event in self.contract.events.values())
        arguments["upcasters"] = sequence(self.module.use(MODEL, "Upcasters")) + ("" if evolved else " = ()")
        if kind := kinds.get("Queries"):
            arguments["queries"] = sequence(kind) if self.queries[1:] else kind
        parameters = ["self", "*", *(f"{name}: {kind}" for name, kind in arguments.items())]
        name = self._named("Context")
        doc = f"The context {self.contract.context} with its handlers."
        attributes = ["    ceqs_contract = CONTRACT", f"    ceqs_asker = {self.asker}"]
        made = [
            *wrapped("def __init__", "(", parameters, ") -> None:", "    "),
            *wrapped("super().__init__", "(", [f"{name}={name}" for name in arguments], ")", BODY),
        ]
        self._class(name, self.module.use(MODEL, "Context"), doc, attributes, [made])

    @property
    def _abstract(self) -> str:
        return self.module.use("abc", "abstractmethod")

    @property
    def _unheard(self) -> str:
        return self.module.use(MODEL, "unheard")

    def _abstract_base(self, base: str) -> str:
        return f"{self.module.use(MODEL, base)}, {self.module.use('abc', 'ABC')}"

    def _class(
        self, name: str, bases: str, doc: str, attributes: Sequence[str], methods: Iterable[Sequence[str]]
    ) -> None:
        body = [f"class {name}({bases}):", *docstring(doc, "    ")]
        if attributes:
            body += ["", *attributes]
        for method in methods:
            body += ["", *method]
        self.module.define(name, *body)

    def _method(
        self, head: str, parameters: Sequence[str], result: str, doc: str, *body: str, mark: str = ""
    ) -> list[str]:
        """Give a method with its decorator (`mark`); its head is `def name`."""
        decorator = [f"    @{mark}"] if mark else []
        signature = wrapped(head, "(", ["self", *parameters], f") -> {result}:", "    ")
        return [*decorator, *signature, *docstring(doc, BODY), *body]

    def _comment(self, name: str) -> str:
        return self.sources.comment(name)

    def _event_doc(self, event: EventType) -> str:
        return self._comment(event.full_name) or f"Hear {event.name}."


def parameter(state: str) -> str:
    """Give the name of the parameter that takes a state or a keyed model: `Order` -> `order`."""
    name = snake(state)
    return f"{name}_" if iskeyword(name) or name in ("self", "request", "ctx", "event", "meta") else name


def _joined(*parts: str) -> str:
    return "\n\n".join(filter(None, parts))
