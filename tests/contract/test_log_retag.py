"""Tagging recorded events anew, where the contract annotates other fields than it did."""

from __future__ import annotations

import asyncio
import itertools
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pool import DescriptorPool

from ceqs.codegen._image import build_image
from ceqs.contract import Contract, bucket_of, read_contract, tags_of
from ceqs.errors import LogUnavailable, Misconfigured, Unavailable
from ceqs.log import (
    Entry,
    Log,
    NewEvent,
    Query,
    QueryItem,
    Retagged,
    StoredEvent,
    Wanted,
    _retag,
    open_log,
    open_reader,
)
from ceqs.log import retag_log as retag_by
from ceqs.model import EventDecoder

PROTO = """
syntax = "proto3";
package orders.v1;
import "ceqs/v1/options.proto";

message Placed {
  option (ceqs.v1.event) = {};
  string order_id = 1 [(ceqs.v1.field).tag = "order"];
  string customer_id = 2;
  repeated int64 products = 3;
}
message Cancelled {
  option (ceqs.v1.event) = {};
  string order_id = 1 [(ceqs.v1.field).tag = "order"];
}
"""
CUSTOMER = ("string customer_id = 2;", 'string customer_id = 2 [(ceqs.v1.field).tag = "customer"];')
PRODUCTS = ("repeated int64 products = 3;", 'repeated int64 products = 3 [(ceqs.v1.field).tag = "product"];')
NO_ORDER = (
    'string order_id = 1 [(ceqs.v1.field).tag = "order"];\n  string customer_id',
    "string order_id = 1;\n  string customer_id",
)
NO_CANCELLED = ("message Cancelled {\n  option (ceqs.v1.event) = {};", "message Cancelled {")
_ids = itertools.count(1)

Declared = Callable[..., Contract]


@pytest.fixture
def declared(tmp_path: Path) -> Declared:
    """Give a contract: that of PROTO, with replacements. Each has classes of its own, as in a process of its own."""

    def declare(*changes: tuple[str, str]) -> Contract:
        text = PROTO
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        directory = tmp_path / f"proto-{next(_ids)}"
        (directory / "orders/v1").mkdir(parents=True)
        (directory / "orders/v1/orders.proto").write_text(text)
        pool = DescriptorPool()
        for file in build_image(directory, ["orders/v1/orders.proto"]).file:
            pool.AddSerializedFile(file.SerializeToString())
        return read_contract(pool.FindFileByName("orders/v1/orders.proto"))

    return declare


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/log.db"
    return str(request.getfixturevalue("postgres"))


async def retag_log(url: str, name: str, contract: Contract, **settings: Any) -> Retagged:
    return await retag_by(url, name, EventDecoder(contract), **settings)


def event(contract: Contract, name: str, **fields: Any) -> NewEvent:
    kind = contract.events[f"orders.v1.{name}"]
    message = kind.message(**fields)
    tags = tags_of(message, kind.tags)
    return NewEvent(
        id=f"00000000-0000-7000-8000-{next(_ids):012}",
        type=kind.full_name,
        payload=message.SerializeToString(),
        tags=tags,
        bucket=bucket_of(kind, tags),
    )


async def place(log: Log, contract: Contract, count: int, first: int = 1) -> None:
    """Append orders of three customers, a thousand in a transaction, and a cancellation of the first."""
    orders = [
        event(contract, "Placed", order_id=f"o{i}", customer_id=f"c{i % 3}", products=[i % 5, i % 7])
        for i in range(first, first + count)
    ]
    for start in range(0, count, 1000):
        await log.append(Entry(command_id=f"c{next(_ids)}", events=tuple(orders[start : start + 1000])))
    await log.append(Entry(command_id=f"c{next(_ids)}", events=(event(contract, "Cancelled", order_id=f"o{first}"),)))


async def found(log: Any, *tags: str) -> list[StoredEvent]:
    """Read everything that carries the tags; everything, where none is named."""
    query = Query((QueryItem(frozenset(), frozenset(tags)),)) if tags else Query()
    events: list[StoredEvent] = []
    after = 0
    while (part := await log.read(after=after, query=query)).events:
        events += part.events
        after = part.through
    return events


def boundary(tag: str) -> Query:
    """The events that a state folds are found on a way of their own: by types and a tag."""
    return Query((QueryItem(frozenset({"orders.v1.Placed"}), frozenset({tag})),))


@pytest.fixture
async def contract(declared: Declared) -> Contract:
    return declared()


@pytest.fixture
async def filled(url: str, name: str, contract: Contract) -> str:
    """The url of a log with 90 orders and a cancellation, which no process has opened now."""
    log = await open_log(url, name)
    assert await log.declare(contract) == []
    await place(log, contract, 90)
    await log.close()
    return url


@pytest.fixture
async def reader(filled: str, name: str) -> AsyncIterator[Any]:
    opened = await open_reader(filled, name)
    yield opened
    await opened.close()


async def test_events_are_found_by_what_a_field_has_gained_and_not_by_what_one_has_lost(
    filled: str, name: str, declared: Declared, reader: Any
) -> None:
    before = await found(reader)
    assert len(await found(reader, "order:o5")) == 1
    assert await found(reader, "customer:c1") == []
    done = await retag_log(filled, name, declared(CUSTOMER, PRODUCTS, NO_ORDER))
    assert (done.generation, done.changed, done.events) == (2, ("orders.v1.Placed",), 91)
    assert [e.position for e in await found(reader, "customer:c1")] == list(range(1, 91, 3))
    assert len(await found(reader, "customer:c1", "product:0")) == len(
        [i for i in range(1, 91, 3) if 0 in (i % 5, i % 7)]
    )
    assert await found(reader, "order:o5") == []
    boundaries = [boundary("customer:c1"), boundary("order:o5"), boundary("product:6")]
    histories = await reader.read_all([Wanted(0, query) for query in boundaries])
    assert [len(history.events) for history in histories] == [30, 0, len(await found(reader, "product:6"))]
    # What an event of another type carries has not changed.
    assert [e.position for e in await found(reader, "order:o1")] == [91]
    assert await found(reader) == before


async def test_where_nothing_changed_nothing_is_done_unless_it_is_asked_for(
    filled: str, name: str, contract: Contract, reader: Any
) -> None:
    done = await retag_log(filled, name, contract)
    assert (done.generation, done.changed, done.events) == (1, (), 0)
    done = await retag_log(filled, name, contract, anew=True)
    assert (done.generation, done.changed, done.events) == (2, (), 91)
    assert len(await found(reader, "order:o5")) == 1


async def test_the_earlier_generation_is_deleted(filled: str, name: str, declared: Declared, database: Any) -> None:
    await retag_log(filled, name, declared(CUSTOMER))
    await retag_log(filled, name, declared(CUSTOMER, PRODUCTS))
    counted = await database.run("SELECT generation, count(*) FROM tags GROUP BY generation")
    assert [row[0] for row in counted] == [3]
    assert await database.run("SELECT * FROM retagging") == []


async def test_a_log_that_is_indexed_otherwise_refuses_commands_and_says_what_to_do(
    filled: str, name: str, declared: Declared
) -> None:
    changed = declared(CUSTOMER)
    log = await open_log(filled, name)
    assert await log.declare(changed) == ["orders.v1.Placed"]
    said = rf"other tags of Placed than the contract annotates now\. Run: ceqs log retag {name}"
    with pytest.raises(Unavailable, match=said):
        await place(log, changed, 1, 1000)
    with pytest.raises(Unavailable, match=said):
        await found(log, "customer:c1")
    # What is not found by tags is read all the same: projections go on.
    assert len(await found(log)) == 91
    by_type = Query((QueryItem(frozenset({"orders.v1.Cancelled"})),))
    assert len((await log.read(query=by_type)).events) == 1
    assert await log.find("none", b"") is None
    if filled.startswith("sqlite"):
        await log.close()
        await retag_log(filled, name, changed)
        log = await open_log(filled, name)
        assert await log.declare(changed) == []
    else:
        await retag_log(filled, name, changed)
    await place(log, changed, 1, 1000)
    assert len(await found(log, "customer:c1")) == 31
    await log.close()


async def test_a_type_that_has_no_events_needs_no_retagging(url: str, name: str, declared: Declared) -> None:
    log = await open_log(url, name)
    without = declared(NO_CANCELLED)
    assert await log.declare(without) == []
    await log.append(Entry(command_id="1", events=(event(without, "Placed", order_id="o1"),)))
    # Cancelled is new, and then annotated otherwise before any is recorded.
    assert await log.declare(declared()) == []
    other = declared(
        (
            NO_CANCELLED[0] + '\n  string order_id = 1 [(ceqs.v1.field).tag = "order"];',
            NO_CANCELLED[0] + '\n  string order_id = 1 [(ceqs.v1.field).tag = "cancelled"];',
        )
    )
    assert await log.declare(other) == []
    await log.append(Entry(command_id="2", events=(event(other, "Cancelled", order_id="o1"),)))
    assert len(await found(log, "cancelled:o1")) == 1
    assert await log.declare(declared()) == ["orders.v1.Cancelled"]
    await log.close()


async def test_a_type_that_nobody_declared_is_taken_as_it_was_tagged(url: str, name: str, contract: Contract) -> None:
    log = await open_log(url, name)
    await place(log, contract, 3)
    assert await log.declare(contract) == []
    await place(log, contract, 3, 4)
    assert len(await found(log, "order:o2")) == 1
    await log.close()


async def test_another_name_of_a_field_changes_no_tag(filled: str, name: str, declared: Declared) -> None:
    renamed = declared(
        ('string order_id = 1 [(ceqs.v1.field).tag = "order"];', 'string number = 1 [(ceqs.v1.field).tag = "order"];')
    )
    assert (await retag_log(filled, name, renamed)).changed == ()


async def test_an_event_that_the_contract_does_not_declare_is_refused_by_name(
    filled: str, name: str, declared: Declared, reader: Any
) -> None:
    with pytest.raises(
        Misconfigured, match=r"the log holds orders\.v1\.Cancelled, which the contract does not declare"
    ):
        await retag_log(filled, name, declared(CUSTOMER, NO_CANCELLED))
    assert len(await found(reader, "order:o5")) == 1


async def test_a_value_that_cannot_be_a_tag_is_refused_by_position(
    filled: str, name: str, contract: Contract, declared: Declared, reader: Any
) -> None:
    log = await open_log(filled, name)
    await log.append(Entry(command_id="long", events=(event(contract, "Placed", order_id="o", customer_id="x" * 600),)))
    await log.close()
    with pytest.raises(
        Misconfigured, match=r"Placed at position 92 cannot be tagged: customer_id: must be at most 512"
    ):
        await retag_log(filled, name, declared(CUSTOMER))
    assert len(await found(reader, "order:o5")) == 1
    assert await found(reader, "customer:c1") == []


async def test_there_must_be_a_log(tmp_path: Path, name: str, contract: Contract) -> None:
    with pytest.raises(LogUnavailable, match="there is no log"):
        await retag_log(f"sqlite:///{tmp_path}/none.db", name, contract)
    assert not (tmp_path / "none.db").exists()
    with pytest.raises(Misconfigured, match="in memory"):
        await retag_log("memory:", name, contract)


async def test_a_server_that_writes_a_log_on_sqlite_has_to_stop_first(
    tmp_path: Path, name: str, contract: Contract, declared: Declared
) -> None:
    url = f"sqlite:///{tmp_path}/log.db"
    log = await open_log(url, name)
    await log.declare(contract)
    await place(log, contract, 1)
    with pytest.raises(Misconfigured, match=r"is being written by another process: .* Stop it first"):
        await retag_log(url, name, declared(CUSTOMER))
    await log.close()


async def test_progress_is_told(filled: str, name: str, declared: Declared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_retag, "BATCH", 20)
    said: list[tuple[int, int]] = []
    await retag_log(filled, name, declared(CUSTOMER), report=lambda done, total: said.append((done, total)))
    assert said == [(20, 91), (40, 91), (60, 91), (91, 91)]


async def test_large_events_are_tagged_a_few_at_a_time(
    filled: str, name: str, declared: Declared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_retag, "_BATCH_BYTES", 1)
    assert (await retag_log(filled, name, declared(CUSTOMER))).events == 91


class Interrupted(Exception):
    """As if the process had been killed between two transactions."""


def interrupting(after: int) -> Callable[[int, int], None]:
    def report(done: int, total: int) -> None:
        if done >= after:
            raise Interrupted

    return report


async def test_it_goes_on_where_it_was_interrupted(
    filled: str, name: str, declared: Declared, reader: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_retag, "BATCH", 20)
    with pytest.raises(Interrupted):
        await retag_log(filled, name, declared(CUSTOMER), report=interrupting(40))
    assert await found(reader, "customer:c1") == []
    said: list[int] = []
    await retag_log(filled, name, declared(CUSTOMER), report=lambda done, total: said.append(done))
    assert said == [60, 91]
    assert len(await found(reader, "customer:c1")) == 30


async def test_what_was_interrupted_is_given_up_for_another_contract(
    filled: str, name: str, declared: Declared, reader: Any, database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_retag, "BATCH", 20)
    with pytest.raises(Interrupted):
        await retag_log(filled, name, declared(CUSTOMER), report=interrupting(40))
    await retag_log(filled, name, declared(PRODUCTS))
    assert await found(reader, "customer:c1") == []
    assert len(await found(reader, "product:6")) == len([i for i in range(1, 91) if 6 in (i % 5, i % 7)])
    counted = await database.run("SELECT DISTINCT generation FROM tags")
    assert [row[0] for row in counted] == [3]


async def test_what_was_interrupted_is_swept_up_where_the_contract_is_the_old_one_again(
    filled: str, name: str, contract: Contract, declared: Declared, database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_retag, "BATCH", 20)
    with pytest.raises(Interrupted):
        await retag_log(filled, name, declared(CUSTOMER), report=interrupting(40))
    # Killed once more, before it has swept anything.
    await database.run("DELETE FROM retagging")
    assert (await retag_log(filled, name, declared(PRODUCTS))).generation == 3
    assert (await retag_log(filled, name, contract)).generation == 4
    with pytest.raises(Interrupted):
        await retag_log(filled, name, declared(CUSTOMER), report=interrupting(40))
    assert (await retag_log(filled, name, contract)).generation == 4
    assert [row[0] for row in await database.run("SELECT DISTINCT generation FROM tags")] == [4]
    assert (await retag_log(filled, name, declared(CUSTOMER))).events == 91


KILLED = """
import asyncio, os, signal, sys
from google.protobuf.descriptor_pool import DescriptorPool
from pathlib import Path
from ceqs.codegen._image import build_image
from ceqs.contract import read_contract
from ceqs.log import _retag, retag_log
from ceqs.model import EventDecoder
url, name, directory, after = sys.argv[1:]
pool = DescriptorPool()
for file in build_image(Path(directory), ["orders/v1/orders.proto"]).file:
    pool.AddSerializedFile(file.SerializeToString())
contract = read_contract(pool.FindFileByName("orders/v1/orders.proto"))
_retag.BATCH = 20
original = _retag.tags_of
count = 0
def tags_of(*arguments):
    # In the middle of a transaction.
    global count
    count += 1
    if count == int(after):
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments)
_retag.tags_of = tags_of
asyncio.run(retag_log(url, name, EventDecoder(contract)))
"""


@pytest.mark.parametrize("after", [1, 31, 88])
async def test_killed_at_any_point_it_is_completed_by_the_next(
    filled: str, name: str, declared: Declared, reader: Any, tmp_path: Path, after: int
) -> None:
    changed = declared(CUSTOMER)
    directory = max(tmp_path.glob("proto-*"), key=lambda path: int(path.name.removeprefix("proto-")))
    killed = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLED, filled, name, str(directory), str(after)
    )
    assert await killed.wait() == -signal.SIGKILL
    assert len(await found(reader, "order:o5")) == 1
    assert await found(reader, "customer:c1") == []
    assert (await retag_log(filled, name, changed)).changed == ("orders.v1.Placed",)
    assert len(await found(reader, "customer:c1")) == 30


class TestBesideServers:
    """PostgreSQL: servers write while the log is retagged."""

    @pytest.fixture
    def url(self, postgres: str) -> str:
        return postgres

    async def test_what_an_earlier_server_appends_meanwhile_is_tagged_too_and_then_it_refuses(
        self, filled: str, name: str, contract: Contract, declared: Declared, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_retag, "BATCH", 50)
        old, new = await open_log(filled, name), await open_log(filled, name)
        changed = declared(CUSTOMER)
        assert await old.declare(contract) == []
        assert await new.declare(changed) == ["orders.v1.Placed"]
        await place(old, contract, 2000, 1000)

        async def go_on() -> int:
            for number in itertools.count(10_000):
                try:
                    await old.append(
                        Entry(
                            command_id=f"c{next(_ids)}",
                            events=(event(contract, "Placed", order_id=f"o{number}", customer_id="late"),),
                        )
                    )
                except Unavailable:
                    return number - 10_000
            raise AssertionError

        async def look() -> None:
            """Whoever reads by a tag that has not changed never misses an event."""
            while True:
                assert len(await found(watching, "order:o5")) == 1
                await asyncio.sleep(0)

        watching = await open_reader(filled, name)
        writing, looking = asyncio.create_task(go_on()), asyncio.create_task(look())
        await retag_log(filled, name, changed)
        late = await writing
        assert not looking.done()
        looking.cancel()
        with suppress(asyncio.CancelledError):
            await looking
        assert late > 0
        assert len(await found(new, "customer:late")) == late
        with pytest.raises(Unavailable):
            await found(old, "order:o5")
        await place(new, changed, 3, 90_000)
        assert len(await found(new, "order:o90001")) == 1
        # Whoever goes back to the earlier contract retags again, and its servers go on without a restart.
        await retag_log(filled, name, contract)
        await place(old, contract, 1, 95_000)
        assert len(await found(old, "order:o95000")) == 2
        with pytest.raises(Unavailable):
            await place(new, changed, 1, 96_000)
        for log in (old, new, watching):
            await log.close()

    async def test_two_that_retag_by_the_same_contract_share_the_work(
        self, filled: str, name: str, declared: Declared, reader: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_retag, "BATCH", 5)
        done = await asyncio.gather(*(retag_log(filled, name, declared(CUSTOMER)) for _ in range(3)))
        assert [one.generation for one in done] == [2, 2, 2]
        assert len(await found(reader, "customer:c1")) == 30

    async def test_an_eventless_type_is_tagged_by_the_contract_that_was_declared_last(
        self, url: str, name: str, declared: Declared
    ) -> None:
        first, second = await open_log(url, name), await open_log(url, name)
        one, other = declared(), declared(CUSTOMER)
        assert await first.declare(one) == []
        assert await second.declare(other) == []
        with pytest.raises(Unavailable):
            await place(first, one, 1)
        await place(second, other, 1)
        await first.close()
        await second.close()


async def test_events_that_were_replaced_are_tagged_as_what_they_are_today(url: str, name: str, parcels: Any) -> None:
    context = parcels.make_context()
    log = await open_log(url, name)
    payload = parcels.ParcelDispatched(parcel_id="p").SerializeToString()
    kind = "parcels.v1.ParcelDispatched"
    await log.append(Entry(command_id="1", events=(NewEvent(id=str(uuid.uuid4()), type=kind, payload=payload),)))
    await log.close()
    assert (await retag_by(url, name, context.decoder, anew=True)).events == 1
    log = await open_log(url, name)
    await log.declare(context.contract)
    found = (await log.read(query=Query((QueryItem(frozenset({kind}), frozenset({"parcel:p"})),)))).events
    assert [event.type for event in found] == [kind]
    await log.close()
