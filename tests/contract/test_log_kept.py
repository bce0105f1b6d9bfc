"""States that are kept beside the record: what every log promises of them."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace
from typing import Any

import pytest

from ceqs.errors import Conflict, Invalid, LogUnavailable
from ceqs.log import (
    Appended,
    Condition,
    Entry,
    Keep,
    Kept,
    Log,
    NewEvent,
    Query,
    QueryItem,
    StateKey,
    open_log,
    open_reader,
)

TANK = StateKey("Tank", "tank:1", "first model")
ABOUT = Query((QueryItem(frozenset({"shop.Filled"}), frozenset({"tank:1"})),))


def event() -> NewEvent:
    return NewEvent(id=str(uuid.uuid4()), type="shop.Filled", payload=b"", tags=("tank:1",))


def entry(body: bytes, *, events: int = 1, after: int = 0, key: StateKey = TANK, command_id: str = "") -> Entry:
    return Entry(
        command_id=command_id or str(uuid.uuid4()),
        events=tuple(event() for _ in range(events)),
        condition=Condition(ABOUT, after),
        remember=True,
        keeps=Keep(state=key.state, tag=key.tag, fingerprint=key.fingerprint, events=after + events, body=body),
    )


async def kept(log: Any, key: StateKey = TANK) -> Kept | None:
    (found,) = await log.kept([key])
    assert found is None or isinstance(found, Kept)
    return found


async def test_a_state_is_kept_as_of_the_last_event_of_its_entry(log: Log) -> None:
    assert await kept(log) is None
    await log.append(entry(b"full", events=3))
    assert await kept(log) == Kept(3, 3, b"full")


async def test_a_later_state_takes_the_place_of_the_one_before(log: Log) -> None:
    for after in range(3):
        await log.append(entry(b"%d" % after, after=after))
    assert await kept(log) == Kept(3, 3, b"2")


async def test_a_state_of_another_model_is_not_given_and_makes_way_for_the_next(log: Log) -> None:
    other = replace_key(fingerprint="second model")
    await log.append(entry(b"first"))
    assert await kept(log, other) is None
    await log.append(entry(b"second", after=1, key=other))
    assert await kept(log, other) == Kept(2, 2, b"second")
    assert await kept(log) is None


async def test_states_of_other_tags_and_other_names_are_others(log: Log) -> None:
    await log.append(entry(b"full"))
    assert await log.kept([replace_key(tag="tank:2"), TANK, replace_key(state="Meter")]) == [
        None,
        Kept(1, 1, b"full"),
        None,
    ]


def replace_key(**changes: str) -> StateKey:
    return TANK._replace(**changes)


async def test_many_states_are_read_at_once(log: Log) -> None:
    keys = [replace_key(tag=f"tank:{number}") for number in range(200)]
    await log.append_all([entry(key.tag.encode(), key=key) for key in keys])
    found = await log.kept([*keys, replace_key(tag="tank:none")])
    assert [state and state.body for state in found] == [*(key.tag.encode() for key in keys), None]
    assert await log.kept([]) == []


async def test_of_entries_that_are_appended_together_the_last_keeps(log: Log) -> None:
    await log.append_all([entry(b"first", events=2), entry(b"second", events=2), entry(b"third", events=2)])
    found = await kept(log)
    assert found is not None
    assert (found.position, found.body) == (6, b"third")


async def test_an_entry_that_is_refused_keeps_nothing(log: Log) -> None:
    await log.append(entry(b"first"))
    with pytest.raises(Conflict):
        await log.append(entry(b"too late", after=0))
    first, refused = await log.append_all([entry(b"second", after=1), entry(b"wrong", after=0, command_id="\0")])
    assert isinstance(first, Appended)
    assert isinstance(refused, Invalid)
    assert await kept(log) == Kept(2, 2, b"second")


async def test_a_repeated_command_keeps_nothing(log: Log) -> None:
    await log.append(entry(b"first", command_id="c1"))
    assert (await log.append(entry(b"again", command_id="c1"))).repeated
    assert await kept(log) == Kept(1, 1, b"first")


async def test_an_entry_without_events_keeps_nothing(log: Log) -> None:
    await log.append(entry(b"nothing", events=0))
    assert await kept(log) is None


async def test_an_entry_without_a_condition_keeps_nothing(log: Log) -> None:
    await log.append(replace(entry(b"blind"), condition=None))
    assert await kept(log) is None


async def test_a_state_that_no_database_stores_fails_its_own_entry_only(log: Log) -> None:
    wrong = log.append(entry(b"", key=replace_key(tag="tank:\0")))
    refused, accepted = await asyncio.gather(wrong, log.append(entry(b"full")), return_exceptions=True)
    assert (type(refused), type(accepted)) == (Invalid, Appended)
    assert await kept(log) == Kept(1, 1, b"full")


async def test_kept_states_outlive_the_log_and_readers_see_them(url: str, name: str) -> None:
    if url == "memory:":
        pytest.skip("a log in memory does not outlive itself")
    log = await open_log(url, name)
    await log.append(entry(b"full"))
    await log.close()
    reader = await open_reader(url, name)
    assert await kept(reader) == Kept(1, 1, b"full")
    await reader.close()
    log = await open_log(url, name)
    assert await kept(log) == Kept(1, 1, b"full")
    await log.close()
    with pytest.raises(LogUnavailable):
        await kept(reader)


async def test_a_deleted_state_is_missing(log: Log, database: Any) -> None:
    await log.append(entry(b"full"))
    await database.run("DELETE FROM states")
    assert await kept(log) is None


@pytest.mark.parametrize(
    "damage",
    ["body = CAST('fuel' AS {bytes})", "position = 0", "events = 7", "fingerprint = 'second model'"],
)
async def test_a_damaged_state_is_missing_and_the_process_log_says_so(
    log: Log, database: Any, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    await log.append(entry(b"full"))
    binary = "BLOB" if database.url.startswith("sqlite") else "bytea"
    await database.run(f"UPDATE states SET {damage.format(bytes=binary)}")
    model = "second model" if "fingerprint" in damage else TANK.fingerprint
    assert await kept(log, replace_key(fingerprint=model)) is None
    said = capsys.readouterr().out
    assert "a kept state is damaged" in said
    assert "tank:1" in said


async def test_an_older_state_never_takes_the_place_of_a_newer_one(log: Log, database: Any) -> None:
    await log.append(entry(b"newer"))
    await database.run("UPDATE states SET position = 1000")
    await log.append(entry(b"older", after=1))
    assert [tuple(row) for row in await database.run("SELECT position, body FROM states")] == [(1000, b"newer")]


async def test_a_batch_that_fails_keeps_nothing(log: Log, database: Any) -> None:
    await log.append(entry(b"first"))
    # The commands are inserted last, so all else of the batch has been written by then.
    if database.url.startswith("sqlite"):
        await database.run("CREATE TRIGGER fail BEFORE INSERT ON commands BEGIN SELECT RAISE(ABORT, 'no'); END")
    else:
        await database.run("ALTER TABLE commands ADD CONSTRAINT fail CHECK (command_id = '') NOT VALID")
    with pytest.raises(LogUnavailable):
        await log.append(entry(b"second", after=1))
    assert await kept(log) == Kept(1, 1, b"first")
    if database.url.startswith("sqlite"):
        await database.run("DROP TRIGGER fail")
    else:
        await database.run("ALTER TABLE commands DROP CONSTRAINT fail")
    await log.append(entry(b"third", after=1))
    assert await kept(log) == Kept(2, 2, b"third")
