"""What a server serves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from ceqs.client import Services
from ceqs.errors import Misconfigured
from ceqs.log import Log, LogReader
from ceqs.model import Context
from ceqs.queries import Around, ModelReader, PastReader


@dataclass(frozen=True, slots=True)
class Served:
    """A context with its log; for each of its projections, by name, a reader, and one of its past.

    Serving commands takes a `Log`.
    """

    context: Context
    log: LogReader
    models: Mapping[str, ModelReader] = field(default_factory=dict[str, ModelReader])
    past: Mapping[str, PastReader] = field(default_factory=dict[str, PastReader])
    around: Around = field(default_factory=Around)
    """Who carries on what is recorded, and whom this context hears."""
    services: Services | None = None
    """Other services, for aggregators."""

    @property
    def writable(self) -> Log:
        """The log, to be written. Raises Misconfigured where it was opened for reading only."""
        if not hasattr(self.log, "append_all"):
            raise Misconfigured(f"the log of {self.context.name} is opened for reading, and commands write it")
        return cast("Log", self.log)
