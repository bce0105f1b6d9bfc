"""The handlers of the parcels, and what earlier events mean today."""

# The modules of the parcels are generated when the tests run, so nothing here can be checked before.
# mypy: ignore-errors

from __future__ import annotations

from parcels.v1.parcels_ceqs import (
    NotesFoldBase,
    ParcelCommands,
    ParcelFoldBase,
    ParcelQueries,
    ParcelsContext,
    ParcelsPrivateSubscriber,
    ParcelsPublicUpcasters,
    ParcelsPublisher,
    ParcelsUpcasters,
    WeightsProjection,
)
from parcels.v1.parcels_pb2 import (
    ListWeightsResponse,
    NoteParcelRequest,
    ParcelAnnounced,
    ParcelNoted,
    ParcelSent,
    ParcelWeighed,
    Receiver,
)
from sqlalchemy import select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from ceqs.errors import Rejected


class Earlier(ParcelsUpcasters):
    """Says what events mean today."""

    def parcel_weighed_v1(self, earlier):
        return ParcelWeighed.V2(parcel_id=earlier.parcel_id, grams=round(earlier.pounds * 453.59237))

    def parcel_weighed_v2(self, earlier):
        return ParcelWeighed(parcel_id=earlier.parcel_id, milligrams=earlier.grams * 1000)

    def parcel_dispatched(self, earlier):
        return ParcelSent(parcel_id=earlier.parcel_id, receiver=_receiver(earlier.address))


class EarlierNews(ParcelsPublicUpcasters):
    """Says what public events mean today."""

    def parcel_announced_v1(self, earlier):
        return ParcelAnnounced(parcel_id=earlier.parcel_id, country=_receiver(earlier.address).country)


def _receiver(address):
    name, _, country = address.rpartition(", ")
    return Receiver(name=name, country=country)


class ParcelFold(ParcelFoldBase):
    """Folds a parcel."""

    def on_parcel_weighed(self, parcel, event) -> None:
        parcel.milligrams = event.milligrams

    def on_parcel_sent(self, parcel, event) -> None:
        parcel.receiver.CopyFrom(event.receiver)


class NotesFold(NotesFoldBase):
    """Folds notes."""

    def on_parcel_noted(self, notes, event) -> None:
        notes.texts.append(event.text)


class Commands(ParcelCommands):
    """Decides."""

    def weigh_parcel(self, request, parcel, ctx):
        yield ParcelWeighed(parcel_id=request.parcel_id, milligrams=request.milligrams)

    def send_parcel(self, request, parcel, ctx):
        if not parcel.milligrams:
            raise Rejected("NOT_WEIGHED")
        if parcel.HasField("receiver"):
            raise Rejected("SENT", f"it went to {parcel.receiver.country}")
        yield ParcelSent(parcel_id=request.parcel_id, receiver=request.receiver)

    def note_parcel(self, request, notes, ctx):
        yield ParcelNoted(parcel_id=request.parcel_id, text=request.text)


class Announcer(ParcelsPublisher):
    """Tells others."""

    def on_parcel_sent(self, event, ctx):
        yield ParcelAnnounced(parcel_id=event.parcel_id, country=event.receiver.country)


class Labels(ParcelsPrivateSubscriber):
    """Notes where a parcel goes."""

    def on_parcel_sent(self, event, ctx):
        yield NoteParcelRequest(parcel_id=event.parcel_id, text=f"to {event.receiver.country}")


class Base(DeclarativeBase):
    """The tables of the projection."""


class Weight(Base):
    """What a parcel weighs."""

    __tablename__ = "weights"

    parcel_id: Mapped[str] = mapped_column(primary_key=True)
    milligrams: Mapped[int]


class Weights(WeightsProjection):
    """Knows what parcels weigh."""

    metadata = Base.metadata

    async def on_parcel_weighed(self, session, event, meta) -> None:
        await session.merge(Weight(parcel_id=event.parcel_id, milligrams=event.milligrams))


class Queries(ParcelQueries):
    """Answers."""

    async def list_weights(self, request, session):
        rows = await session.scalars(select(Weight))
        return ListWeightsResponse(milligrams={row.parcel_id: row.milligrams for row in rows})


def make_context(**other):
    """Give the parcels as a context; other handlers than these where they are named."""
    handlers = {
        "commands": Commands(),
        "folds": [ParcelFold(), NotesFold()],
        "projections": [Weights()],
        "publishers": [Announcer()],
        "subscribers": [Labels()],
        "queries": Queries(),
        "upcasters": [Earlier(), EarlierNews()],
    }
    return ParcelsContext(**{**handlers, **other})


parcels = make_context()
