"""Reading a contract from message descriptors. The generator and the running service share this reading."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from keyword import iskeyword
from typing import Any, TypeAlias

from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass

from ceqs.contract._types import (
    CommandRpc,
    Contract,
    EventType,
    Locking,
    Persistence,
    QueryRpc,
    StateType,
    TagField,
)
from ceqs.errors import Misconfigured
from ceqs.v1 import options_pb2

AnyDescriptor: TypeAlias = Any
"""A Descriptor; the type stubs of protobuf know two classes of them."""
RECEIPT = "ceqs.v1.Receipt"
AGE = "ceqs.v1.Age"


def read_contract(*files: FileDescriptor) -> Contract:
    """Read the contract of one context from the files of its package.

    The files are expected to have passed the generator's checks; what cannot be read at all raises Misconfigured.
    """
    context, package = context_name(files), files[0].package
    events = {event.full_name: event for event in map(_event, _messages_with(files, options_pb2.event))}
    by_name = {event.name: event for event in events.values()}
    declared = list(_messages_with(files, options_pb2.state))
    states, processes = (
        {d.name: _state(d, by_name) for d in declared if is_process(d) is process} for process in (False, True)
    )
    commands: dict[str, CommandRpc] = {}
    queries: dict[str, QueryRpc] = {}
    for method in (method for file in files for service in services(file) for method in service.methods):
        options = method.GetOptions()
        if options.HasExtension(options_pb2.command):
            command = _command(method, states)
            commands[command.path] = command
        elif options.HasExtension(options_pb2.query):
            query = _query(method, states)
            queries[query.path] = query
    return Contract(
        context=context,
        package=package,
        events=events,
        states=states,
        processes=processes,
        commands=commands,
        queries=queries,
        command_services=tuple(dict.fromkeys(c.service for c in commands.values())),
        query_services=tuple(dict.fromkeys(q.service for q in queries.values())),
        projections=tuple(dict.fromkeys(q.projection for q in queries.values() if q.projection)),
        _by_request={c.request.DESCRIPTOR.full_name: c for c in commands.values()},
    )


def context_name(files: Iterable[FileDescriptor]) -> str:
    """Give the context's name: the file option, or the package's last element before its version."""
    files = tuple(files)
    for file in files:
        if name := file.GetOptions().Extensions[options_pb2.context].name:
            return str(name)
    parts = [part for part in files[0].package.split(".") if not re.fullmatch(r"v\d+\w*", part)]
    if not parts:
        raise Misconfigured(f"{files[0].name}: the package {files[0].package!r} names no context")
    return parts[-1]


def snake(name: str) -> str:
    """`PlaceOrder` -> `place_order`; `ListSKUs` -> `list_skus`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z](?!s(?:[A-Z]|$))[a-z])", "_", name).lower()


def method_name(rpc: str) -> str:
    """Give the Python method of an rpc: `PlaceOrder` -> `place_order`; `Import` -> `import_`."""
    name = snake(rpc)
    return f"{name}_" if iskeyword(name) else name


def boundary_method(rpc: str) -> str:
    """Give the method that may narrow or widen a command's boundary: `PlaceOrder` -> `place_order_boundary`."""
    return f"{snake(rpc)}_boundary"


def messages(file: FileDescriptor) -> Iterator[Descriptor]:
    """Give the top-level messages of a file in the order of their declaration."""
    return iter(file.message_types_by_name.values())


def services(file: FileDescriptor) -> Iterator[ServiceDescriptor]:
    """Give the services of a file in the order of their declaration."""
    return iter(file.services_by_name.values())


def is_process(descriptor: Descriptor) -> bool:
    """Whether a message with the state option is the state of a process manager."""
    return descriptor.GetOptions().Extensions[options_pb2.state].process


def tag_fields(descriptor: Descriptor) -> tuple[TagField, ...]:
    """Give the fields of a message whose values are tags."""
    return tuple(
        TagField(field.name, key, field.is_repeated)
        for field in descriptor.fields
        if (key := field.GetOptions().Extensions[options_pb2.field].tag)
    )


def own_fields(descriptor: Descriptor) -> list[FieldDescriptor]:
    """Give the fields of a response that the platform does not fill."""
    return [f for f in descriptor.fields if not (f.message_type and f.message_type.full_name in (RECEIPT, AGE))]


def field_of_type(descriptor: AnyDescriptor, full_name: str) -> str:
    """Give the name of the first field of a message type, such as `RECEIPT` or `AGE`; empty where there is none."""
    names = [f.name for f in descriptor.fields if f.message_type and f.message_type.full_name == full_name]
    return names[0] if names else ""


def command_id_field(request: AnyDescriptor) -> str:
    """Give the name of the request's field that carries the command id; empty where none is annotated."""
    names = [f.name for f in request.fields if f.GetOptions().Extensions[options_pb2.field].command_id]
    return names[0] if names else ""


def _messages_with(files: Iterable[FileDescriptor], extension: object) -> Iterator[Descriptor]:
    for file in files:
        for descriptor in messages(file):
            if descriptor.GetOptions().HasExtension(extension):  # type: ignore[arg-type]  # one of ours, typed by the stub
                yield descriptor


def _event(descriptor: Descriptor) -> EventType:
    options, tags = descriptor.GetOptions().Extensions[options_pb2.event], tag_fields(descriptor)
    return EventType(
        name=descriptor.name,
        full_name=descriptor.full_name,
        message=GetMessageClass(descriptor),
        handler=f"on_{snake(descriptor.name)}",
        public=options.visibility == options_pb2.VISIBILITY_PUBLIC,
        version=options.version or 1,
        tags=tags,
        partition_by=options.partition_by or (tags[0].key if tags else ""),
    )


def _state(descriptor: Descriptor, events: dict[str, EventType]) -> StateType:
    options = descriptor.GetOptions().Extensions[options_pb2.state]
    missing = [name for name in options.folds if name not in events]
    if missing:
        raise Misconfigured(f"{descriptor.full_name} folds {missing[0]}, which is no event of the context")
    return StateType(
        name=descriptor.name,
        full_name=descriptor.full_name,
        message=GetMessageClass(descriptor),
        boundary=tuple(options.boundary),
        folds=tuple(events[name] for name in options.folds),
        types=frozenset(events[name].full_name for name in options.folds),
        locking=Locking.PESSIMISTIC if options.locking == options_pb2.LOCKING_PESSIMISTIC else Locking.OPTIMISTIC,
        persistence=(
            Persistence.STATE_STORED
            if options.persistence == options_pb2.PERSISTENCE_STATE_STORED
            else Persistence.EVENT_SOURCED
        ),
        snapshot_every=options.snapshot_every,
        tags=tag_fields(descriptor),
    )


def _command(method: MethodDescriptor, states: dict[str, StateType]) -> CommandRpc:
    options = method.GetOptions().Extensions[options_pb2.command]
    if options.state not in states:
        raise Misconfigured(f"{method.full_name} decides on {options.state!r}, which is no state of the context")
    request, response = method.input_type, method.output_type
    return CommandRpc(
        name=method.name,
        service=method.containing_service.full_name,
        path=f"/{method.containing_service.full_name}/{method.name}",
        method=method_name(method.name),
        request=GetMessageClass(request),
        response=GetMessageClass(response),
        state=states[options.state],
        tags=tag_fields(request),
        command_id_field=command_id_field(request),
        receipt_field=field_of_type(response, RECEIPT),
        answers=bool(own_fields(response)),
    )


def _query(method: MethodDescriptor, states: dict[str, StateType]) -> QueryRpc:
    options = method.GetOptions().Extensions[options_pb2.query]
    if options.state and options.state not in states:
        raise Misconfigured(f"{method.full_name} reads {options.state!r}, which is no state of the context")
    state = states.get(options.state)
    own = own_fields(method.output_type)
    fills_itself = state and len(own) == 1 and own[0].message_type and own[0].message_type.full_name == state.full_name
    return QueryRpc(
        name=method.name,
        service=method.containing_service.full_name,
        path=f"/{method.containing_service.full_name}/{method.name}",
        method=method_name(method.name),
        request=GetMessageClass(method.input_type),
        response=GetMessageClass(method.output_type),
        streaming=method.server_streaming,
        state=state,
        projection=options.projection,
        tags=tag_fields(method.input_type),
        age_field=field_of_type(method.output_type, AGE),
        state_field=own[0].name if fills_itself and not own[0].is_repeated else "",
    )
