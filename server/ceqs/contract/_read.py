"""Reading a contract from message descriptors. The generator and the running service share this reading."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from keyword import iskeyword

from google.protobuf.descriptor import Descriptor, FileDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass

from ceqs.contract._fields import (
    AGE,
    RECEIPT,
    AnyDescriptor,
    command_id_field,
    field_of_type,
    own_fields,
    parts_field,
    tag_fields,
)
from ceqs.contract._keyed import list_field, read_model, row_field
from ceqs.contract._types import (
    CommandRpc,
    Contract,
    EarlierForm,
    EventType,
    KeyedModel,
    Locking,
    Persistence,
    QueryRpc,
    StateType,
)
from ceqs.errors import Misconfigured
from ceqs.v1 import options_pb2


def read_contract(*files: FileDescriptor) -> Contract:
    """Read the contract of one context from the files of its package.

    The files are expected to have passed the generator's checks; what cannot be read at all raises Misconfigured.
    """
    context, package = context_name(files), files[0].package
    declared = [_event(descriptor) for descriptor in _messages_with(files, options_pb2.event)]
    replaced = {form.type_name for event in declared for form in event.earlier if form.type_name != event.full_name}
    events = {event.full_name: event for event in declared if event.full_name not in replaced}
    by_name = {event.name: event for event in events.values()}
    folded = list(_messages_with(files, options_pb2.state))
    states, processes = (
        {d.name: _state(d, by_name) for d in folded if is_process(d) is process} for process in (False, True)
    )
    models = {d.name: read_model(d, by_name | _told(d)) for d in _messages_with(files, options_pb2.model)}
    projections = {model.name: model.source for model in models.values()}
    commands: dict[str, CommandRpc] = {}
    queries: dict[str, QueryRpc] = {}
    for method in (method for file in files for service in services(file) for method in service.methods):
        options = method.GetOptions()
        if options.HasExtension(options_pb2.command):
            command = _command(method, states)
            commands[command.path] = command
        elif options.HasExtension(options_pb2.query):
            query = _query(method, states, models)
            queries[query.path] = query
            if query.projection:
                projections.setdefault(query.projection, options.Extensions[options_pb2.query].source or package)
    return Contract(
        context=context,
        package=package,
        events=events,
        recorded={name: event for event in events.values() for name in event.recorded_as},
        states=states,
        processes=processes,
        models=models,
        commands=commands,
        queries=queries,
        command_services=tuple(dict.fromkeys(c.service for c in commands.values())),
        query_services=tuple(dict.fromkeys(q.service for q in queries.values())),
        projections=projections,
        _by_request={c.request.DESCRIPTOR.full_name: c for c in commands.values()},
    )


def read_public(*files: FileDescriptor) -> Contract:
    """Read what a context tells others: its public events, and nothing else of it, from the files that declare them."""
    events = [_event(descriptor) for descriptor in _messages_with(files, options_pb2.event)]
    public = {event.full_name: event for event in events if event.public}
    return Contract(
        context=context_name(files),
        package=files[0].package,
        events=public,
        recorded={name: event for event in public.values() for name in event.recorded_as},
        states={},
        processes={},
        models={},
        commands={},
        queries={},
        command_services=(),
        query_services=(),
        projections={},
        _by_request={},
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


def replaced_by(event: AnyDescriptor) -> list[str]:
    """Give the full names of the event types that an event has replaced."""
    package = event.file.package
    names = event.GetOptions().Extensions[options_pb2.event].replaces
    return [name if "." in name or not package else f"{package}.{name}" for name in names]


def version_of(event: AnyDescriptor) -> int:
    """Give the version of an event's schema."""
    return event.GetOptions().Extensions[options_pb2.event].version or 1


def upcaster_method(event: AnyDescriptor, version: int | None, package: str) -> str:
    """Give the name of the upcaster of an event's earlier version, or of an event that was replaced (None).

    `OrderPlaced` -> `order_placed_v1`, `order_placed`; `v1_order_placed` where it comes from another package.
    """
    own = event.file.package
    prefix = "" if own == package else f"{own.rpartition('.')[2]}_"
    return f"{prefix}{snake(event.name)}" + (f"_v{version}" if version else "")


def _messages_with(files: Iterable[FileDescriptor], extension: object) -> Iterator[Descriptor]:
    for file in files:
        for descriptor in messages(file):
            if descriptor.GetOptions().HasExtension(extension):  # type: ignore[arg-type]  # one of ours, typed by the stub
                yield descriptor


def _earlier(event: AnyDescriptor, package: str) -> Iterator[EarlierForm]:
    """Give how an event was recorded earlier, and how those that it has replaced were."""
    newest, nested = version_of(event), event.nested_types_by_name
    for version in range(1, newest):
        if f"V{version}" not in nested:
            raise Misconfigured(f"{event.full_name} is at version {newest} and does not say what V{version} was")
        yield EarlierForm(
            type_name=event.full_name,
            version=version,
            message=GetMessageClass(nested[f"V{version}"]),
            becomes=GetMessageClass(event if version + 1 == newest else nested[f"V{version + 1}"]),
            method=upcaster_method(event, version, package),
        )
    for name in replaced_by(event):
        try:
            replaced = event.file.pool.FindMessageTypeByName(name)
        except KeyError:
            raise Misconfigured(f"{event.full_name} replaces {name}, which is not known here") from None
        yield EarlierForm(
            type_name=name,
            version=version_of(replaced),
            message=GetMessageClass(replaced),
            becomes=GetMessageClass(event),
            method=upcaster_method(replaced, None, package),
        )
        yield from _earlier(replaced, package)


def _event(descriptor: Descriptor) -> EventType:
    options, tags = descriptor.GetOptions().Extensions[options_pb2.event], tag_fields(descriptor)
    return EventType(
        name=descriptor.name,
        full_name=descriptor.full_name,
        message=GetMessageClass(descriptor),
        handler=f"on_{snake(descriptor.name)}",
        public=options.visibility == options_pb2.VISIBILITY_PUBLIC,
        version=version_of(descriptor),
        tags=tags,
        partition_by=options.partition_by or (tags[0].key if tags else ""),
        earlier=tuple(_earlier(descriptor, descriptor.file.package)),
    )


def _told(model: Descriptor) -> dict[str, EventType]:
    """Give the events of other contexts that a keyed model folds, by their full names."""
    found: dict[str, EventType] = {}
    for name in model.GetOptions().Extensions[options_pb2.model].folds:
        if "." in name:
            with suppress(KeyError):
                found[name] = _event(model.file.pool.FindMessageTypeByName(name))
    return found


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
        types=frozenset[str]().union(*(events[name].recorded_as for name in options.folds)),
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
        receipt_number=_number(response, field_of_type(response, RECEIPT)),
        answers=bool(own_fields(response)),
    )


def _query(method: MethodDescriptor, states: dict[str, StateType], models: dict[str, KeyedModel]) -> QueryRpc:
    options = method.GetOptions().Extensions[options_pb2.query]
    if options.state and options.state not in states:
        raise Misconfigured(f"{method.full_name} reads {options.state!r}, which is no state of the context")
    state, model = states.get(options.state), models.get(options.projection)
    known = state or model
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
        model=model,
        tags=tag_fields(method.input_type),
        age_field=field_of_type(method.output_type, AGE),
        parts_field=parts_field(method.output_type),
        row_field=row_field(method.output_type, known.full_name) if known else "",
        list_field=list_field(method.input_type, method.output_type, model) if model else "",
    )


def _number(message: Descriptor, field: str) -> int:
    return message.fields_by_name[field].number if field else 0
