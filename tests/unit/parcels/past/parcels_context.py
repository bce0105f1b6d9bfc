"""The handlers of the parcels as they were at first."""

# The modules of the parcels are generated when the tests run, so nothing here can be checked before.
# mypy: ignore-errors

from __future__ import annotations

from parcels.v1.parcels_ceqs import ParcelCommands, ParcelFoldBase, ParcelsContext, ParcelsPublisher
from parcels.v1.parcels_pb2 import ParcelAnnounced, ParcelDispatched, ParcelWeighed


class ParcelFold(ParcelFoldBase):
    """Folds a parcel."""

    def on_parcel_weighed(self, parcel, event) -> None:
        parcel.pounds = event.pounds

    def on_parcel_dispatched(self, parcel, event) -> None:
        pass


class Commands(ParcelCommands):
    """Decides."""

    def weigh_parcel(self, request, parcel, ctx):
        yield ParcelWeighed(parcel_id=request.parcel_id, pounds=request.pounds)

    def send_parcel(self, request, parcel, ctx):
        yield ParcelDispatched(parcel_id=request.parcel_id, destination=request.address)


class Announcer(ParcelsPublisher):
    """Tells others."""

    def on_parcel_dispatched(self, event, ctx):
        yield ParcelAnnounced(parcel_id=event.parcel_id, address=event.destination)


parcels = ParcelsContext(commands=Commands(), folds=[ParcelFold()], publishers=[Announcer()])
