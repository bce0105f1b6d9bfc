"""What a server serves, by gRPC reflection."""

from __future__ import annotations

import difflib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import grpc
import grpc.aio
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, MethodOptions
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from ceqs.errors import Misconfigured, Unavailable
from ceqs.v1 import options_pb2

_PATH = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
_PLATFORM = ("grpc.", "ceqs.v1.")
"""Services that a short name does not reach."""


@dataclass(frozen=True, slots=True)
class Rpc:
    """An rpc of a server, known by reflection."""

    address: str
    method: MethodDescriptor

    @property
    def path(self) -> str:
        """`/package.Service/Method`."""
        return f"/{self.service.full_name}/{self.method.name}"

    @property
    def service(self) -> ServiceDescriptor:
        """The service that the rpc is of."""
        service: ServiceDescriptor = self.method.containing_service
        return service

    @property
    def is_command(self) -> bool:
        """Whether the contract declares it to be a command."""
        # Its options are of the pool that reflection filled, where our extensions have no Python type.
        options = MethodOptions.FromString(self.method.GetOptions().SerializeToString())
        return options.HasExtension(options_pb2.command)


async def rpcs_of(address: str, channel: grpc.aio.Channel, wait: float) -> list[Rpc]:
    """Give every rpc of the server at an address, which has `wait` seconds to answer. Raises Unavailable."""
    asked = [ServerReflectionRequest(list_services="")]
    pool, added, found = DescriptorPool(), set[str](), list[Rpc]()
    try:
        (listed,) = [answer async for answer in _ask(channel, asked, wait)]
        names = [service.name for service in listed.list_services_response.service]
        asked = [ServerReflectionRequest(file_containing_symbol=name) for name in names]
        files: dict[str, FileDescriptorProto] = {}
        async for answer in _ask(channel, asked, wait):
            for raw in answer.file_descriptor_response.file_descriptor_proto:
                file = FileDescriptorProto.FromString(raw)
                files[file.name] = file
    except grpc.aio.AioRpcError as failure:
        raise Unavailable(f"nothing answers at {address}: {failure.details()}") from failure
    for file in files.values():
        _add(pool, file, files, added)
    for name in names:
        found += [Rpc(address, method) for method in pool.FindServiceByName(name).methods]
    return found


def find_rpc(name: str, rpcs: list[Rpc]) -> Rpc:
    """Find the rpc that a name means: `PlaceOrder`, `OrderCommandsService.PlaceOrder` or the full name.

    Raises Misconfigured where none or several are meant.
    """
    wanted = name.strip("/").replace("/", ".")
    served = [rpc for rpc in rpcs if not rpc.service.full_name.startswith(_PLATFORM)]
    meant = [rpc for rpc in rpcs if rpc.method.full_name == wanted] or [
        rpc for rpc in served if f".{rpc.method.full_name}".endswith(f".{wanted}")
    ]
    names = list(dict.fromkeys(rpc.method.full_name for rpc in meant))
    if len(names) > 1:
        raise Misconfigured(f"{name} may be any of {', '.join(names)}; say which")
    if len(meant) > 1:
        raise Misconfigured(f"{name} is served at {', '.join(rpc.address for rpc in meant)}; say which: --address")
    if not meant:
        names = sorted({rpc.method.name for rpc in served})
        near = difflib.get_close_matches(wanted.rpartition(".")[2], names, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
        raise Misconfigured(f"no rpc {name!r}; {hint}")
    return meant[0]


async def _ask(
    channel: grpc.aio.Channel,
    requests: list[ServerReflectionRequest],
    timeout: float,  # noqa: ASYNC109  # the call's
) -> AsyncIterator[ServerReflectionResponse]:
    method = channel.stream_stream(
        _PATH,
        request_serializer=ServerReflectionRequest.SerializeToString,
        response_deserializer=ServerReflectionResponse.FromString,
    )
    async for answer in method(iter(requests), timeout=timeout, wait_for_ready=False):
        yield answer


def _add(
    pool: DescriptorPool, file: FileDescriptorProto, files: Mapping[str, FileDescriptorProto], added: set[str]
) -> None:
    if file.name in added:
        return
    added.add(file.name)
    for name in file.dependency:
        if name in files:
            _add(pool, files[name], files, added)
    pool.Add(file)
