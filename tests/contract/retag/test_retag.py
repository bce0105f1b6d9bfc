"""Tagging recorded events anew, where the contract annotates other fields than it did."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest
from tests.contract.retag.orders import (
    CUSTOMER,
    NO_CANCELLED,
    NO_ORDER,
    PRODUCTS,
    Declared,
    boundary,
    event,
    found,
    place,
    retag_log,
)

from ceqs.contract import Contract
from ceqs.errors import LogUnavailable, Misconfigured, Unavailable
from ceqs.log import Entry, NewEvent, Query, QueryItem, Wanted, _retag, open_log
from ceqs.log import retag_log as retag_by


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
