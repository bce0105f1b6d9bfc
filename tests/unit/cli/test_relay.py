"""`ceqs relay`: the relay as a process, the streams beside the log, and a new epoch."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ceqs.contract import new_id
from ceqs.embedded import NatsServer
from ceqs.log import Entry, NewEvent, open_log
from ceqs.streams import connected, find_stream
from ceqs.testing import eventually
from shop.orders.v1.events_pb2 import OrderPlaced

Ceqs = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def env(tmp_path: Path, free_port: int, nats_server: NatsServer) -> dict[str, str]:
    return {
        "CEQS_CONTEXTS": "shop.orders.context:orders",
        "CEQS_ADDRESSES": f"orders=127.0.0.1:{free_port}",
        "CEQS_DATA": str(tmp_path / "data"),
        "CEQS_NATS_URL": nats_server.url,
        "CEQS_KEY": "secret",
        "CEQS_LOG": "text",
    }


@pytest.fixture
def log_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/data/logs/orders.db"


async def record(log_url: str, count: int) -> None:
    log = await open_log(log_url, "orders")
    for _ in range(count):
        event = OrderPlaced(order_id=new_id())
        await log.append(
            Entry(
                command_id=new_id(),
                events=(NewEvent(id=new_id(), type=event.DESCRIPTOR.full_name, payload=event.SerializeToString()),),
            )
        )
    await log.close()


@contextmanager
def running(env: dict[str, str], tmp_path: Path, *arguments: str) -> Iterator[list[dict[str, Any]]]:
    """Run a role; give the first line that it prints."""
    command = [sys.executable, "-m", "ceqs.cli", *arguments, "--output", "json"]
    with (
        (tmp_path / f"{arguments[0]}.log").open("a") as stderr,
        subprocess.Popen(
            command, cwd=tmp_path, env={**os.environ, **env}, stdout=subprocess.PIPE, stderr=stderr, text=True
        ) as process,
    ):
        assert process.stdout is not None
        try:
            yield [json.loads(process.stdout.readline())]
        finally:
            process.terminate()


async def streams(ceqs: Ceqs, env: dict[str, str], *, code: int = 0) -> list[dict[str, Any]]:
    done = await asyncio.to_thread(ceqs, "relay", "status", "-o", "json", **env)
    assert done.returncode == code, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


async def conditions(ceqs: Ceqs, env: dict[str, str], *, code: int = 0) -> set[str]:
    return {stream["condition"] for stream in await streams(ceqs, env, code=code)}


async def test_status_compares_streams_and_log_and_new_epoch_mends_a_fork(
    ceqs: Ceqs, env: dict[str, str], log_url: str, tmp_path: Path, nats_server: NatsServer
) -> None:
    await record(log_url, 5)
    with running(env, tmp_path, "relay", "orders") as said:
        assert said == [{"relays": "orders", "nats_url": nats_server.url}]
        await relayed(nats_server.url, 1, 5)
        private, public = await streams(ceqs, env)
        assert (private["stream"], private["head"], private["first"], private["last"]) == ("CEQS_orders_1", 5, 1, 5)
        assert (private["condition"], private["remedy"]) == ("equal", "")
        assert (public["stream"], public["head"], public["messages"]) == ("CEQS_orders_PUBLIC_1", 0, 0)
        assert [relay["position"] for relay in private["relays"]] == [5]

        # Restored by hand: an earlier copy of the file takes the place of the log.
        path = Path(log_url.removeprefix("sqlite:///"))
        other = tmp_path / "other.db"
        await record(f"sqlite:///{other}", 3)
        await same_id(path, other)
        other.rename(path)
        for suffix in ("-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
        await eventually(lambda: "alarm" in (tmp_path / "relay.log").read_text())
        table = await asyncio.to_thread(ceqs, "relay", "status", **env)
        assert table.returncode == 1
        assert "ends at 5, which is beyond the head of the log: run `ceqs relay new-epoch orders`" in table.stdout

        begun = await asyncio.to_thread(ceqs, "relay", "new-epoch", "orders", "-o", "json", **env)
        assert json.loads(begun.stdout) == {"context": "orders", "epoch": 2, "renewed": True}
        await relayed(nats_server.url, 2, 3)
        assert await conditions(ceqs, env) == {"equal"}


async def test_a_server_begins_the_epoch_where_one_runs(
    ceqs: Ceqs, env: dict[str, str], tmp_path: Path, nats_server: NatsServer
) -> None:
    with running(env, tmp_path, "serve"):
        refused = await asyncio.to_thread(ceqs, "relay", "new-epoch", "orders", **{**env, "CEQS_KEY": "wrong"})
        assert refused.returncode == 1
        done = await asyncio.to_thread(ceqs, "relay", "new-epoch", "orders", **env)
        assert done.stdout.startswith("orders: epoch 2 has begun")
        private, _ = await streams(ceqs, env)
        assert (private["stream"], private["relays"]) == ("CEQS_orders_2", [])


async def relayed(nats_url: str, epoch: int, last: int) -> None:
    """Wait until the streams of an epoch are there, with as many events."""

    async def there() -> bool:
        async with connected(nats_url) as client:
            js = client.jetstream()
            found = [await find_stream(js, "orders", public=public) for public in (False, True)]
            return [(one.epoch, one.last) for one in found if one] == [(epoch, last), (epoch, 0)]

    await eventually(there)


async def same_id(path: Path, other: Path) -> None:
    """Let the one file claim to be the log of the other."""
    with sqlite3.connect(path) as one, sqlite3.connect(other) as two:
        (log_id,) = one.execute("SELECT log_id FROM meta").fetchone()
        two.execute("UPDATE meta SET log_id = ?", (log_id,))
    one.close()
    two.close()


def test_a_context_is_relayed_whether_run_is_said_or_not(ceqs: Ceqs, env: dict[str, str]) -> None:
    for arguments in (["relay", "ordres"], ["relay", "run", "-o", "text", "ordres"]):
        refused = ceqs(*arguments, **env)
        assert refused.returncode == 2
        assert "there is no context 'ordres'; did you mean orders?" in refused.stderr
    listed = ceqs("relay", "--help", **env).stdout
    assert all(command in listed for command in ("run", "status", "new-epoch"))
