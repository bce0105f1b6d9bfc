"""New ids."""

from __future__ import annotations

import time
import uuid

from ceqs.contract import new_id


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
