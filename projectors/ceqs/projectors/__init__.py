"""What follows the log: projections, publishers and subscribers, each in a place of its own."""

from ceqs.projectors._place import Place, place_of
from ceqs.projectors._reader import Checkpoint, ModelReader

__all__ = ["Checkpoint", "ModelReader", "Place", "place_of"]
