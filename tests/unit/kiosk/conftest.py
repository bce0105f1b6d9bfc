"""The press and the kiosk, each with its own roles, in this process, with real gRPC and NATS."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.ports import free_address
from tests.unit.kiosk.street import CONTEXTS, Street

from ceqs.cli._settings import Settings
from ceqs.embedded import NatsServer


@pytest.fixture
def on_path(kiosk_path: list[str]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for path in kiosk_path:
            patch.syspath_prepend(path)
        yield


@pytest.fixture
def store(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Where logs and models are: in files, or where parametrized with `postgres` there, two workers at one."""
    if getattr(request, "param", "sqlite") == "sqlite":
        return {}
    shared = {"Sections": 2}
    return {"store": "postgres", "database_url": request.getfixturevalue("postgres_url"), "partitions": shared}


@pytest.fixture
async def street(
    on_path: None, store: dict[str, Any], nats_server: NatsServer, tmp_path: Path
) -> AsyncIterator[Street]:
    """Nothing runs yet."""
    settings = Settings(
        contexts=list(CONTEXTS.values()),
        addresses={name: free_address() for name in CONTEXTS},
        data=tmp_path,
        key="the key of the street",
        nats_url=nats_server.url,
        grace=0,
        **store,
    )
    street = Street(settings)
    yield street
    await street.close()


@pytest.fixture
async def open_street(street: Street) -> Street:
    """Everything runs."""
    street.start(*(f"{role} {name}" for name in CONTEXTS for role in ("serve", "relay", "project")))
    return street
