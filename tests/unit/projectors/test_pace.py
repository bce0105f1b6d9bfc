"""A place that is filled beside one that answers takes its time, but never for ever."""

from __future__ import annotations

import pytest

from ceqs.projectors._pace import FASTER, MOST_REST, REST, Pace

WORKED, EVENTS = 0.02, 500


class Log:
    """A log that grows by so many events in a second, and a place that is filled beside it."""

    def __init__(self, growth: float) -> None:
        self.now, self.growth, self.filled = 100.0, growth, 0
        self.pace = Pace(lambda: self.now)

    def fill(self, seconds: float) -> float:
        """Fill for so long; give the part of the time that was work."""
        began, worked = self.now, 0.0
        while self.now < began + seconds:
            self.now += WORKED
            worked += WORKED
            self.filled += EVENTS
            self.now += self.pace.rest(WORKED, EVENTS, round(self.now * self.growth))
        return worked / (self.now - began)


def test_while_nothing_is_recorded_half_of_the_time_is_work() -> None:
    assert Log(0).fill(10) == pytest.approx(1 / (1 + REST))


def test_while_a_lot_is_recorded_most_of_the_time_is_rest() -> None:
    log = Log(2_000)
    log.fill(1)
    assert log.fill(10) == pytest.approx(1 / (1 + MOST_REST), rel=0.05)


def test_the_more_is_recorded_the_longer_the_rests_are() -> None:
    parts: list[float] = []
    for growth in (0, 10, 100, 500, 1_000):
        log = Log(growth)
        log.fill(1)
        parts.append(log.fill(10))
    assert parts == sorted(parts, reverse=True)
    assert parts[1] == pytest.approx(parts[0], rel=0.05)


def test_a_place_is_filled_faster_than_the_log_grows() -> None:
    log = Log(12_000)
    log.fill(1)
    before = log.filled
    log.fill(10)
    assert log.filled - before == pytest.approx(FASTER * 10 * log.growth, rel=0.05)


def test_what_grows_faster_than_it_can_be_filled_is_filled_without_a_rest() -> None:
    log = Log(100_000)
    log.fill(1)
    assert log.fill(10) == pytest.approx(1)


def test_when_no_more_is_recorded_the_rests_are_short_again() -> None:
    log = Log(2_000)
    log.fill(10)
    head = round(log.now * log.growth)
    for _ in range(2):
        log.now += 1
        rest = log.pace.rest(WORKED, EVENTS, head)
    assert rest == pytest.approx(REST * WORKED)
