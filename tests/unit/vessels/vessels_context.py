"""The handlers of the vessels: the same for each way of keeping their state."""

# The modules of the vessels are generated when the tests run, so nothing here can be checked before.
# mypy: ignore-errors

from __future__ import annotations

import hashlib

from vessels.v1.vessels_ceqs import (
    GaugeFoldBase,
    MeterFoldBase,
    TankFoldBase,
    VesselCommands,
    VesselsContext,
)
from vessels.v1.vessels_pb2 import (
    ChangeGaugeResponse,
    ChangeMeterResponse,
    ChangeTankResponse,
    LevelChanged,
    VesselEmptied,
)

from ceqs.errors import Rejected


class Folding:
    """Folds a vessel of any kind, and counts how often."""

    def __init__(self, factor=1) -> None:
        self.factor = factor
        self.counted = Count()

    def on_level_changed(self, vessel, event) -> None:
        self.counted.up()
        vessel.level += self.factor * event.by
        vessel.trace = hashlib.sha256(f"{vessel.trace} {event.by}".encode()).hexdigest()

    def on_vessel_emptied(self, vessel, event) -> None:
        self.counted.up()
        vessel.level = 0
        vessel.trace = hashlib.sha256(f"{vessel.trace} emptied".encode()).hexdigest()


class Count:
    """Counts. It is no part of what a fold does, so it has nothing that is part of a fingerprint."""

    __slots__ = ("folded",)

    def __init__(self) -> None:
        self.folded = 0

    def up(self) -> None:
        """Count one more."""
        self.folded += 1


class GaugeFold(Folding, GaugeFoldBase):
    """Folds a gauge."""


class MeterFold(Folding, MeterFoldBase):
    """Folds a meter."""


class TankFold(Folding, TankFoldBase):
    """Folds a tank."""


class Commands(VesselCommands):
    """Decides."""

    def change_gauge(self, request, gauge, ctx):
        level = yield from _change(request, gauge)
        return ChangeGaugeResponse(level=level)

    def change_meter(self, request, meter, ctx):
        level = yield from _change(request, meter)
        return ChangeMeterResponse(level=level)

    def change_tank(self, request, tank, ctx):
        level = yield from _change(request, tank)
        return ChangeTankResponse(level=level)

    def change_tanks(self, request, tank, ctx):
        for vessel_id in request.vessel_ids:
            yield LevelChanged(vessel_id=vessel_id, by=request.by)


def _change(request, vessel):
    if request.by == 0:
        if vessel.level:
            yield VesselEmptied(vessel_id=request.vessel_id)
        return 0
    if vessel.level + request.by < 0:
        raise Rejected("EMPTY", f"there is only {vessel.level}")
    yield LevelChanged(vessel_id=request.vessel_id, by=request.by)
    return vessel.level + request.by


def make_context(factor=1):
    """Give the vessels as a context; another factor makes another model."""
    return VesselsContext(commands=Commands(), folds=[GaugeFold(factor), MeterFold(factor), TankFold(factor)])
