"""The handlers of the meters that the benchmarks load."""

# The modules of bench.v1 are generated when the benchmarks run, so nothing here can be checked before.
# mypy: ignore-errors

from __future__ import annotations

import copy

import sqlalchemy as sa
from bench.v1.bench_ceqs import (
    BenchCommands,
    BenchContext,
    BenchQueries,
    HotMeterFoldBase,
    MeterFoldBase,
    MeterProjection,
    OldMeterFoldBase,
    ReadingsProjection,
)
from bench.v1.bench_pb2 import CountReadingsResponse, MeterRead, WatchReadingsResponse
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column

from ceqs.errors import Rejected

LAST = 2**40
"""What no meter shows more than."""


class MeterFold(MeterFoldBase):
    """Folds a meter."""

    def on_meter_read(self, meter, event) -> None:
        """Remember what it shows."""
        meter.shows = event.shows
        meter.readings += 1


class HotMeterFold(HotMeterFoldBase):
    """Folds a meter that all read at once."""

    def on_meter_read(self, hot_meter, event) -> None:
        """Remember what it shows."""
        hot_meter.shows = event.shows


class OldMeterFold(OldMeterFoldBase):
    """Folds a meter with a long history."""

    def on_meter_read(self, old_meter, event) -> None:
        """Remember what it shows."""
        old_meter.shows = event.shows


class Meters(BenchCommands):
    """Decides on readings."""

    def read_meter(self, request, meter, ctx):
        """Note a reading."""
        yield _reading(request, meter)

    def read_hot_meter(self, request, hot_meter, ctx):
        """Note a reading."""
        yield _reading(request, hot_meter)

    def read_old_meter(self, request, old_meter, ctx):
        """Note a reading."""
        yield _reading(request, old_meter)

    def read_often(self, request, old_meter, ctx):
        """Note many readings."""
        for shows in range(old_meter.shows + 1, old_meter.shows + 1 + request.times):
            yield MeterRead(meter_id=request.meter_id, shows=shows, used=1, reader="a reader of many meters")


def _reading(request, meter):
    shows = meter.shows + request.used
    if shows > LAST:
        raise Rejected("RUNS_BACKWARDS", f"{request.meter_id} cannot show {shows}")
    return MeterRead(meter_id=request.meter_id, shows=shows, used=request.used, reader=request.reader)


class Base(MappedAsDataclass, DeclarativeBase):
    """The table of the projection."""

    type_annotation_map = {int: sa.BigInteger}  # noqa: RUF012  # SQLAlchemy reads it from the class


class ReadingRow(Base):
    """A reading."""

    __tablename__ = "readings"

    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    meter_id: Mapped[str] = mapped_column(index=True)
    shows: Mapped[int]
    used: Mapped[int]
    reader: Mapped[str]


READINGS = ReadingRow.__table__


class Readings(ReadingsProjection):
    """Enters every reading into one table."""

    metadata = Base.metadata
    partition_by = "meter"

    async def on_meter_read(self, session, event, meta) -> None:
        """Enter the reading."""
        session.add(ReadingRow(meta.position, event.meter_id, event.shows, event.used, event.reader))


class KeyedMeters(MeterProjection):
    """Keeps the meters by their keys."""

    def on_meter_read(self, meter, event, meta) -> None:
        """Remember what it shows."""
        meter.shows = event.shows
        meter.readings += 1


class Queries(BenchQueries):
    """Answers about readings."""

    async def count_readings(self, request, session):
        """Count those of a meter."""
        return CountReadingsResponse(readings=await _count(request, session))

    async def watch_readings(self, request, session):
        """Count those of a meter."""
        return WatchReadingsResponse(readings=await _count(request, session))


async def _count(request, session):
    counted = sa.select(sa.func.count()).where(READINGS.c.meter_id == request.meter_id)
    return (await session.execute(counted)).scalar_one()


meters = BenchContext(
    commands=Meters(),
    folds=[MeterFold(), HotMeterFold(), OldMeterFold()],
    projections=[Readings(), KeyedMeters()],
    queries=Queries(),
)


def projecting(name: str) -> BenchContext:
    """Give the meters with one of the projections only."""
    one = copy.copy(meters)
    one.projections = {name: meters.projections[name]}
    return one
