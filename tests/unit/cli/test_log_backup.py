"""`ceqs log backup` and `ceqs log restore`, and the processes that notice."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ceqs.cli._admin import AdminClient
from ceqs.cli._output import Output
from ceqs.cli._placing import list_places, show_places
from ceqs.cli._settings import Settings
from ceqs.cli._standing import show_standing
from ceqs.contract import new_id
from ceqs.embedded import NatsServer
from ceqs.log import Entry, NewEvent, open_log
from ceqs.projectors import Checkpoint, place_of, places_of
from ceqs.projectors._store import Store
from ceqs.streams import connected, find_stream
from ceqs.testing import eventually
from shop.orders.v1.events_pb2 import OrderPlaced

Ceqs = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def env(tmp_path: Path, free_port: int) -> dict[str, str]:
    return {
        "CEQS_CONTEXTS": "shop.orders.context:orders",
        "CEQS_ADDRESSES": f"orders=127.0.0.1:{free_port}",
        "CEQS_DATA": str(tmp_path / "data"),
        "CEQS_KEY": "secret",
    }


async def record(tmp_path: Path, count: int) -> None:
    log = await open_log(f"sqlite:///{tmp_path}/data/logs/orders.db", "orders")
    for _ in range(count):
        event = OrderPlaced(order_id=new_id())
        made = NewEvent(id=new_id(), type=event.DESCRIPTOR.full_name, payload=event.SerializeToString())
        await log.append(Entry(command_id=new_id(), events=(made,)))
    await log.close()


@contextmanager
def running(env: dict[str, str], tmp_path: Path, role: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "ceqs.cli", role, "--output", "json"]
    with subprocess.Popen(
        command, cwd=tmp_path, env={**os.environ, **env}, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


async def test_a_backup_is_restored_and_the_relay_goes_on_with_it(
    ceqs: Ceqs, env: dict[str, str], tmp_path: Path, nats_server: NatsServer
) -> None:
    env["CEQS_NATS_URL"] = nats_server.url
    await record(tmp_path, 3)

    async def streams_are(epoch: int, last: int) -> bool:
        async with connected(nats_server.url) as client:
            stream = await find_stream(client.jetstream(), "orders", public=False)
        return stream is not None and (stream.epoch, stream.last) == (epoch, last)

    with running(env, tmp_path, "relay"):
        done = await asyncio.to_thread(ceqs, "log", "backup", "orders", "b.db", "-o", "json", **env)
        said = json.loads(done.stdout.splitlines()[-1])
        assert (said["backed_up"], said["events"], said["file"]) == ("orders", 3, "b.db")
        await record(tmp_path, 2)
        await eventually(lambda: streams_are(1, 5))
        refused = await asyncio.to_thread(ceqs, "log", "restore", "orders", "b.db", **env)
        assert refused.returncode == 2
        assert "has 5 events" in refused.stderr
        assert "--replace" in refused.stderr
        done = await asyncio.to_thread(ceqs, "log", "restore", "orders", "b.db", "--replace", "-o", "json", **env)
        said = json.loads(done.stdout.splitlines()[-1])
        assert (said["restored"], said["events"], said["epoch"]) == ("orders", 3, 2)
        await eventually(lambda: streams_are(2, 3))


async def test_what_stands_in_a_log_that_was_replaced_is_said_to(tmp_path: Path, capsys: Any) -> None:
    """Its position counts for nothing: it would be said to be up to date."""
    settings = Settings(contexts=["shop.orders.context:orders"], data=tmp_path / "data")
    await record(tmp_path, 3)
    places = places_of(settings.models_url, "orders", "Sales")
    await places.make(places.at(1), "shape")
    for place in (places.at(1), place_of(settings.models_url, "orders", "publish-orders")):
        async with Store.open(place, "orders") as store, store.advance(Checkpoint("another", 9, "id")):
            pass
    await list_places(settings, [], Output.TEXT)
    await show_standing(settings, ["publish-orders"], Output.TEXT)
    told = [line for line in capsys.readouterr().out.splitlines() if "of another log" in line]
    assert [line.split()[0] for line in told] == ["orders/Sales", "orders/publish-orders"]
    await show_places(settings, "Sales", Output.JSON)
    await show_standing(settings, ["publish-orders"], Output.JSON)
    values = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [(value["lag"], value["log_id"]) for value in values] == [(None, "another")] * 2
    await places.close()


async def test_a_server_whose_log_became_another_begins_anew(env: dict[str, str], tmp_path: Path) -> None:
    with running(env, tmp_path, "serve") as server:
        assert server.stdout
        first = json.loads(await asyncio.to_thread(server.stdout.readline))
        async with AdminClient(first["address"], key="secret") as client:
            assert await client.begin_epoch("orders", 4, renew=True) == 5
            assert json.loads(await asyncio.to_thread(server.stdout.readline)) == first
            assert await client.begin_epoch("orders", 0, renew=False) == 6
