"""What follows the log: projections, publishers and subscribers, each in a place of its own."""

from ceqs.projectors._fill import fill
from ceqs.projectors._place import Place, place_of
from ceqs.projectors._places import Places, places_of
from ceqs.projectors._projector import Projector, ProjectorSettings
from ceqs.projectors._reader import Checkpoint, ModelReader
from ceqs.projectors._status import HandlerStatus, read_status

__all__ = [
    "Checkpoint",
    "HandlerStatus",
    "ModelReader",
    "Place",
    "Places",
    "Projector",
    "ProjectorSettings",
    "fill",
    "place_of",
    "places_of",
    "read_status",
]
