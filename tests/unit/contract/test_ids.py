"""New ids."""

from __future__ import annotations

import os
import sys
import time
import uuid

import pytest

from ceqs.contract import Uuid7, new_id


def test_an_id_is_a_uuid_of_version_seven_and_of_its_time() -> None:
    before = time.time_ns() // 1_000_000
    text = new_id()
    after = time.time_ns() // 1_000_000
    made = uuid.UUID(text)
    assert str(made) == text
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert before <= made.int >> 80 <= after


def test_ids_differ() -> None:
    assert len({new_id() for _ in range(10_000)}) == 10_000


def test_ids_are_version_7_and_carry_the_time() -> None:
    made = uuid.UUID(Uuid7(lambda: 1_700_000_000_123_456_789)())
    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert made.int >> 80 == 1_700_000_000_123


def test_ids_carry_the_next_millisecond_as_soon_as_it_begins() -> None:
    times = iter([1_000_000, 1_999_999, 2_000_000, 2_999_999, 3_000_000])
    give = Uuid7(lambda: next(times))
    assert [uuid.UUID(give()).int >> 80 for _ in range(5)] == [1, 1, 2, 2, 3]


def test_ids_grow_within_a_millisecond_and_when_the_clock_runs_back() -> None:
    times = iter([2_000_000, 2_000_000, 1_000_000, 3_000_000, *([3_000_000] * 10_000)])
    give = Uuid7(lambda: next(times))
    ids = [give() for _ in range(10_004)]
    assert ids == sorted(set(ids))


def test_a_full_millisecond_flows_over_into_the_next() -> None:
    give = Uuid7(lambda: 1_000_000)
    first = give()
    give._high, give._low = (1 << 26) - 1, (1 << 48) - 1
    second = give()
    assert uuid.UUID(second).int >> 80 == 2
    assert first < second < give()


def test_a_full_last_group_is_carried_over() -> None:
    give = Uuid7(lambda: 1_000_000)
    first = give()
    give._low = (1 << 48) - 1
    second = give()
    assert uuid.UUID(second).int >> 80 == 1
    assert uuid.UUID(second).variant == uuid.RFC_4122
    assert first < second < give()


@pytest.mark.skipif(sys.platform == "win32", reason="no process forks there")
def test_a_process_that_was_forked_gives_other_ids() -> None:
    """Its parent has drawn numbers ahead."""
    at = [1_000_000]
    give = Uuid7(lambda: at[0])
    give()
    at[0] = 2_000_000
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.write(write, " ".join(give() for _ in range(20)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(read, 65536).decode().split()
    os.close(read)
    os.close(write)
    ours = [give() for _ in range(20)]
    assert len({*theirs, *ours}) == 40
