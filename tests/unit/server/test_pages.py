"""Batches that one reader has read are kept for the next."""

from __future__ import annotations

from typing import Any

import pytest

from ceqs.log import BEYOND, Batch, Query, QueryItem, Span, splice
from ceqs.server import _pages
from ceqs.server._pages import Pages


class Numbered:
    """A log of so many events whose reads are noted."""

    def __init__(self, head: int) -> None:
        self.head = head
        self.spans: list[Span] = []

    async def read_batch(self, span: Span) -> Batch:
        self.spans.append(span)
        last = min(span.after + span.limit, span.until, self.head)
        return Batch(splice([b"x" * 8] * (last - span.after)), last - span.after, last)


async def everything(pages: Pages, span: Span) -> list[int]:
    ends = []
    while not span.is_empty and span.limit:
        batch = await pages.read(span)
        span = Span(after=batch.through, until=span.until, limit=span.limit - batch.events, query=span.query)
        ends.append(batch.through)
    return ends


async def test_what_one_has_read_is_not_read_again_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pages, "LIMIT", 100)
    log: Any = Numbered(350)
    pages = Pages(log)
    assert await everything(pages, Span(until=350, limit=BEYOND)) == [100, 200, 300, 350]
    assert await everything(pages, Span(after=70, until=350, limit=BEYOND)) == [100, 200, 300, 350]
    read = [(span.after, span.limit) for span in log.spans]
    # The last batch ended at the head: the next reader finds more there.
    assert read == [(0, 100), (100, 100), (200, 100), (300, 100), (70, 30), (300, 100)]
    log.head = 400
    assert await everything(pages, Span(until=400, limit=BEYOND)) == [100, 200, 300, 400]


async def test_a_batch_that_is_kept_never_exceeds_what_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pages, "LIMIT", 100)
    log: Any = Numbered(350)
    pages = Pages(log)
    await everything(pages, Span(until=350, limit=BEYOND))
    assert await everything(pages, Span(until=150, limit=BEYOND)) == [100, 150]
    assert await everything(pages, Span(until=350, limit=30)) == [30]
    assert await everything(pages, Span(until=350, limit=BEYOND)) == [100, 200, 300, 350]
    typed = Query((QueryItem(types=frozenset("B")),))
    before = len(log.spans)
    await everything(pages, Span(until=350, limit=BEYOND, query=typed))
    assert len(log.spans) == before + 4


async def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pages, "LIMIT", 10)
    monkeypatch.setattr(_pages, "MOST_BYTES", 1000)
    pages = Pages(Numbered(10_000))  # type: ignore[arg-type]
    await everything(pages, Span(until=10_000, limit=BEYOND))
    assert 800 < sum(len(batch.data) for batch in pages._kept.values()) == pages._bytes <= 1000
