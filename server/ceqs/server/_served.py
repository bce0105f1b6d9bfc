"""What a server serves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ceqs.log import Log
from ceqs.model import Context
from ceqs.queries import ModelReader, PastReader


@dataclass(frozen=True, slots=True)
class Served:
    """A context with its log; for each of its projections, by name, a reader, and one of its past."""

    context: Context
    log: Log
    models: Mapping[str, ModelReader] = field(default_factory=dict[str, ModelReader])
    past: Mapping[str, PastReader] = field(default_factory=dict[str, PastReader])
