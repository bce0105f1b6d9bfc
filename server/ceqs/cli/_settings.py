"""The configuration: `[tool.ceqs]` of the nearest pyproject.toml, every value overridable by `CEQS_*`."""

from __future__ import annotations

import difflib
import os
import tomllib
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from ceqs.cli._values import Range, read_value
from ceqs.errors import Misconfigured

FIRST_PORT = 50051
"""The port of the first context; each further one takes the next."""
PREFIX = "CEQS_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What every role of a project starts from. In the environment, lists are `a,b` and tables `name=value,...`."""

    contexts: list[str] = field(default_factory=list[str])
    """Where the contexts are: `package.module:attribute`, in the order of their ports."""
    addresses: dict[str, str] = field(default_factory=dict[str, str])
    """Where contexts are served, `host:port` by name; those without one get 50051 and the ports after it."""
    query_addresses: dict[str, str] = field(default_factory=dict[str, str])
    event_addresses: dict[str, str] = field(default_factory=dict[str, str])
    """Where queries and events of contexts are served by processes of their own (`ceqs serve --role queries`)."""
    data: Path = Path(".ceqs")
    """The directory of logs, query models, streams and of what `ceqs dev` writes."""
    store: Literal["sqlite", "postgres"] = "sqlite"
    database_url: str = ""
    """Where the store is postgres: `postgresql://user@host:port/database`, for logs and query models."""
    model_urls: dict[str, str] = field(default_factory=dict[str, str])
    """Databases of their own for projections, publishers and subscribers, by name (`Sales`, or `orders/Sales`):
    `postgresql://...` or `sqlite:///ABSOLUTE/DIRECTORY`. One that is down stops those that are in it only."""
    partitions: dict[str, int] = field(default_factory=dict[str, int])
    """How many workers a projection has in each process, by name (`Sales`, or `orders/Sales`): of those that declare
    `partition_by`, on PostgreSQL. They share the keys among them."""
    read_url: str = ""
    """Where processes that only read find the same as in `database_url`: a user who may only read, or a replica."""
    scratch_url: str = ""
    """Where models of the past are replayed, as the store has it: `sqlite:///ABSOLUTE/DIRECTORY` or `postgresql://...`;
    by default in the directory `data`, or in the database."""
    scratch_megabytes: Annotated[int, Range(least=1)] = 1024
    """How large a model of the past may become."""
    scratch_seconds: Annotated[float, Range(above=0)] = 60.0
    """How long a replay may take."""
    scratch_minutes: Annotated[float, Range(above=0)] = 10.0
    """How long a model of the past is kept that nobody asks."""
    nats_url: str = "nats://127.0.0.1:4222"
    """The nats-server, or several of a cluster: `nats://one:4222,nats://two:4222`."""
    stream_days: Annotated[float, Range(least=0)] = 0
    stream_messages: Annotated[int, Range(least=0)] = 0
    stream_megabytes: Annotated[int, Range(least=0)] = 0
    """What each stream keeps at most; 0 is no limit. The log keeps everything: who needs more reads it."""
    stream_replicas: Annotated[int, Range(least=1, most=5)] = 1
    """On how many servers of a cluster each stream lies."""
    processes: Annotated[int, Range(least=1)] = 1
    """How many processes `ceqs serve` runs behind each address; more than one where the store is postgres."""
    purge_hours: Annotated[float, Range(least=0)] = 1.0
    """Hours from one pass to the next in which a server forgets commands that its log no longer promises to remember
    (`ceqs log remember`); 0: only `ceqs log purge` does."""
    key: str = ""
    """The key for private events and administration. `ceqs dev` makes one."""
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    """PEM files; without them a server listens on the loopback interface only."""
    grace: Annotated[float, Range(least=0)] = 10.0
    """Seconds that running calls have to finish when a process is asked to end."""
    proto: Path = Path("proto")
    generated: Path = Path("generated/python")
    """The directories that `ceqs gen` reads and writes."""
    project: Path = field(default_factory=Path.cwd)
    """The directory of pyproject.toml; relative paths start there. It is found, not set."""

    def path(self, path: Path) -> Path:
        """Give a path of the settings as an absolute one."""
        return (self.project / path).resolve()

    def log_url(self, context: str) -> str:
        """Where the event log of a context is, as `ceqs.log.open_log` takes it."""
        return self._url(Path("logs", f"{context}.db"))

    @property
    def models_url(self) -> str:
        """Where the query models are that have no database of their own, as `ceqs.projectors.place_of` takes it."""
        return self._url(Path("models"))

    def models_url_of(self, context: str, name: str) -> str:
        """Where the places of a projection, publisher or subscriber are."""
        return self.model_urls.get(f"{context}/{name}") or self.model_urls.get(name) or self.models_url

    def partitions_of(self, context: str, name: str) -> int:
        """How many workers a projection has."""
        return self.partitions.get(f"{context}/{name}") or self.partitions.get(name) or 1

    def reading(self) -> Settings:
        """Give the settings of a process that only reads."""
        return replace(self, database_url=self.read_url or self.database_url)

    @property
    def past_url(self) -> str:
        """Where models of the past are replayed, as `ceqs.projectors.Past` takes it."""
        return self.scratch_url or self._url(Path("scratch"))

    def _url(self, part: Path) -> str:
        if self.store == "sqlite":
            return f"sqlite:///{self.path(self.data) / part}"
        if not self.database_url:
            raise Misconfigured('store = "postgres" needs a database_url (or CEQS_DATABASE_URL): postgresql://...')
        return self.database_url


def load_settings(start: Path | None = None) -> Settings:
    """Read the settings of the project that a directory (default: the current one) belongs to.

    Raises Misconfigured, naming the setting, for one that is unknown or has no valid value.
    """
    file = find_pyproject(start or Path.cwd())
    table: dict[str, Any] = _read(file)["tool"]["ceqs"] if file else {}
    _check_environment()
    kinds, values, wrong = kinds_of_settings(), dict[str, Any](), list[str]()
    for name in dict.fromkeys([*kinds, *table]):
        if name not in kinds:
            wrong.append(f"{file}: [tool.ceqs] {name}: unknown setting{_hint(name)}")
            continue
        variable = PREFIX + name.upper()
        found: Any = os.environ.get(variable, table.get(name))
        if found is None:
            continue
        try:
            values[name] = read_value(kinds[name], found)
        except ValueError as error:
            where = f"the environment: {variable}" if variable in os.environ else f"{file}: [tool.ceqs] {name}"
            wrong.append(f"{where}: {error}, not {found!r}")
    if wrong:
        raise Misconfigured("; ".join(wrong))
    return Settings(project=file.parent if file else Path.cwd(), **values)


@cache
def kinds_of_settings() -> dict[str, Any]:
    """Give the types of the settings by name."""
    hints = get_type_hints(Settings, include_extras=True)
    return {one.name: hints[one.name] for one in fields(Settings) if one.name != "project"}


def find_pyproject(start: Path) -> Path | None:
    """Give the nearest pyproject.toml with a table `[tool.ceqs]`, upwards from a directory."""
    for directory in (start.resolve(), *start.resolve().parents):
        file = directory / "pyproject.toml"
        if file.is_file() and "ceqs" in _read(file).get("tool", {}):
            return file
    return None


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise Misconfigured(f"{file}: cannot be read: {error}") from error


def _check_environment() -> None:
    known = [PREFIX + name.upper() for name in kinds_of_settings()]
    for name in os.environ:
        # Only near misses: the prefix is not ours alone (Kubernetes sets CEQS_SERVICE_HOST for a service "ceqs").
        near = difflib.get_close_matches(name, known, 1, cutoff=0.85) if name.startswith(PREFIX) else []
        if near and name not in known:
            raise Misconfigured(f"the environment: {name}: unknown setting; did you mean {near[0]}?")


def _hint(name: str) -> str:
    known = list(kinds_of_settings())
    near = difflib.get_close_matches(name, known, 1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else f"; there are {', '.join(known)}"
