"""Checks of services, commands and queries."""

from __future__ import annotations

import re

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor

from ceqs.codegen._check_models import check_query_of_model
from ceqs.codegen._package import Package, is_command, is_process, is_query, nearest
from ceqs.contract import AGE, field_of_type, tag_fields
from ceqs.v1 import options_pb2

_STATE, _PROJECTION = 1, 2


def check_services(package: Package) -> None:
    """Check that each service holds commands, or queries, and nothing else."""
    for service in package.services:
        first = next(method for method in service.methods if is_command(method) or is_query(method))
        kind = "commands" if is_command(first) else "queries"
        for method in service.methods:
            if is_command(method) and is_query(method):
                package.at_rpc(method, f"{method.name} is both a command and a query; make two rpcs of it")
            elif not is_command(method) and not is_query(method):
                package.at_rpc(
                    method,
                    f"{method.name} is neither a command nor a query, but {service.name} holds {kind}; give it an "
                    "option (ceqs.v1.command or ceqs.v1.query), or move it to another service",
                )
            elif is_command(method) != is_command(first):
                package.at_rpc(
                    method,
                    f"{service.name} mixes commands and queries; move {method.name} to a service of its kind",
                )


def check_commands(package: Package) -> None:
    """Check what commands say."""
    users: dict[str, MethodDescriptor] = {}
    for rpc in package.commands:
        if rpc.client_streaming or rpc.server_streaming:
            package.at_rpc(rpc, f"the command {rpc.name} streams; a command has one request and one response")
        other = users.setdefault(rpc.input_type.full_name, rpc)
        if other is not rpc:
            package.at_rpc(
                rpc, f"{rpc.name} and {other.name} share the request {rpc.input_type.name}; give each its own"
            )
        name = rpc.GetOptions().Extensions[options_pb2.command].state
        if name:
            _check_state(package, rpc, name)
        else:
            package.at_rpc(
                rpc,
                f'the command {rpc.name} names no state; name the one it decides on: (ceqs.v1.command).state = "..."',
                _STATE,
            )


def check_queries(package: Package) -> None:
    """Check what queries say."""
    for rpc in package.queries:
        options = rpc.GetOptions().Extensions[options_pb2.query]
        if rpc.client_streaming:
            package.at_rpc(rpc, f"the query {rpc.name} takes a stream; a query has one request")
        if rpc.server_streaming and not field_of_type(rpc.output_type, AGE):
            package.at_rpc(
                rpc,
                f"the streaming query {rpc.name} cannot say how old its answers are; "
                f"add a field to {rpc.output_type.name}: ceqs.v1.Age age",
            )
        if options.state and options.projection:
            package.at_rpc(
                rpc,
                f"{rpc.name} reads two models, the state {options.state} and the projection {options.projection}; "
                "keep one, or ask both by a query that names none",
                _PROJECTION,
            )
        if options.projection and not re.fullmatch(r"[A-Z][A-Za-z0-9]*", options.projection):
            package.at_rpc(
                rpc, f'the projection "{options.projection}" must be named like a message: Sales', _PROJECTION
            )
        if options.state:
            _check_state(package, rpc, options.state)
        for model in package.models:
            if model.name == options.projection:
                check_query_of_model(package, rpc, model)
        _check_pages(package, rpc)


def _check_pages(package: Package, rpc: MethodDescriptor) -> None:
    """Check that a list that comes in pages has all that takes (https://google.aip.dev/158)."""
    request, response = rpc.input_type, rpc.output_type
    wanted = (
        (request, "page_size", "int32", FieldDescriptor.TYPE_INT32),
        (request, "page_token", "string", FieldDescriptor.TYPE_STRING),
        (response, "next_page_token", "string", FieldDescriptor.TYPE_STRING),
    )
    if not any(name in message.fields_by_name for message, name, _, _ in wanted):
        return
    for message, name, kind, number in wanted:
        one = message.fields_by_name.get(name)
        if one is None:
            package.at(
                message.full_name,
                f"{rpc.name} comes in pages, and {message.name} lacks what that takes; add a field: {kind} {name}",
            )
        elif one.type != number or one.is_repeated:
            package.at_field(one, f"{name} of {message.name} asks for a page, or names the next; make it {kind} {name}")


def _check_state(package: Package, rpc: MethodDescriptor, name: str) -> None:
    states = {state.name: state for state in package.states}
    if name in states and is_process(states[name]):
        package.at_rpc(
            rpc,
            f"{rpc.name} names {name}, which is the state of a process manager and read by nobody else; name another",
            _STATE,
        )
        return
    if name in states:
        _check_boundary_tags(package, rpc, states[name])
        return
    verb = "decides on" if is_command(rpc) else "reads"
    if is_query(rpc) and any(model.name == name for model in package.models):
        package.at_rpc(
            rpc,
            f'{rpc.name} reads {name}, which is a keyed model and no state; say (ceqs.v1.query).projection = "{name}"',
            _STATE,
        )
        return
    mend = (
        "declare it as one: option (ceqs.v1.state) = {...};"
        if any(message.name == name for message in package.messages)
        else nearest(name, states)
    )
    package.at_rpc(rpc, f"{rpc.name} {verb} {name}, which is no state of {package.name}; {mend}", _STATE)


def _check_boundary_tags(package: Package, rpc: MethodDescriptor, state: Descriptor) -> None:
    request = rpc.input_type
    keys = {tag.key for tag in tag_fields(request)}
    for key in state.GetOptions().Extensions[options_pb2.state].boundary:
        if key not in keys:
            package.at(
                request.full_name,
                f'{request.name} says nothing of "{key}", by which {rpc.name} finds its {state.name}; '
                f'annotate a field: [(ceqs.v1.field).tag = "{key}"]',
            )
