"""Health and reflection, whose streams end when the server stops instead of using up its grace."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportIncompatibleMethodOverride=false, reportGeneralTypeIssues=false

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from ceqs.queries import Stop

SERVICES = (health.SERVICE_NAME, reflection.SERVICE_NAME)


class Health(health.aio.HealthServicer):  # type: ignore[misc]  # grpcio-health-checking has no types
    """Says of each service, of each role by its name, and of the server as a whole, whether it answers."""

    def __init__(self, stop: Stop) -> None:
        super().__init__()
        self._stop = stop

    async def serving(self, services: Iterable[str]) -> None:
        """Say that these services answer."""
        for service in services:
            await self.set(service, health_pb2.HealthCheckResponse.SERVING)

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802  # the rpc's name
        """Tell every change until the server stops."""
        await self._stop.or_result(super().Watch(request, context))

    async def stopping(self) -> None:
        """Say of every service that it no longer answers."""
        await self.enter_graceful_shutdown()


class Reflection(reflection.aio.ReflectionServicer):  # type: ignore[misc]  # grpcio-reflection has no types
    """Gives the descriptors of what the server serves."""

    def __init__(self, services: Iterable[str], stop: Stop) -> None:
        super().__init__(services)
        self._stop = stop

    async def ServerReflectionInfo(self, request_iterator: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        """Answer one question after another until the server stops."""
        async for response in super().ServerReflectionInfo(self._until_stop(request_iterator), context):
            yield response

    async def _until_stop(self, requests: Any) -> AsyncIterator[Any]:
        iterator = aiter(requests)
        while (request := await self._stop.or_result(anext(iterator, None))) is not None:
            yield request


def add_standard(server: grpc.aio.Server, health_servicer: Health, services: Iterable[str], stop: Stop) -> None:
    """Serve health and reflection."""
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(Reflection(services, stop), server)
