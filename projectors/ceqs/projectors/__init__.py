"""What follows the log: projections, publishers and subscribers, each in a place of its own."""

from ceqs.projectors._fill import fill
from ceqs.projectors._operate import Standing, drop, hold, look_over, roll_back, start_rebuild
from ceqs.projectors._outbox import ACCEPTED, REFUSED, SKIPPED, WAITING, Outcome
from ceqs.projectors._parking import GivenUp, Parked, read_given_up, read_parked
from ceqs.projectors._past import Past, PastLimits
from ceqs.projectors._place import Place, place_of
from ceqs.projectors._places import Places, places_of, shape_of
from ceqs.projectors._progress import Progress
from ceqs.projectors._projector import Projector, ProjectorSettings
from ceqs.projectors._reader import Checkpoint, ModelReader
from ceqs.projectors._refused import Call, count_calls, read_calls
from ceqs.projectors._requests import Request, ask
from ceqs.projectors._rows import MESSAGE, key_of, metadata_of, read_rows, stored, table_of
from ceqs.projectors._status import HandlerStatus, read_status
from ceqs.projectors._timers import Timer, read_timers
from ceqs.projectors._upstream import Upstream

__all__ = [
    "ACCEPTED",
    "MESSAGE",
    "REFUSED",
    "SKIPPED",
    "WAITING",
    "Call",
    "Checkpoint",
    "GivenUp",
    "HandlerStatus",
    "ModelReader",
    "Outcome",
    "Parked",
    "Past",
    "PastLimits",
    "Place",
    "Places",
    "Progress",
    "Projector",
    "ProjectorSettings",
    "Request",
    "Standing",
    "Timer",
    "Upstream",
    "ask",
    "count_calls",
    "drop",
    "fill",
    "hold",
    "key_of",
    "look_over",
    "metadata_of",
    "place_of",
    "places_of",
    "read_calls",
    "read_given_up",
    "read_parked",
    "read_rows",
    "read_status",
    "read_timers",
    "roll_back",
    "shape_of",
    "start_rebuild",
    "stored",
    "table_of",
]
