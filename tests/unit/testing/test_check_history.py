"""The checker of histories: it says nothing of a right history, and names each promise that a faulty one breaks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from ceqs.testing import Ending, Fact, Operation, check_history
from ceqs.v1.answers_pb2 import Receipt

A, B = ("account:a",), ("account:b",)


def fact(position: int, command_id: str, *tags: str, public: int = 0, event_id: str = "") -> Fact:
    return Fact(position, event_id or f"e{position}", command_id, tags or A, public)


def receipt(command_id: str, *positions: int, head: int = 0) -> Receipt:
    last = positions[-1] if positions else head
    return Receipt(command_id=command_id, position=last, event_ids=[f"e{position}" for position in positions])


def accepted(
    command_id: str, invoked: float, completed: float, *positions: int, head: int = 0, saw: int | None = None
) -> Operation:
    return Operation(
        command_id=command_id,
        invoked=invoked,
        completed=completed,
        ending=Ending.ACCEPTED,
        receipt=receipt(command_id, *positions, head=head),
        boundary=A,
        saw=saw,
        events=len(positions),
    )


def refused(command_id: str, invoked: float, completed: float, saw: int | None = None) -> Operation:
    ending = Ending.REFUSED
    return Operation(
        command_id=command_id, invoked=invoked, completed=completed, ending=ending, boundary=A, saw=saw, events=1
    )


def unknown(command_id: str, invoked: float, events: int | None = 1) -> Operation:
    return Operation(command_id=command_id, invoked=invoked, boundary=A, events=events)


def duplicate(command_id: str, invoked: float, completed: float) -> Operation:
    return Operation(command_id=command_id, invoked=invoked, completed=completed, ending=Ending.DUPLICATE)


RIGHT = [
    accepted("c1", 0, 1, 1, saw=0),
    accepted("c2", 2, 5, 2, 3, saw=1),
    accepted("c4", 3, 4, 4, saw=3),  # answered before c2 was, sent after: concurrent
    accepted("none", 6, 7, head=4, saw=4),
    refused("c5", 6, 9, saw=4),
    refused("c5b", 6, 9, saw=5),  # while c6 was on its way, both are true
    accepted("c6", 8, 10, 5, saw=4),
    unknown("lost", 8),
    unknown("landed", 10),
    accepted("c1", 11, 12, 1, saw=0),  # repeated
    duplicate("c1", 12, 13),
]
LOG = [
    fact(1, "c1", public=1),
    fact(2, "c2"),
    fact(3, "c2"),
    fact(4, "c4", public=2),
    fact(5, "c6"),
    fact(6, "landed", *B, public=3),
]
READING = [(fact.position, fact.id) for fact in LOG]


def rules(operations: Sequence[Operation], log: Sequence[Fact], *readings: Sequence[tuple[int, str]]) -> set[str]:
    return {violation.rule for violation in check_history(operations, log, readings)}


def test_a_right_history_breaks_nothing() -> None:
    assert check_history(RIGHT, LOG, [READING, READING[2:], []]) == []
    assert check_history([], []) == []


@pytest.mark.parametrize(
    "log",
    [
        [*LOG[:3], *LOG[4:]],
        LOG[1:],
        [LOG[1], LOG[0], *LOG[2:]],
        [*LOG[:5], replace(LOG[5], public_position=4)],
        [replace(LOG[0], public_position=0), *LOG[1:]],
    ],
    ids=["a hole", "no first", "out of order", "a public hole", "no first public"],
)
def test_positions_have_no_gap(log: list[Fact]) -> None:
    assert "gapless" in rules(RIGHT, log)


def test_event_ids_are_unique() -> None:
    assert "unique" in rules(RIGHT, [*LOG, fact(7, "landed", event_id="e6")])


def test_every_event_was_asked_for() -> None:
    assert rules(RIGHT, [*LOG, fact(7, "stranger", *B)]) == {"asked for"}


@pytest.mark.parametrize(
    "log",
    [
        LOG[:4],
        [*LOG, fact(7, "c6", *B)],
        [*LOG[:4], replace(LOG[4], id="other"), LOG[5]],
        [LOG[0], LOG[2], LOG[1], *LOG[3:]],
        [*LOG[:2], *LOG[3:]],
    ],
    ids=["lost", "twice", "another event", "events out of order", "in part"],
)
def test_what_was_acknowledged_is_there_once(log: list[Fact]) -> None:
    renumbered = [replace(fact, position=i, public_position=0) for i, fact in enumerate(log, 1)]
    assert "acknowledged" in rules(RIGHT, renumbered)


def test_what_was_acknowledged_is_where_its_receipt_says() -> None:
    wrong = replace(RIGHT[6], receipt=Receipt(command_id="c6", position=6, event_ids=["e5"]))
    assert "acknowledged" in rules([*RIGHT[:6], wrong, *RIGHT[7:]], LOG)


def test_a_receipt_lies_within_the_log() -> None:
    assert "acknowledged" in rules([*RIGHT, accepted("none2", 20, 21, head=7)], LOG)


def test_whoever_asks_again_gets_the_first_receipt() -> None:
    other = accepted("c1", 20, 21, 1)
    assert other.receipt
    other.receipt.token = "another"
    assert rules([*RIGHT, other], LOG) == {"acknowledged"}
    assert "acknowledged" in rules([*RIGHT, accepted("none", 20, 21, head=6)], LOG), "of a command without events too"


def test_an_unknown_outcome_is_there_once_or_not_at_all() -> None:
    assert rules(RIGHT, [*LOG, fact(7, "landed", *B)]) == {"unknown"}
    in_part = [*RIGHT[:8], unknown("landed", 10, events=2), *RIGHT[9:]]
    assert rules(in_part, LOG) == {"unknown"}
    apart = [*RIGHT[:8], unknown("landed", 10, events=None), unknown("lost2", 10), *RIGHT[9:]]
    assert rules(apart, [*LOG, fact(7, "lost2", *B), fact(8, "landed", *B)]) == {"unknown"}


def test_what_was_refused_is_not_there() -> None:
    assert rules(RIGHT, [*LOG, fact(7, "c5", *B)]) == {"refused"}


def test_a_twin_of_what_was_refused_may_be_accepted_later_but_not_before() -> None:
    log = [*LOG, fact(7, "c5", *B)]
    assert rules([*RIGHT, accepted("c5", 7, 12, 7)], log) == set()
    assert rules([*RIGHT, unknown("c5", 7)], log) == set()
    assert rules([*RIGHT, refused("c6", 11, 12)], LOG) == {"refused"}


def test_a_duplicate_has_an_original() -> None:
    assert rules([*RIGHT, duplicate("landed", 20, 21)], LOG) == set()
    assert rules([*RIGHT, duplicate("none", 20, 21)], LOG) == set(), "which need not have events"
    assert rules([*RIGHT, duplicate("lost", 20, 21)], LOG) == {"duplicate"}
    assert rules([*RIGHT, duplicate("c5", 20, 21)], LOG) == {"duplicate"}
    assert rules([*RIGHT, duplicate("own", 20, 21)], [*LOG, fact(7, "own", *B)]) == {"duplicate"}
    assert rules([*RIGHT, unknown("n", 15, events=None), duplicate("n", 20, 21)], LOG) == set(), "it may have no events"


def test_a_command_id_is_accepted_with_one_content() -> None:
    assert rules([*RIGHT, replace(RIGHT[0], content=b"other")], LOG) == {"duplicate"}


def test_the_order_of_the_log_is_that_of_real_time() -> None:
    late = [op if op.command_id != "c2" else replace(op, invoked=4.5, saw=None) for op in RIGHT]
    assert rules(late, LOG) == {"order"}, "c4 was answered before c2 was sent and stands after it"


def test_the_order_holds_for_what_nobody_heard_of_and_for_what_has_no_events() -> None:
    log = [*LOG[:4], fact(5, "landed", *B), replace(LOG[4], position=6)]
    landed_first = [*RIGHT[:6], accepted("c6", 8, 9, 6), *RIGHT[7:]]
    landed_first[6].receipt.event_ids[:] = ["e5"]  # type: ignore[union-attr]
    renamed = [replace(f, id=f"e{5 if f.command_id == 'c6' else 6}") if f.position > 4 else f for f in log]
    assert rules(landed_first, [replace(f, public_position=0) for f in renamed]) == {"order"}
    assert rules([*RIGHT, accepted("none2", 11, 12, head=4)], LOG) == {"order"}, "5 had been acknowledged"


def test_a_decision_saw_all_that_stands_before_it() -> None:
    for saw in (3, 5):
        assert rules([*RIGHT[:6], replace(RIGHT[6], saw=saw), *RIGHT[7:]], LOG) == {"decided"}
    assert rules([*RIGHT, accepted("none2", 11, 12, head=6, saw=4)], LOG) == {"decided"}


def test_a_refusal_was_decided_on_the_present() -> None:
    assert rules([*RIGHT, refused("stale", 11, 12, saw=4)], LOG) == {"decided"}, "c6, the fifth, had been acknowledged"
    assert rules([*RIGHT, refused("early", 6, 7, saw=5)], LOG) == {"decided"}, "c6 had not been sent"
    assert rules([*RIGHT, refused("fancy", 11, 12, saw=6)], LOG) == {"decided"}, "there are but five"


def test_a_boundary_is_any_of_its_tags_and_without_a_tag_everything() -> None:
    of_both, of_all = replace(refused("x", 11, 12), boundary=(*A, *B)), replace(refused("x", 11, 12), boundary=())
    for op in (of_both, of_all):
        assert rules([*RIGHT, replace(op, saw=6)], LOG) == set()
        assert rules([*RIGHT, replace(op, saw=4)], LOG) == {"decided"}


@pytest.mark.parametrize(
    "reading",
    [[*READING[:2], *READING[3:]], [*READING[:2], *READING[1:]], [(1, "e2")], [*READING, (7, "e7")]],
    ids=["a gap", "twice", "another event", "beyond the log"],
)
def test_a_reader_is_given_what_the_log_has(reading: list[tuple[int, str]]) -> None:
    assert rules(RIGHT, LOG, READING, reading) == {"read"}
