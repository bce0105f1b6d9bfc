"""UUIDv7."""

from __future__ import annotations

import uuid

from ceqs.server import Uuid7


def test_ids_are_version_7_and_carry_the_time() -> None:
    made = uuid.UUID(Uuid7(lambda: 1_700_000_000_123_456_789)())
    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert made.int >> 80 == 1_700_000_000_123


def test_ids_grow_within_a_millisecond_and_when_the_clock_runs_back() -> None:
    times = iter([2_000_000, 2_000_000, 1_000_000, 3_000_000, *([3_000_000] * 10_000)])
    new_id = Uuid7(lambda: next(times))
    ids = [new_id() for _ in range(10_004)]
    assert ids == sorted(set(ids))


def test_a_full_millisecond_flows_over_into_the_next() -> None:
    new_id = Uuid7(lambda: 1_000_000)
    first = new_id()
    new_id._random = (1 << 74) - 1
    second = new_id()
    assert uuid.UUID(second).int >> 80 == 2
    assert first < second < new_id()
