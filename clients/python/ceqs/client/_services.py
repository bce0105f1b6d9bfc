"""Clients of other services, for whoever asks several: aggregators, and handlers of events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from ceqs.client._client import ContextClient
from ceqs.errors import Unavailable

C = TypeVar("C", bound=ContextClient)


class Services:
    """Opens a client of each service once; `addresses` say where the queries of contexts are served."""

    def __init__(self, addresses: Mapping[str, str]) -> None:
        self._addresses = addresses
        self._clients: dict[type[Any], ContextClient] = {}

    def client(self, kind: type[C]) -> C:
        """Give the client. Raises Unavailable where the settings do not say where its context is."""
        if kind not in self._clients:
            address = self._addresses.get(kind.ceqs_context)
            if address is None:
                raise Unavailable(
                    f"nobody knows here where {kind.ceqs_context} is: name it in the settings (addresses)"
                )
            self._clients[kind] = kind(address)
        return cast("C", self._clients[kind])

    async def close(self) -> None:
        """Close the clients."""
        for client in self._clients.values():
            await client.close()
