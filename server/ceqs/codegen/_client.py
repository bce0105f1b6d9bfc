"""`<context>_client.py`: a typed asyncio client with one method per rpc."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.descriptor import FileDescriptor

from ceqs.codegen._module import Module, docstring, wrapped
from ceqs.codegen._names import context_class, message_names
from ceqs.codegen._sources import Sources
from ceqs.contract import CommandRpc, Contract, QueryRpc

BASE = "ceqs.client"
# What the base has, and what the annotations below mean: an rpc of such a name is called with an underscore.
RESERVED = frozenset(
    {
        "attempt_timeout",
        "channel",
        "close",
        "events",
        "execute_many",
        "float",
        "str",
        "stream",
        "timeout",
        "token",
        "with_moment",
        "with_token",
    }
)


def client_module(contract: Contract, files: Sequence[FileDescriptor], sources: Sources) -> str:
    """Give the source of the client module."""
    name, stream = context_class(contract.context, "Client"), context_class(contract.context, "Stream")
    module = Module(
        f"A typed client of the context {contract.context}.",
        contract.package,
        [file.name for file in files],
        [*message_names(files), name, stream],
    )
    body = [
        f"class {name}({module.use(BASE, 'ContextClient')}):",
        *docstring(f"Calls the services of the context {contract.context} and hears its events.", "    "),
        "",
        f'    ceqs_context = "{contract.context}"',
    ]
    events = [f'"{event.full_name}": {module.message(event.message)}' for event in contract.events.values()]
    body += (
        ["    ceqs_events = {", *(f"        {event}," for event in events), "    }"]
        if events
        else ["    ceqs_events = {}"]
    )
    commands = list(contract.commands.values())
    paths = [f'{module.message(c.request)}: ("{c.path}", {module.message(c.response)})' for c in commands]
    body += (
        ["    ceqs_commands = {", *(f"        {path}," for path in paths), "    }"]
        if paths
        else ["    ceqs_commands = {}"]
    )
    for command in commands:
        body += ["", *_command(module, command, sources)]
    if commands:
        body += _streaming(module, stream, commands)
    for query in contract.queries.values():
        body += ["", *(_watch if query.streaming else _query)(module, query, sources)]
    module.define(name, *body)
    if commands:
        module.define(stream, *_stream(module, stream, contract, sources))
    return module.text()


def _streaming(module: Module, stream: str, commands: Sequence[CommandRpc]) -> list[str]:
    """Give the client's methods that open a stream."""
    requests = " | ".join(module.message(command.request) for command in commands)
    responses = " | ".join(dict.fromkeys(module.message(command.response) for command in commands))
    iterator, outcome = module.use("collections.abc", "AsyncIterator"), module.use(BASE, "Outcome")
    return [
        "",
        f"    def stream(self, *, timeout: float | None = None) -> {stream}:",
        '        """Open a stream of commands; `timeout` is that of each: `async with client.stream() as stream`."""',
        f"        return {stream}(self._settings(timeout))",
        "",
        *wrapped(
            "def execute_many",
            "(",
            ["self", f"requests: {module.use(BASE, 'Commands')}[{requests}]", "*", "timeout: float | None = None"],
            f") -> {iterator}[{outcome}[{responses}]]:",
            "    ",
        ),
        '        """Send many commands on one stream; give their outcomes in the order of the requests."""',
        "        return self._execute_many(requests, self.stream(timeout=timeout))",
    ]


def _stream(module: Module, name: str, contract: Contract, sources: Sources) -> list[str]:
    lines = [
        f"class {name}({module.use(BASE, 'CommandStream')}):",
        *docstring(f"Sends commands of the context {contract.context} on one call.", "    "),
    ]
    for rpc in contract.commands.values():
        response = module.message(rpc.response)
        lines += [
            "",
            *wrapped(
                f"async def {_method(rpc)}",
                "(",
                [*_request(module, rpc), "command_id: str | None = None"],
                f") -> {module.use(BASE, 'Sent')}[{response}]:",
                "    ",
            ),
            *_doc(rpc, sources),
            *_call("await self._send", rpc, response, "command_id"),
        ]
    return lines


def _command(module: Module, rpc: CommandRpc, sources: Sources) -> list[str]:
    response = module.message(rpc.response)
    return [
        *wrapped(
            f"async def {_method(rpc)}",
            "(",
            [*_request(module, rpc), "command_id: str | None = None", "timeout: float | None = None"],
            f") -> {response}:",
            "    ",
        ),
        *_doc(rpc, sources),
        *_call("await self._command", rpc, response, "command_id", "timeout"),
    ]


def _query(module: Module, rpc: QueryRpc, sources: Sources) -> list[str]:
    response = module.message(rpc.response)
    return [
        *wrapped(
            f"async def {_method(rpc)}",
            "(",
            [*_request(module, rpc), *_asking(module)],
            f") -> {module.use(BASE, 'Answer')}[{response}]:",
            "    ",
        ),
        *_doc(rpc, sources),
        *_call("await self._query", rpc, response, "at_least", "as_of", "timeout"),
    ]


def _watch(module: Module, rpc: QueryRpc, sources: Sources) -> list[str]:
    response = module.message(rpc.response)
    iterator, answer = module.use("collections.abc", "AsyncIterator"), module.use(BASE, "Answer")
    return [
        *wrapped(
            f"def {_method(rpc)}",
            "(",
            [*_request(module, rpc), *_asking(module)],
            f") -> {iterator}[{answer}[{response}]]:",
            "    ",
        ),
        *_doc(rpc, sources),
        *_call("self._watch", rpc, response, "at_least", "as_of", "timeout"),
    ]


def _method(rpc: CommandRpc | QueryRpc) -> str:
    return f"{rpc.method}_" if rpc.method in RESERVED else rpc.method


def _request(module: Module, rpc: CommandRpc | QueryRpc) -> list[str]:
    return ["self", f"request: {module.message(rpc.request)}", "*"]


def _asking(module: Module) -> list[str]:
    moment = f"str | {module.use('datetime', 'datetime')} | None"
    return ["at_least: str | None = None", f"as_of: {moment} = None", "timeout: float | None = None"]


def _doc(rpc: CommandRpc | QueryRpc, sources: Sources) -> list[str]:
    return docstring(sources.comment(f"{rpc.service}.{rpc.name}") or f"Call {rpc.name}.", "        ")


def _call(function: str, rpc: CommandRpc | QueryRpc, response: str, *options: str) -> list[str]:
    arguments = [f'"{rpc.path}"', "request", response, *(f"{option}={option}" for option in options)]
    return wrapped(f"return {function}", "(", arguments, ")", "        ")
