"""The handlers of the tally."""

# The tally's modules are generated when they are needed, so nothing here can be checked before.
# mypy: ignore-errors

from __future__ import annotations

from tally.v1.tally_ceqs import (
    CounterFoldBase,
    CounterInTurnFoldBase,
    CountersFoldBase,
    CounterSnappedFoldBase,
    CounterStoredFoldBase,
    TallyCommands,
    TallyContext,
)
from tally.v1.tally_pb2 import (
    AddInTurnResponse,
    AddResponse,
    AddSnappedResponse,
    AddStoredResponse,
    Changed,
    MoveResponse,
    RaiseResponse,
    TakeResponse,
)

from ceqs.errors import Rejected


class Counting:
    """Folds a counter, however it is kept."""

    def on_changed(self, counter, event) -> None:
        """Count."""
        counter.value += event.amount
        counter.changes += 1


class CounterFold(Counting, CounterFoldBase):
    """Folds."""


class CounterInTurnFold(Counting, CounterInTurnFoldBase):
    """Folds."""


class CounterSnappedFold(Counting, CounterSnappedFoldBase):
    """Folds."""


class CounterStoredFold(Counting, CounterStoredFoldBase):
    """Folds."""


class CountersFold(CountersFoldBase):
    """Folds several counters."""

    def on_changed(self, counters, event) -> None:
        """Count."""
        counters.values[event.counter_id] += event.amount
        counters.changes[event.counter_id] += 1


def changed(counter, amount):
    """Give the event that changes a counter."""
    return Changed(
        counter_id=counter.counter_id, amount=amount, value=counter.value + amount, changes=counter.changes + 1
    )


class Commands(TallyCommands):
    """Decides, and says on what."""

    def add(self, request, counter, ctx):
        """Add."""
        yield changed(counter, request.amount)
        return AddResponse(saw=counter.changes)

    def add_in_turn(self, request, counter_in_turn, ctx):
        """Add."""
        yield changed(counter_in_turn, request.amount)
        return AddInTurnResponse(saw=counter_in_turn.changes)

    def add_snapped(self, request, counter_snapped, ctx):
        """Add."""
        yield changed(counter_snapped, request.amount)
        return AddSnappedResponse(saw=counter_snapped.changes)

    def add_stored(self, request, counter_stored, ctx):
        """Add."""
        yield changed(counter_stored, request.amount)
        return AddStoredResponse(saw=counter_stored.changes)

    def take(self, request, counter, ctx):
        """Take what is there."""
        yield changed(counter, -request.amount)
        if counter.value < request.amount:
            raise Rejected("TOO_LITTLE", metadata={"saw": str(counter.changes)})
        return TakeResponse(saw=counter.changes)

    def raise_(self, request, counter, ctx):
        """Raise what stands below."""
        if counter.value < request.amount:
            yield changed(counter, request.amount - counter.value)
        return RaiseResponse(saw=counter.changes)

    def move(self, request, counters, ctx):
        """Move what is there."""
        saw = sum(counters.changes[counter_id] for counter_id in request.counter_ids)
        source, *targets = request.counter_ids
        if counters.values[source] < request.amount * len(targets):
            raise Rejected("TOO_LITTLE", metadata={"saw": str(saw)})
        for counter_id, amount in [(source, -request.amount * len(targets)), *((t, request.amount) for t in targets)]:
            value, changes = counters.values[counter_id] + amount, counters.changes[counter_id] + 1
            yield Changed(counter_id=counter_id, amount=amount, value=value, changes=changes)
        return MoveResponse(saw=saw)


def make_context():
    """Give the tally as a context."""
    folds = [CounterFold(), CounterInTurnFold(), CounterSnappedFold(), CounterStoredFold(), CountersFold()]
    return TallyContext(commands=Commands(), folds=folds)
