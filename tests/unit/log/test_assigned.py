"""An id that was made for an entry is looked up only once the entry may have been stored."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping

import pytest

from ceqs.log import Condition, Entry, Head, NewEvent
from ceqs.log._judge import CommandRow, Verdict, settle
from ceqs.log._prepare import prepare

NOON = dt.datetime(2026, 1, 2, 12, tzinfo=dt.UTC)


class Ledger:
    """Says what it was asked."""

    generation = 1

    def __init__(self) -> None:
        self.asked: list[Collection[str]] = []

    def head(self) -> Head:
        return Head("log")

    def commands(self, command_ids: Collection[str]) -> Mapping[str, CommandRow]:
        self.asked.append(command_ids)
        return {}

    def moved(self, conditions: Mapping[int, Condition]) -> Collection[int]:
        return ()

    def insert(self, verdict: Verdict) -> None:
        pass


def entry(command_id: str, *, assigned: bool) -> Entry:
    event = NewEvent(id=command_id, type="shop.Placed", payload=b"")
    return Entry(command_id=command_id, assigned=assigned, events=(event,))


OURS, THEIRS = entry("ours", assigned=True), entry("theirs", assigned=False)


@pytest.mark.parametrize(
    ("entries", "again", "asked"),
    [
        ([OURS], False, []),
        ([OURS, THEIRS], False, [{"theirs"}]),
        ([OURS], True, [{"ours"}]),
        ([OURS, THEIRS], True, [{"ours", "theirs"}]),
    ],
)
def test_ids_are_looked_up_together_if_anything_can_be_stored_under_them(
    entries: list[Entry], again: bool, asked: list[Collection[str]]
) -> None:
    ledger = Ledger()
    settle(ledger, [prepare(entries)], again=again, now=NOON, monotonic=0.0)
    assert ledger.asked == asked
