"""How the handlers of a context are doing."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from sqlalchemy.exc import DBAPIError

from ceqs.errors import Unavailable
from ceqs.model import Context, ProcessManager, Projection, Publisher, Subscriber
from ceqs.projectors._around import Around
from ceqs.projectors._handlers import Handler, ProcessHandler, ReactionHandler
from ceqs.projectors._keyed import projecting
from ceqs.projectors._lease import is_gone, named, now
from ceqs.projectors._outbox import refused_of, tally
from ceqs.projectors._place import Place, reading
from ceqs.projectors._places import Places, places_of
from ceqs.projectors._reader import least_advanced
from ceqs.projectors._retry import said
from ceqs.projectors._tables import CHECKPOINT, aware
from ceqs.projectors._timers import count_timers

MISSING, STAND_BY, CATCHING_UP, LIVE = "missing", "stand-by", "catching-up", "live"
PAUSED, STOPPED, RECORDED = "paused", "stopped", "recorded"


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerStatus:
    """Where a handler stands.

    `state` is `missing` (no place yet), `stand-by` (another process works), `catching-up`, `live`, `paused` or
    `stopped` (both for `reason`); read from a place alone, one that is not paused is `recorded`.
    """

    name: str
    kind: str
    """projection, publisher, subscriber or process"""
    version: int = 1
    source: str
    """The context whose log is followed."""
    state: str
    reason: str = ""
    log_id: str = ""
    position: int = 0
    """A public position where the source is another context."""
    recorded_at: dt.datetime | None = None
    head: int | None = None
    """The log's last position; None where it is not known."""
    skipped: int = 0
    """Events that the handler does not hear."""
    parked: int = 0
    """Events that could not be applied, and those that wait behind them."""
    unsent: int = 0
    """Calls that wait in the outbox."""
    timers: int = 0
    """Timers whose time is yet to come."""
    outcomes: Mapping[str, int] = field(default_factory=dict[str, int])
    """How many calls came to what: `accepted`, `rejected OUT_OF_STOCK`, `failed INVALID_ARGUMENT`; and cancellations of
    timers that came too late: `cancelled TOO_LATE`."""

    fed_by: str = ""
    """The process that writes the place: `process 4711 on host`; read from a place, empty where none does."""

    @property
    def lag(self) -> int | None:
        """How many events the handler is behind the log; None where the head is not known."""
        return None if self.head is None else max(0, self.head - self.position)

    @property
    def refused(self) -> int:
        """How many calls were refused."""
        return refused_of(self.outcomes)


def handlers_of(context: Context, around: Around | None = None) -> list[Handler]:
    """Give every handler of a context that follows a log; `around`: whom those may ask that are to run."""
    around = around or Around(context, {})
    projections: list[Handler] = [_of(context, one) for one in context.projections.values()]
    reactions = (*context.publishers.values(), *context.subscribers.values())
    return projections + [_reacting(handler, context, around) for handler in reactions]


def _reacting(handler: Publisher | Subscriber, context: Context, around: Around) -> Handler:
    if isinstance(handler, ProcessManager):
        return ProcessHandler(handler, context, around)
    return ReactionHandler(handler, context, around)


def versions_of(context: Context, handler: Handler) -> list[Handler]:
    """Give all versions of a projection that a context has."""
    return [handler, *(_of(context, one) for one in context.earlier if one.ceqs_name() == handler.name)]


def _of(context: Context, projection: Projection) -> Handler:
    return projecting(projection, context.decoder_of(projection.ceqs_contract))


async def read_status(
    models_url: str, context: Context, model_urls: Mapping[str, str] = MappingProxyType({})
) -> list[HandlerStatus]:
    """Read from the places where the handlers of a context stand, whether a projector runs or not.

    `model_urls` are those of handlers that have a database of their own. Of a projection that is the place that
    answers, or the newest where none does yet. One that cannot be reached is paused.
    """
    statuses: list[HandlerStatus] = []
    for handler in handlers_of(context):
        places = places_of(model_urls.get(handler.name) or models_url, context.name, handler.name)
        try:
            place = await shown(places) if handler.kind == "projection" else places.at(handler.version)
            statuses.append((place and await status_of(place, handler)) or missing(handler))
        except (Unavailable, OSError) as error:
            unreached = f"its place cannot be reached: {said(error)}"
            statuses.append(replace(missing(handler), state=PAUSED, reason=unreached))
        finally:
            await places.close()
    return statuses


async def shown(places: Places) -> Place | None:
    """Give the place that stands for a projection: the one that answers, or else the newest."""
    newest = next(iter(reversed(await places.known())), None)
    return await places.serving() or (newest.place if newest else None)


def missing(handler: Handler) -> HandlerStatus:
    """Give the status of a handler that has no place yet."""
    return HandlerStatus(
        name=handler.name, kind=handler.kind, version=handler.version, source=handler.contract.context, state=MISSING
    )


async def status_of(place: Place, handler: Handler) -> HandlerStatus | None:
    """Read from its place where a handler stands; None where there is no place."""
    try:
        async with reading(place) as connection:
            if connection is None:
                return None
            held = (CHECKPOINT.c.expires_at > now(place)).label("held")
            row = (await connection.execute(least_advanced(held))).one_or_none()
            unsent, outcomes = await tally(connection)
            timers = await count_timers(connection)
    except DBAPIError:
        return None
    if row is None:
        return None
    return HandlerStatus(
        name=handler.name,
        kind=handler.kind,
        version=place.version,
        source=handler.contract.context,
        state=PAUSED if row.paused_at_all else RECORDED,
        reason=row.paused_at_all,
        log_id=row.log_id,
        position=row.position,
        recorded_at=aware(row.recorded_at),
        skipped=row.skipped_in_all,
        parked=row.parked_in_all,
        unsent=unsent,
        timers=timers,
        outcomes=outcomes,
        fed_by=named(row.holder) if row.held and not is_gone(row.holder) else "",
    )
