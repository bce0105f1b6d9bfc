"""What an append condition can say, and that every log judges it as its words say (see https://dcb.events)."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ceqs.errors import Conflict
from ceqs.log import ALL, Appended, Condition, Entry, Log, NewEvent, Query, QueryItem
from ceqs.v1.events_pb2 import RecordedEvent

PLACED, SHIPPED, PAID = "shop.Placed", "shop.Shipped", "shop.Paid"
TAGS = ("order:1", "order:2", "product:1", "product:2")


def event(kind: str, *tags: str) -> NewEvent:
    return NewEvent(id=str(uuid.uuid4()), type=kind, payload=b"", tags=tags)


def entry(*events: NewEvent, condition: Condition | None = None) -> Entry:
    return Entry(command_id=str(uuid.uuid4()), events=events, condition=condition)


def item(types: Iterable[str] = (), tags: Iterable[str] = ()) -> QueryItem:
    return QueryItem(frozenset(types), frozenset(tags))


def history() -> list[NewEvent]:
    return [
        event(PLACED, "order:1", "product:1"),
        event(SHIPPED, "order:1"),
        event(PLACED, "order:2", "product:1", "product:2"),
        event(PAID),
    ]


SHAPES = {
    "any event": (ALL, {1, 2, 3, 4}),
    "any event, by an item that leaves nothing out": (Query((item(),)), {1, 2, 3, 4}),
    "any event, by one such item of several": (Query((item([SHIPPED]), item())), {1, 2, 3, 4}),
    "a type": (Query((item([PLACED]),)), {1, 3}),
    "types are or-ed": (Query((item([SHIPPED, PAID]),)), {2, 4}),
    "a type that no event has": (Query((item(["shop.Lost"]),)), set[int]()),
    "a tag": (Query((item(tags=["order:1"]),)), {1, 2}),
    "tags are and-ed": (Query((item(tags=["order:2", "product:1", "product:2"]),)), {3}),
    "tags that no event has together": (Query((item(tags=["order:1", "order:2"]),)), set[int]()),
    "a tag that no event has": (Query((item(tags=["order:3"]),)), set[int]()),
    "a tag is no prefix": (Query((item(tags=["order:"]), item(tags=["order"]), item(tags=["rder:1"]))), set[int]()),
    "types and tags are and-ed": (Query((item([PLACED, PAID], ["order:1"]),)), {1}),
    "types and several tags": (Query((item([PLACED], ["product:1", "product:2"]),)), {3}),
    "a type and a tag that do not meet": (Query((item([SHIPPED], ["product:1"]),)), set[int]()),
    "items are or-ed": (Query((item([SHIPPED]), item(tags=["product:2"]))), {2, 3}),
    "items do not mix": (Query((item([SHIPPED], ["order:2"]), item([PAID], ["order:1"]))), set[int]()),
    "items may overlap": (Query((item([PLACED]), item([PLACED], ["order:1"]), item(tags=["order:1"]))), {1, 2, 3}),
}


async def test_a_condition_fails_on_what_its_query_matches_after_its_position(log: Log) -> None:
    await log.append(entry(*history()))
    for shape, (query, matching) in SHAPES.items():
        assert {stored.position for stored in (await log.read(query=query)).events} == matching, shape
        for after in range(5):
            (outcome,) = await asyncio.gather(
                log.append(entry(condition=Condition(query, after))), return_exceptions=True
            )
            assert isinstance(outcome, Conflict) == any(position > after for position in matching), (shape, after)
    assert (await log.head()).position == 4, "an entry without events is judged and adds nothing"


@pytest.mark.parametrize("stored", [0, 2])
async def test_events_that_came_just_before_count_as_those_that_are_stored(log: Log, stored: int) -> None:
    """What is appended at once goes into one transaction, where none of it can be read yet."""
    for shape, (query, matching) in SHAPES.items():
        base = (await log.head()).position
        events = history()
        await asyncio.gather(*(log.append(entry(one)) for one in events[:stored]))
        *_, outcome = await asyncio.gather(
            *(log.append(entry(one)) for one in events[stored:]),
            log.append(entry(event(PAID, "order:9"), condition=Condition(query, base + stored))),
            return_exceptions=True,
        )
        fails = any(position > stored for position in matching)
        assert isinstance(outcome, Conflict) == fails, shape
        assert (await log.head()).position == base + (4 if fails else 5), shape


async def test_an_entry_without_a_condition_is_appended_whatever_happened(log: Log) -> None:
    await log.append(entry(event(PLACED, "order:1")))
    await asyncio.gather(*(log.append(entry(event(PLACED, "order:1"))) for _ in range(3)))
    assert (await log.head()).position == 4


async def test_events_do_not_fail_the_condition_that_they_come_with(log: Log) -> None:
    condition = Condition(Query((item([PLACED]),)), 0)
    await log.append(entry(event(PLACED), event(PLACED), condition=condition))
    with pytest.raises(Conflict):
        await log.append(entry(event(PLACED), condition=condition))
    assert (await log.head()).position == 2


async def test_what_a_failed_condition_kept_out_fails_no_other(log: Log) -> None:
    condition = Condition(Query((item([PLACED]),)), 0)
    await log.append(entry(event(PLACED)))
    outcomes = await asyncio.gather(
        log.append(entry(event(SHIPPED), event(PLACED), condition=condition)),
        log.append(entry(event(PAID), condition=Condition(Query((item([SHIPPED]),)), 0))),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [Conflict, Appended]


# The naive log


@dataclass
class Naive:
    """A log that remembers everything and searches all of it, from the position `base` on."""

    base: int
    events: list[NewEvent] = field(default_factory=list[NewEvent])

    @property
    def head(self) -> int:
        return self.base + len(self.events)

    def append_all(self, entries: Sequence[Entry]) -> list[bool]:
        """Judge entries that know of each other: what came before them has to be there, and nothing else."""
        begun, lost, outcomes = self.head, list[NewEvent](), list[bool]()
        for one in entries:
            accepted = True
            if one.condition:
                query, after = one.condition.query, one.condition.after
                others = self.events[max(after - self.base, 0) : begun - self.base]
                accepted = not any(fits(query, candidate) for candidate in (*others, *lost))
            (self.events if accepted else lost).extend(one.events)
            outcomes.append(accepted)
        return outcomes

    def read(self, query: Query) -> list[str]:
        return [candidate.id for candidate in self.events if fits(query, candidate)]


def fits(query: Query, candidate: NewEvent) -> bool:
    if not query.items:
        return True
    for one in query.items:
        type_fits = not one.types or candidate.type in one.types
        if type_fits and all(tag in candidate.tags for tag in one.tags):
            return True
    return False


def some(texts: Sequence[str], most: int) -> st.SearchStrategy[frozenset[str]]:
    return st.frozensets(st.sampled_from(texts), max_size=most)


events = st.builds(
    lambda kind, tags: event(kind, *tags), st.sampled_from([PLACED, SHIPPED, PAID]), st.lists(st.sampled_from(TAGS))
)
queries = st.builds(
    lambda items: Query(tuple(items)),
    st.lists(st.builds(QueryItem, some([PLACED, SHIPPED, PAID], 2), some(TAGS, 3)), max_size=3),
)
entries = st.tuples(st.lists(events, max_size=2), st.none() | st.tuples(queries, st.integers(0, 6)))
"""Events, and a condition that looks back over so many events from the head."""
groups = st.lists(entries, min_size=1, max_size=4)
batches = st.lists(groups, min_size=1, max_size=4)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=st.lists(batches, min_size=1, max_size=4), asked=queries)
async def test_every_log_judges_and_reads_as_a_naive_one_does(
    log: Log, script: list[list[list[tuple[list[NewEvent], tuple[Query, int] | None]]]], asked: Query
) -> None:
    """Each example goes on with the same log, and looks at nothing that came before it."""
    naive = Naive((await log.head()).position)
    for batch in script:
        head = naive.head
        made = [
            [
                entry(
                    *(event(one.type, *one.tags) for one in new),
                    condition=seen and Condition(seen[0], max(naive.base, head - seen[1])),
                )
                for new, seen in group
            ]
            for group in batch
        ]
        found = await asyncio.gather(*map(log.append_all, made))
        assert [[isinstance(outcome, Appended) for outcome in group] for group in found] == [
            naive.append_all(group) for group in made
        ]
        assert {type(outcome) for group in found for outcome in group} <= {Appended, Conflict}
    assert (await log.head()).position == naive.head
    for query in (ALL, asked):
        read = (await log.read(after=naive.base, query=query)).events
        assert [RecordedEvent.FromString(stored.envelope).id for stored in read] == naive.read(query)
