"""The configuration: `[tool.ceqs]` of the nearest pyproject.toml, every value overridable by `CEQS_*`."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PrivateAttr, ValidationError
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from ceqs.errors import Misconfigured

FIRST_PORT = 50051
"""The port of the first context; each further one takes the next."""
PREFIX = "CEQS_"


def _listed(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _mapped(value: Any) -> Any:
    if isinstance(value, str):
        return dict(part.partition("=")[::2] for part in _listed(value))
    return {k: f"127.0.0.1:{v}" if isinstance(v, int) else v for k, v in value.items()} if value else value


class Settings(BaseSettings):
    """What every role of a project starts from. In the environment, lists are `a,b` and tables `name=value,...`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    contexts: Annotated[list[str], NoDecode, BeforeValidator(_listed)] = []
    """Where the contexts are: `package.module:attribute`, in the order of their ports."""
    addresses: Annotated[dict[str, str], NoDecode, BeforeValidator(_mapped)] = {}
    """Where contexts are served, `host:port` by name; those without one get 50051 and the ports after it."""
    query_addresses: Annotated[dict[str, str], NoDecode, BeforeValidator(_mapped)] = {}
    event_addresses: Annotated[dict[str, str], NoDecode, BeforeValidator(_mapped)] = {}
    """Where queries and events of contexts are served by processes of their own (`ceqs serve --role queries`)."""
    data: Path = Path(".ceqs")
    """The directory of logs, query models, streams and of what `ceqs dev` writes."""
    store: Literal["sqlite", "postgres"] = "sqlite"
    database_url: str = ""
    """Where the store is postgres: `postgresql://user@host:port/database`, for logs and query models."""
    model_urls: Annotated[dict[str, str], NoDecode, BeforeValidator(_mapped)] = {}
    """Databases of their own for projections, publishers and subscribers, by name (`Sales`, or `orders/Sales`):
    `postgresql://...` or `sqlite:///ABSOLUTE/DIRECTORY`. One that is down stops those that are in it only."""
    read_url: str = ""
    """Where processes that only read find the same as in `database_url`: a user who may only read, or a replica."""
    scratch_url: str = ""
    """Where models of the past are replayed, as the store has it: `sqlite:///ABSOLUTE/DIRECTORY` or `postgresql://...`;
    by default in the directory `data`, or in the database."""
    scratch_megabytes: Annotated[int, Field(ge=1)] = 1024
    """How large a model of the past may become."""
    scratch_seconds: Annotated[float, Field(gt=0)] = 60.0
    """How long a replay may take."""
    scratch_minutes: Annotated[float, Field(gt=0)] = 10.0
    """How long a model of the past is kept that nobody asks."""
    nats_url: str = "nats://127.0.0.1:4222"
    """The nats-server, or several of a cluster: `nats://one:4222,nats://two:4222`."""
    stream_days: Annotated[float, Field(ge=0)] = 0
    stream_messages: Annotated[int, Field(ge=0)] = 0
    stream_megabytes: Annotated[int, Field(ge=0)] = 0
    """What each stream keeps at most; 0 is no limit. The log keeps everything: who needs more reads it."""
    stream_replicas: Annotated[int, Field(ge=1, le=5)] = 1
    """On how many servers of a cluster each stream lies."""
    processes: Annotated[int, Field(ge=1)] = 1
    """How many processes `ceqs serve` runs behind each address; more than one where the store is postgres."""
    key: str = ""
    """The key for private events and administration. `ceqs dev` makes one."""
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    """PEM files; without them a server listens on the loopback interface only."""
    grace: Annotated[float, Field(ge=0)] = 10.0
    """Seconds that running calls have to finish when a process is asked to end."""
    proto: Path = Path("proto")
    generated: Path = Path("generated/python")
    """The directories that `ceqs gen` reads and writes."""
    _project: Path = PrivateAttr(default_factory=Path.cwd)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the environment before the file, whose values are passed as arguments."""
        return env_settings, init_settings

    def at(self, project: Path) -> Settings:
        """Give these settings as those of the project in a directory."""
        self._project = project
        return self

    @property
    def project(self) -> Path:
        """The directory of pyproject.toml; relative paths start there."""
        return self._project

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

    def reading(self) -> Settings:
        """Give the settings of a process that only reads."""
        return self.model_copy(update={"database_url": self.read_url or self.database_url})

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
    table = _table(file) if file else {}
    where = f"{file}: [tool.ceqs]" if file else "the environment"
    _check_environment()
    try:
        return Settings(**table).at(file.parent if file else Path.cwd())
    except ValidationError as error:
        raise Misconfigured("; ".join(_explain(where, dict(detail)) for detail in error.errors())) from None
    except SettingsError as error:
        raise Misconfigured(f"the environment: {error}") from None


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


def _table(file: Path) -> dict[str, Any]:
    table: dict[str, Any] = _read(file)["tool"]["ceqs"]
    return table


def _names() -> list[str]:
    return list(Settings.model_fields)


def _check_environment() -> None:
    known = [PREFIX + name.upper() for name in _names()]
    for name in os.environ:
        # Only near misses: the prefix is not ours alone (Kubernetes sets CEQS_SERVICE_HOST for a service "ceqs").
        near = difflib.get_close_matches(name, known, 1, cutoff=0.85) if name.startswith(PREFIX) else []
        if near and name not in known:
            raise Misconfigured(f"the environment: {name}: unknown setting; did you mean {near[0]}?")


def _explain(where: str, detail: Mapping[str, Any]) -> str:
    name = ".".join(map(str, detail["loc"]))
    if detail["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, _names(), 1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(_names())}"
        return f"{where} {name}: unknown setting{hint}"
    if PREFIX + name.partition(".")[0].upper() in os.environ:
        where, name = "the environment:", PREFIX + name.upper()
    return f"{where} {name}: {detail['msg'].lower()}, not {detail['input']!r}"
