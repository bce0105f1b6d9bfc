"""What a server serves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ceqs.log import Log
from ceqs.model import Context
from ceqs.queries import ModelReader


@dataclass(frozen=True, slots=True)
class Served:
    """A context with its log, and a reader for each of its projections by name."""

    context: Context
    log: Log
    models: Mapping[str, ModelReader] = field(default_factory=dict[str, ModelReader])
