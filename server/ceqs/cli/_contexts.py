"""Finding the contexts that the settings name."""

from __future__ import annotations

import difflib
import importlib
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, Protocol, TypeAlias, TypeVar

from ceqs.cli._settings import FIRST_PORT, Settings
from ceqs.errors import CeqsError, Misconfigured
from ceqs.model import Context


class Named(Protocol):
    """What a context has by name; as text, it is `context/name`."""

    @property
    def name(self) -> str:
        """The name."""
        ...


N = TypeVar("N", bound=Named)
T = TypeVar("T")
RoleName: TypeAlias = Literal["commands", "queries", "events"]


def load_contexts(settings: Settings) -> dict[str, Context]:
    """Import the contexts of the settings, by name in the settings' order.

    Raises Misconfigured where there is none, or an import fails.
    """
    if not settings.contexts:
        raise Misconfigured(
            'no contexts: say where they are, as in contexts = ["shop.orders.context:orders"] under [tool.ceqs] '
            f"of {settings.project / 'pyproject.toml'}; `ceqs new NAME` writes a project to start from"
        )
    # Run as a program, `ceqs` does not see the project that it is called in.
    if str(settings.project) not in sys.path:
        sys.path.insert(0, str(settings.project))
    found: dict[str, Context] = {}
    for where in settings.contexts:
        context = load_context(where)
        if context.name in found:
            raise Misconfigured(f"contexts: {where!r} is a second context named {context.name!r}")
        found[context.name] = context
    _check_names(settings.model_urls, "model_urls", found.values())
    _check_names(settings.partitions, "partitions", found.values())
    return found


def handlers_of(context: Context) -> list[str]:
    """Give the names of a context's projections, publishers and subscribers."""
    return [*context.projections, *context.publishers, *context.subscribers]


def _check_names(names: Iterable[str], setting: str, contexts: Iterable[Context]) -> None:
    known = [(context.name, name) for context in contexts for name in handlers_of(context)]
    for name in names:
        if name not in {part for context, one in known for part in (one, f"{context}/{one}")}:
            near = difflib.get_close_matches(name, [one for _, one in known], 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(one for _, one in known)}"
            raise Misconfigured(f"{setting}: there is no projection, publisher or subscriber {name!r}; {hint}")


def choose(contexts: Mapping[str, T], names: Iterable[str]) -> dict[str, T]:
    """Give those of the names, in the order of the contexts; all where none is named. Raises Misconfigured."""
    names = list(names)
    for name in names:
        if name not in contexts:
            near = difflib.get_close_matches(name, contexts, 1)
            hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(contexts)}"
            raise Misconfigured(f"there is no context {name!r}{hint}")
    return {name: context for name, context in contexts.items() if not names or name in names}


def called(known: Iterable[N], name: str, kind: str) -> list[N]:
    """Give those that a name means: `Sales`, of each context that has one, or `orders/Sales`. Raises Misconfigured.

    `kind` says what they are.
    """
    known = list(known)
    found = [one for one in known if name in {one.name, str(one)}]
    if not found:
        near = difflib.get_close_matches(name, [word for one in known for word in (one.name, str(one))], 1)
        hint = f"did you mean {near[0]}?" if near else f"there is {', '.join(map(str, known)) or 'none'}"
        raise Misconfigured(f"there is no {kind} {name!r}; {hint}")
    return found


def the_one_called(known: Iterable[N], name: str, kind: str) -> N:
    """Give the one that a name means. Raises Misconfigured where it may be several."""
    found = called(known, name, kind)
    if len(found) > 1:
        raise Misconfigured(f"{name} may be {' or '.join(map(str, found))}: say which")
    return found[0]


def load_context(where: str) -> Context:
    """Import the context at `package.module:attribute`."""
    module_name, colon, attribute = where.partition(":")
    if not (module_name and colon and attribute):
        raise Misconfigured(f"contexts: {where!r} is not of the form package.module:attribute")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise Misconfigured(f"contexts: {where!r}: there is no module {error.name!r}{_hint(error.name)}") from error
    except CeqsError as error:
        raise Misconfigured(f"contexts: {where!r}: {error.message}") from error
    except Exception as error:
        # The user's module may raise anything; the line where it did is what they need.
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = (
            f"{error.filename}:{error.lineno}" if isinstance(error, SyntaxError) else f"{frame.filename}:{frame.lineno}"
        )
        raise Misconfigured(f"contexts: {where!r}: {place}: {type(error).__name__}: {error}") from error
    context = getattr(module, attribute, None)
    if context is None:
        named = [name for name, value in vars(module).items() if isinstance(value, Context)]
        hint = f"; its contexts: {', '.join(named)}" if named else ""
        raise Misconfigured(f"contexts: {where!r}: {module_name} has no {attribute!r}{hint}")
    if not isinstance(context, Context):
        raise Misconfigured(f"contexts: {where!r} is no context, but of type {type(context).__name__}")
    return context


def addresses_of(settings: Settings, contexts: Sequence[str], role: RoleName = "commands") -> dict[str, str]:
    """Give the address `host:port` of each context, of which `contexts` are all the project's, in order.

    It is where a role is served. Queries and events are served where commands are, unless the settings say otherwise.
    """
    for setting in ("addresses", "query_addresses", "event_addresses"):
        for name in getattr(settings, setting):
            if name not in contexts:
                raise Misconfigured(f"{setting}: there is no context {name!r}; there are {', '.join(contexts)}")
    apart = {"queries": settings.query_addresses, "events": settings.event_addresses}.get(role, {})
    usual = {name: f"127.0.0.1:{FIRST_PORT + index}" for index, name in enumerate(contexts)}
    return {name: apart.get(name) or settings.addresses.get(name) or usual[name] for name in contexts}


def _hint(missing: str | None) -> str:
    if missing and missing.endswith(("_pb2", "_ceqs", "_client")):
        return "; generate it: ceqs gen"
    return "; is the project installed (pip install -e .)?"
