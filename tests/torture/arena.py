"""The servers that are killed, and their databases."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
from tests.ports import free_port

from ceqs.embedded import PostgresServer
from ceqs.testing import eventually

ROOT = Path(__file__).parents[2]
CUT = """
CREATE FUNCTION pg_temp.cut() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    victim record;
    until timestamptz := clock_timestamp() + interval '100 ms';
BEGIN
    LOOP
        PERFORM pg_stat_clear_snapshot();
        SELECT pid, query ~* 'INSERT INTO commands|^COMMIT|FROM append' AS committing INTO victim FROM pg_stat_activity
            WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'
            AND (clock_timestamp() > until
                OR (state = 'idle in transaction' AND query ~* 'INSERT INTO commands')
                OR (state = 'active' AND query ~* '^COMMIT|FROM append'))
            ORDER BY random() LIMIT 1;
        IF FOUND OR clock_timestamp() > until THEN
            PERFORM pg_terminate_backend(victim.pid);
            RETURN CASE WHEN victim.committing THEN 'cut while committing' ELSE 'cut at any time' END;
        END IF;
    END LOOP;
END $$
"""
"""Ends a connection between the last statement of a transaction and the answer to what commits it, if it finds one."""


_INSERTING = """
SELECT client_port FROM pg_stat_activity WHERE pid <> pg_backend_pid()
AND (state IN ('active', 'idle in transaction') AND query ~* 'INSERT INTO commands'
    OR state = 'active' AND query ~* 'FROM append') LIMIT 1
"""


class Nursery:
    """The process that bears servers; see nursery.py."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._answers = asyncio.Queue[int]()
        self.serving = set[int]()
        self.failures: dict[int, str] = {}
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(cls, generated: Path) -> AsyncGenerator[Nursery]:
        """Start one, and end it with everything it bore."""
        command = [sys.executable, "-m", "tests.torture.nursery", str(generated)]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, cwd=ROOT)
        nursery = cls(process)
        try:
            await nursery._answer()
            yield nursery
        finally:
            process.kill()
            await process.wait()
            await nursery._listening

    async def bear(self, url: str, port: int, *, shared: bool) -> int:
        """Start a server; give its process id."""
        return await self._ask(bear=url, port=port, shared=shared)

    async def kill(self, pid: int) -> None:
        """End a server by SIGKILL, and wait until it is gone."""
        await self._ask(kill=pid)

    async def _ask(self, **what: object) -> int:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(what).encode() + b"\n")
        return await self._answer()

    async def _answer(self) -> int:
        async with asyncio.timeout(60):
            return await self._answers.get()

    async def _listen(self) -> None:
        assert self._process.stdout
        while line := await self._process.stdout.readline():
            said = json.loads(line)
            if "serves" in said:
                self.serving.add(said["serves"])
            elif "failed" in said:
                self.failures[said["failed"]] = said["why"]
            else:
                self._answers.put_nowait(next(iter(said.values())))


@dataclass
class Place:
    """Where one server runs, again and again."""

    port: int
    shared: bool = False
    """Whether others listen there as well, as the processes of `ceqs serve --processes` do."""
    pid: int = 0


@dataclass
class Arena:
    """The servers of one log: one on SQLite; on PostgreSQL one, and two that share a port."""

    nursery: Nursery
    url: str
    places: list[Place]
    postgres: PostgresServer | None = None
    _database: asyncpg.Connection | None = field(default=None, repr=False)

    @property
    def target(self) -> str:
        """What a channel connects to: every port, in turn."""
        return "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in sorted({place.port for place in self.places}))

    async def start(self, place: Place) -> None:
        """Start a server where there is none; it may take a while until it serves."""
        if not place.pid:
            place.pid = await self.nursery.bear(self.url, place.port, shared=place.shared)

    async def serves(self, place: Place) -> None:
        """Wait until a server serves."""
        await eventually(lambda: place.pid in self.nursery.serving or place.pid in self.nursery.failures, within=30)
        if why := self.nursery.failures.get(place.pid):
            raise RuntimeError(f"the server at port {place.port} did not start: {why}")

    async def kill(self, place: Place) -> None:
        """Kill a server."""
        if place.pid:
            pid, place.pid = place.pid, 0
            await self.nursery.kill(pid)

    async def kill_in_a_batch(self) -> Place | None:
        """Kill a server that has inserted what it has not committed; say where, if one was met like that."""
        database = await self._connected()
        for _ in range(50):
            # Where all of them stand still, one that is in its transaction stays there.
            self._signal(signal.SIGSTOP)
            try:
                if port := await database.fetchval(_INSERTING):
                    (place,) = [place for place in self.places if place.pid and _has_connection(place.pid, port)]
                    await self.kill(place)
                    return place
            finally:
                self._signal(signal.SIGCONT)
            await asyncio.sleep(0.003)
        return None

    def _signal(self, number: signal.Signals) -> None:
        for place in self.places:
            if place.pid:
                os.kill(place.pid, number)

    async def cut(self) -> str:
        """End the database's work for a server; say in what state it was."""
        return str(await (await self._connected()).fetchval("SELECT pg_temp.cut()"))

    async def _connected(self) -> asyncpg.Connection:
        if self._database is None or self._database.is_closed():
            assert self.postgres
            self._database = await asyncpg.connect(self.postgres.url)
            await self._database.execute(CUT)
        return self._database

    async def crash(self) -> None:
        """Crash PostgreSQL, and start it again."""
        assert self.postgres
        await self.postgres.kill()
        await self.postgres.start()

    async def close(self) -> None:
        """Let go of the database."""
        if self._database is not None:
            await self._database.close()


@contextlib.asynccontextmanager
async def opened(nursery: Nursery, store: str, directory: Path) -> AsyncGenerator[Arena]:
    """Give the arena of a store, its servers not yet started."""
    if store == "sqlite":
        yield Arena(nursery, f"sqlite:///{directory}/log.db", [Place(free_port())])
        return
    async with PostgresServer() as postgres:
        shared = free_port()
        places = [Place(free_port()), Place(shared, shared=True), Place(shared, shared=True)]
        arena = Arena(nursery, postgres.url, places, postgres)
        yield arena
        for place in arena.places:
            await arena.kill(place)
        await arena.close()


def _has_connection(pid: int, port: int) -> bool:
    """Whether a process has a connection whose own port it is."""
    sockets = (
        line.split() for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()
    )
    found = {f"socket:[{socket[9]}]" for socket in sockets if socket[1].endswith(f":{port:04X}")}
    return any(os.readlink(file) in found for file in Path(f"/proc/{pid}/fd").iterdir())
