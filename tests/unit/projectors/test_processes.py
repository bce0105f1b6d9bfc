"""What process managers promise, over real gRPC."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from google.protobuf import descriptor_pool
from google.protobuf.message_factory import GetMessageClass

from ceqs.codegen._image import build_image
from ceqs.contract import messages, new_id, read_contract, tags_of
from ceqs.errors import Misconfigured
from ceqs.log import Entry, NewEvent
from ceqs.model import CommandHandler, Context, Fold, ProcessManager, Reaction
from ceqs.projectors import place_of
from ceqs.projectors._process_states import load_state, save_state
from ceqs.projectors._store import Store
from ceqs.testing import FakeClock, eventually, given

pytestmark = pytest.mark.usefixtures("fast")
WEEK = dt.timedelta(days=7)


@pytest.fixture(scope="module")
def workshop(library: Any) -> Any:
    """The messages of workshop.v1 by name, and `contract`."""
    name = "workshop/v1/workshop.proto"
    pool = descriptor_pool.Default()
    for proto in build_image(Path(__file__).parent / "protos", [name]).file:
        with contextlib.suppress(TypeError):
            pool.AddSerializedFile(proto.SerializeToString())
    file = pool.FindFileByName(name)
    classes = {descriptor.name: GetMessageClass(descriptor) for descriptor in messages(file)}
    return SimpleNamespace(**classes, contract=read_contract(file))


@pytest.fixture
def repairing(workshop: Any) -> type[ProcessManager]:
    """Gives a thing back when all of its parts have arrived, or when that takes more than a week."""

    class Repairing(ProcessManager):
        ceqs_contract = workshop.contract
        ceqs_process = "Repair"

        def on_thing_taken_in(self, event: Any, repair: Any, ctx: Reaction) -> Iterator[Any]:
            repair.missing = event.parts
            ctx.schedule(workshop.GiveBackRequest(thing_id=event.thing_id), key=event.thing_id, after=WEEK)
            if not event.parts:
                yield workshop.GiveBackRequest(thing_id=event.thing_id)

        def on_part_arrived(self, event: Any, repair: Any, ctx: Reaction) -> Iterator[Any]:
            repair.missing -= 1
            if repair.missing == 0:
                yield workshop.GiveBackRequest(thing_id=repair.thing_id)

        def on_thing_given_back(self, event: Any, repair: Any, ctx: Reaction) -> Iterator[Any]:
            ctx.cancel(event.thing_id)
            repair.Clear()
            yield from ()

    return Repairing


@pytest.fixture
def workshop_context(workshop: Any) -> Callable[..., Context]:
    class Repairs(CommandHandler):
        ceqs_service = "workshop.v1.RepairCommandsService"

        def take_in(self, request: Any, thing: Any, ctx: Any) -> Iterator[Any]:
            yield workshop.ThingTakenIn(thing_id=request.thing_id, parts=request.parts)

        def give_back(self, request: Any, thing: Any, ctx: Any) -> Iterator[Any]:
            yield workshop.ThingGivenBack(thing_id=request.thing_id)

    class ThingFold(Fold):
        ceqs_contract, ceqs_state = workshop.contract, "Thing"

        def on_thing_taken_in(self, thing: Any, event: Any) -> None: ...

        def on_thing_given_back(self, thing: Any, event: Any) -> None: ...

    class WorkshopContext(Context):
        ceqs_contract = workshop.contract

    return lambda *subscribers: WorkshopContext(commands=Repairs(), folds=[ThingFold()], subscribers=list(subscribers))


async def record(world: Any, workshop: Any, *recorded: Any) -> None:
    events = []
    for message in recorded:
        declared = workshop.contract.event(message)
        tags = tags_of(message, declared.tags)
        event = NewEvent(id=new_id(), type=declared.full_name, payload=message.SerializeToString(), tags=tags)
        events.append(event)
    await world.logs["workshop"].append(Entry(command_id=new_id(), correlation_id="why", events=tuple(events)))


async def kept(world: Any) -> dict[str, int]:
    """Give how many parts each repair misses, by thing."""
    engine = place_of(world.models_url, "workshop", "repairing").reading_engine()
    async with engine.connect() as connection:
        rows = (await connection.execute(sa.text("SELECT key, state FROM ceqs_process_states"))).all()
    await engine.dispose()
    states = [world.workshop.Repair.FromString(row.state) for row in rows]
    assert [row.key for row in rows] == [state.thing_id for state in states]
    return {state.thing_id: state.missing for state in states}


async def given_back(world: Any) -> list[str]:
    events = await world.events("workshop", "ThingGivenBack")
    return [world.workshop.ThingGivenBack.FromString(event.payload).thing_id for event in events]


async def are_given_back(world: Any, *things: str) -> bool:
    return sorted(await given_back(world)) == sorted(things)


@pytest.fixture
async def context(world: Any, workshop: Any, workshop_context: Any, repairing: Any) -> Context:
    world.workshop = workshop
    served: Context = workshop_context(repairing())
    await world.start(served)
    return served


async def test_a_process_remembers_by_key_and_acts_when_all_has_come_together(
    world: Any, workshop: Any, context: Context
) -> None:
    projector = world.project(context)
    taken = [workshop.ThingTakenIn(thing_id=thing, parts=parts) for thing, parts in (("a", 2), ("b", 1), ("c", 3))]
    await record(world, workshop, *taken, workshop.PartArrived(thing_ids=["a", "b"]))
    await eventually(lambda: are_given_back(world, "b"))
    await world.halt()
    await eventually(lambda: kept(world))
    assert (await kept(world))["c"] == 3
    await record(world, workshop, workshop.PartArrived(thing_ids=["c", "a"]))
    projector = world.project(context)
    await eventually(lambda: are_given_back(world, "a", "b"))
    await world.reaches((await world.events("workshop"))[-1].position, "repairing", "workshop")
    assert await kept(world) == {"c": 2}, "what is over takes no room"
    status = projector.status()[0]
    assert (status.kind, status.timers, status.outcomes) == ("process", 1, {"accepted": 2})


async def test_a_process_gives_up_when_its_time_is_over(world: Any, workshop: Any, context: Context) -> None:
    clock = FakeClock(dt.datetime.now(dt.UTC))
    projector = world.project(context, clock=clock)
    await record(world, workshop, workshop.ThingTakenIn(thing_id="a", parts=9))
    await eventually(lambda: projector.status()[0].timers == 1)
    clock.advance(2 * WEEK)
    await eventually(lambda: are_given_back(world, "a"))


async def test_state_commands_and_checkpoint_are_committed_together(
    world: Any, workshop: Any, workshop_context: Any, repairing: Any
) -> None:
    """The second thing fails first: whatever was done before it in the same transaction is done once in the end."""
    world.workshop = workshop
    failing = True

    class Repairing(repairing):  # type: ignore[misc]
        def on_part_arrived(self, event: Any, repair: Any, ctx: Reaction) -> Iterator[Any]:
            yield from super().on_part_arrived(event, repair, ctx)
            if failing and repair.thing_id == "b":
                raise ValueError("not yet")

    context = workshop_context(Repairing())
    await world.start(context)
    taken = [workshop.ThingTakenIn(thing_id=thing, parts=2) for thing in "ab"]
    await record(world, workshop, *taken, workshop.PartArrived(thing_ids=["a", "b"]))
    projector = world.project(context)
    await eventually(lambda: "not yet" in projector.status()[0].reason)
    assert await kept(world) in ({}, {"a": 2, "b": 2})
    failing = False
    await eventually(lambda: projector.status()[0].position == 3)
    assert await kept(world) == {"a": 1, "b": 1}


async def test_states_are_copies_until_they_are_saved(world: Any, workshop: Any) -> None:
    kind = workshop.contract.processes["Repair"]
    async with Store.open(place_of(world.models_url, "workshop", "states"), "workshop") as store:

        async def change(missing: int, *, save: bool = True) -> Any:
            async with store.advance(dataclasses.replace(store.at, position=store.at.position + 1)) as session:
                state: Any = await load_state(session, kind, "a")
                state.missing += missing
                if save:
                    await save_state(session, kind, "a", state)
                return await load_state(session, kind, "a")

        assert await change(2, save=False) == workshop.Repair(thing_id="a")
        assert await change(2) == workshop.Repair(thing_id="a", missing=2)
        assert await change(1) == workshop.Repair(thing_id="a", missing=3)
        assert await change(-3) == workshop.Repair(thing_id="a")
        async with store.begin() as connection:
            assert not (await connection.execute(sa.text("SELECT * FROM ceqs_process_states"))).all()


def test_a_process_is_tested_by_what_it_was_given(workshop: Any, workshop_context: Any, repairing: Any) -> None:
    context = workshop_context(repairing())
    back = workshop.GiveBackRequest(thing_id="a")
    taken = workshop.ThingTakenIn(thing_id="a", parts=2)
    given(context).hears(taken).sends().schedules(back, key="a", after=WEEK).keeps(
        workshop.Repair(thing_id="a", missing=2)
    )
    arrived = workshop.PartArrived(thing_ids=["a"])
    given(context, taken).hears(arrived).sends().keeps(workshop.Repair(thing_id="a", missing=1))
    given(context, taken, arrived).hears(arrived).sends(back)
    given(context, taken).hears(workshop.ThingGivenBack(thing_id="a")).cancels("a").keeps(workshop.Repair())


def test_a_process_without_its_manager_or_one_of_its_methods_is_refused(
    workshop: Any, workshop_context: Any, repairing: Any
) -> None:
    with pytest.raises(Misconfigured, match="Repair has no process manager; pass a RepairProcess"):
        workshop_context()

    class Deaf(ProcessManager):
        ceqs_contract = workshop.contract
        ceqs_process = "Repair"

        def on_thing_taken_in(self, event: Any, repair: Any, ctx: Reaction) -> Iterator[Any]:
            yield from ()

    with pytest.raises(Misconfigured, match="Deaf has no method on_part_arrived; the process Repair lists it"):
        workshop_context(Deaf())
