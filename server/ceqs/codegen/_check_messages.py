"""Checks of fields, events and states."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from ceqs.codegen._check_folds import KEY, SPELT, check_tags, listed_publicly, listed_wrongly
from ceqs.codegen._package import Package, is_event, is_model, is_process, is_public, is_state, nearest
from ceqs.contract import tag_fields
from ceqs.v1 import options_pb2

_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32,
    FieldDescriptor.CPPTYPE_INT64,
    FieldDescriptor.CPPTYPE_UINT32,
    FieldDescriptor.CPPTYPE_UINT64,
}
_TAG, _COMMAND_ID = 1, 2
_BOUNDARY, _FOLDS, _LOCKING, _PERSISTENCE, _SNAPSHOT_EVERY = 1, 2, 3, 4, 5
_PARTITION_BY = 3


def check_fields(package: Package, requests: set[str], commands: set[str]) -> None:
    """Check what fields say. `requests`, `commands`: full names of the request messages of all rpcs, of commands."""
    for message in package.messages:
        ids: list[FieldDescriptor] = []
        for field in message.fields:
            options = field.GetOptions().Extensions[options_pb2.field]
            if options.tag:
                _check_tag(package, message, field, options, requests)
            if options.command_id:
                ids.append(field)
                if field.type != field.TYPE_STRING or field.is_repeated:
                    package.at_field(field, f"the command id {field.name} must be a single string", _COMMAND_ID)
                if message.full_name not in commands:
                    package.at_field(
                        field, f"{message.name} is no command's request and has no command id; drop it", _COMMAND_ID
                    )
        for extra in ids[1:]:
            package.at_field(
                extra, f"{message.name} has two command ids, {ids[0].name} and {extra.name}; keep one", _COMMAND_ID
            )


def _check_tag(
    package: Package,
    message: Descriptor,
    field: FieldDescriptor,
    options: options_pb2.FieldOptions,
    requests: set[str],
) -> None:
    if not KEY.fullmatch(options.tag):
        package.at_field(field, f'the tag key "{options.tag}" {SPELT}', _TAG)
    if field.type != field.TYPE_STRING and field.cpp_type not in _INTEGERS:
        package.at_field(
            field, f"{field.name} cannot be a tag: tags are strings or integers; tag a field of such a type", _TAG
        )
    if options.personal:
        package.at_field(
            field, f"{field.name} is personal and must not be a tag; tag an id that says nothing of the person", _TAG
        )
    if not (is_event(message) or is_state(message) or is_model(message) or message.full_name in requests):
        package.at_field(
            field,
            f"{message.name} is neither an event, a state, a model nor a request, so the tag on {field.name} is never "
            "read; put it on a field of one of those",
            _TAG,
        )


def check_events(package: Package) -> None:
    """Check what events say."""
    for event in package.events:
        if event.containing_type is not None:
            package.at_event(event, f"the event {event.name} lies in another message; declare it at the top level")
        if is_state(event):
            package.at_event(event, f"{event.name} is both a state and an event; make two messages of it")
        keys = [tag.key for tag in tag_fields(event)]
        partition_by = event.GetOptions().Extensions[options_pb2.event].partition_by
        if partition_by and partition_by not in keys:
            package.at_event(
                event,
                f'{event.name} is partitioned by "{partition_by}", but has no field of that tag; '
                f"{nearest(partition_by, keys)}",
                _PARTITION_BY,
            )
        if is_public(event):
            for field, through, private in _exposed(event):
                kind = "state" if is_state(private) else "private event"
                package.at_field(
                    field,
                    f"the public event {event.name} exposes the {kind} {private.name} by its field "
                    f"{'.'.join(through)}; copy what others may know into a message of its own",
                )


def _exposed(event: Descriptor) -> Iterator[tuple[FieldDescriptor, list[str], Descriptor]]:
    """Give the private messages that lie in a public event: by which of its fields, the way there, and which."""
    for field in event.fields:
        seen: set[str] = set()
        todo = [(field, [field.name])]
        while todo:
            one, through = todo.pop(0)
            inner = one.message_type
            if inner is None or inner.full_name in seen:
                continue
            seen.add(inner.full_name)
            if is_state(inner) or (is_event(inner) and not is_public(inner)):
                yield field, through, inner
            else:
                todo += [(deeper, [*through, deeper.name]) for deeper in inner.fields]


def check_states(package: Package) -> None:
    """Check what states say."""
    for state in package.states:
        if state.containing_type is not None:
            package.at_state(state, f"the state {state.name} lies in another message; declare it at the top level")
        options = state.GetOptions().Extensions[options_pb2.state]
        boundary = list(options.boundary)
        for index, key in enumerate(boundary):
            if not KEY.fullmatch(key):
                package.at_state(state, f'the boundary key "{key}" {SPELT}', _BOUNDARY, index)
            if key in boundary[:index]:
                package.at_state(state, f'the boundary of {state.name} names "{key}" twice; keep one', _BOUNDARY, index)
        if is_process(state):
            _check_process(package, state, options)
        elif len(boundary) != 1:
            _check_single_key_only(package, state, options)
        for index, what in listed_wrongly(package, state, options.folds):
            package.at_state(state, what, _FOLDS, index)
        if boundary:
            check_tags(package, state, options.folds, boundary, "boundary")


def _check_single_key_only(package: Package, state: Descriptor, options: options_pb2.StateOptions) -> None:
    has = _keys(options)
    if options.persistence == options_pb2.PERSISTENCE_STATE_STORED:
        package.at_state(
            state, f"{state.name} has {has} and cannot be state-stored; give it one key, or drop this", _PERSISTENCE
        )
    if options.snapshot_every:
        package.at_state(
            state, f"{state.name} has {has} and cannot have snapshots; give it one key, or drop this", _SNAPSHOT_EVERY
        )


def _check_process(package: Package, state: Descriptor, options: options_pb2.StateOptions) -> None:
    if len(options.boundary) != 1:
        package.at_state(
            state,
            f"the process {state.name} has {_keys(options)}, but its states are kept by one; name the one that all "
            "events of a process share",
            _BOUNDARY,
        )
    if not options.folds:
        package.at_state(state, f"the process {state.name} lists no event to hear; name some under folds", _FOLDS)
    for name, number in (("locking", _LOCKING), ("persistence", _PERSISTENCE), ("snapshot_every", _SNAPSHOT_EVERY)):
        if getattr(options, name):
            package.at_state(
                state, f"the process {state.name} is decided on by no command: {name} means nothing; drop it", number
            )
    for index, what in listed_publicly(package, f"the process {state.name}", options.folds):
        package.at_state(state, what, _FOLDS, index)


def _keys(options: options_pb2.StateOptions) -> str:
    return f"{len(options.boundary)} boundary keys" if options.boundary else "no boundary key"
