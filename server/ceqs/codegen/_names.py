"""The names that a context's generated modules define."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from google.protobuf.descriptor import FileDescriptor

from ceqs.codegen._module import pascal
from ceqs.codegen._package import Package, is_command, is_process
from ceqs.contract import messages
from ceqs.v1 import options_pb2

CONTEXT_SUFFIXES = (
    *("Event", "PublicEvent", "Command", "Publisher", "Subscriber", "PrivateSubscriber"),
    *("Upcasters", "PublicUpcasters", "Asker", "Context", "Client", "Stream"),
)
UNIONS = ("AnyCommands", "AnyFold", "AnyGatekeeper", "AnyProjection", "AnyQueries")


def context_class(context: str, suffix: str) -> str:
    """`orders`, `Event` -> `OrdersEvent`."""
    return pascal(context) + suffix


def service_class(service: str) -> str:
    """`shop.orders.v1.OrderCommandsService` -> `OrderCommands`."""
    name = service.rpartition(".")[2]
    return name.removesuffix("Service") or name


def gatekeeper_class(service: str) -> str:
    """`shop.orders.v1.OrderCommandsService` -> `OrderGatekeeper`."""
    name = service_class(service)
    return (name.removesuffix("Commands") or name) + "Gatekeeper"


def fold_class(state: str) -> str:
    """`Order` -> `OrderFoldBase`."""
    return f"{state}FoldBase"


def process_class(state: str) -> str:
    """`Fulfilment` -> `FulfilmentProcess`."""
    return f"{state}Process"


def projection_class(projection: str) -> str:
    """`Sales` -> `SalesProjection`."""
    return f"{projection}Projection"


def message_names(files: Iterable[FileDescriptor]) -> list[str]:
    """Give the names of a package's top-level messages."""
    return [message.name for file in files for message in messages(file)]


def generated_names(package: Package, context: str) -> Iterator[tuple[str, str, str]]:
    """Give each name that may be generated, the full name of what it is generated for, and what that is in words."""
    anything = (package.services or package.events or package.states)[0].full_name
    for suffix in CONTEXT_SUFFIXES:
        yield context_class(context, suffix), anything, f"the context {context} ({suffix})"
    for union in UNIONS:
        yield union, anything, f"the context {context} ({union})"
    for state in package.states:
        generated = process_class if is_process(state) else fold_class
        yield generated(state.name), state.full_name, f"the state {state.name}"
    for model in package.models:
        yield projection_class(model.name), model.full_name, f"the projection {model.name}"
    for service in package.services:
        commands = any(map(is_command, service.methods))
        kind = "commands" if commands else "queries"
        yield service_class(service.full_name), service.full_name, f"the service of {kind} {service.name}"
        if commands:
            yield gatekeeper_class(service.full_name), service.full_name, f"the gatekeeper of {service.name}"
    for rpc in package.queries:
        if projection := rpc.GetOptions().Extensions[options_pb2.query].projection:
            yield projection_class(projection), rpc.full_name, f"the projection {projection}"
