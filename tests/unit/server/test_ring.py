"""The ring of recent events, from which every subscriber is served."""

from __future__ import annotations

import pytest

from ceqs.log import ALL, Head, Query, QueryItem, StoredEvent
from ceqs.server import _ring
from ceqs.server._ring import Ring


def stored(position: int, public_position: int = 0, size: int = 10, kind: str = "A") -> StoredEvent:
    return StoredEvent(position, public_position, kind, f"{position:0{size}}".encode())


def test_the_ring_is_bounded_by_events_and_bytes_but_keeps_its_newest_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ring, "MOST_EVENTS", 10)
    monkeypatch.setattr(_ring, "MOST_BYTES", 1000)
    ring = Ring(Head("log", position=100, public_position=40))
    for position in range(101, 131):
        ring.add([stored(position, 40 + position // 3 - 33 if position % 3 == 0 else 0)], {})
    assert (ring.begin(public=False), ring.through(public=False)) == (120, 130)
    assert (ring.begin(public=True), ring.through(public=True)) == (47, 50)
    ring.add([stored(131, size=950)], {})
    assert ring.begin(public=False) == 125
    ring.add([stored(position, size=500) for position in range(132, 140)], {})
    assert (ring.begin(public=False), ring.through(public=False)) == (131, 139)


def test_the_ring_gives_messages_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ring, "MESSAGE_BYTES", 100)
    ring = Ring(Head("log"))
    for begin in range(1, 100, 3):
        ring.add([stored(begin), stored(begin + 1, kind="B"), stored(begin + 2)], {begin: frozenset({"a:1"})})
    position, found = 1, list[int]()
    while position < 99:
        data, position = ring.after(position, ALL, public=False)
        assert len(data) <= 100
        found += [int(event) for event in parts(data)]
    assert found == list(range(2, 100))
    typed, tagged = (Query((QueryItem(types=frozenset("B")),)), Query((QueryItem(tags=frozenset({"a:1"})),)))
    assert [int(e) for e in parts(ring.after(4, typed, public=False).data)] == [5, 8, 11, 14, 17, 20, 23, 26]
    assert [int(e) for e in parts(ring.after(4, tagged, public=False).data)][:2] == [7, 10]


def parts(data: bytes) -> list[bytes]:
    """Take apart what is made of short texts."""
    found = []
    while data:
        length = data[1]
        found.append(data[2 : 2 + length])
        data = data[2 + length :]
    return found
