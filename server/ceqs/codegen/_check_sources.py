"""Checks of projections: each folds one log, its own context's or the public events of one other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from google.protobuf.descriptor import Descriptor, MethodDescriptor

from ceqs.codegen._package import Package, is_event, nearest
from ceqs.contract import tag_fields
from ceqs.v1 import options_pb2

_FOLDS, _SOURCE = 2, 3
_ONE = "a model has one position, that of one log; keep one, and let what it needs of the other enter by a subscriber"


def check_sources(package: Package, packages: Iterable[Package]) -> None:
    """Check whose events the projections of a package fold."""
    others = {other.name: other for other in packages if other is not package}
    for model in package.models:
        _check_model(package, model, others)
    said: dict[str, MethodDescriptor] = {}
    for rpc in package.queries:
        _check_query(package, rpc, others)
        options = rpc.GetOptions().Extensions[options_pb2.query]
        first = said.setdefault(options.projection, rpc)
        one, other = (_source(package, query) for query in (first, rpc))
        if options.projection and one != other:
            package.at_rpc(
                rpc,
                f"{options.projection} folds events of {one} for {first.name}, and of {other} for {rpc.name}: {_ONE}",
                _SOURCE,
            )


def _check_query(package: Package, rpc: MethodDescriptor, others: Mapping[str, Package]) -> None:
    options = rpc.GetOptions().Extensions[options_pb2.query]
    source, what = options.source, ""
    if not source:
        return
    if not options.projection:
        what = f"{rpc.name} names a source, and no projection that folds its events; name one, or drop the source"
    elif any(model.name == options.projection for model in package.models):
        what = f"{options.projection} is a keyed model, whose folds say of which events it is made; drop the source"
    elif source == package.name:
        what = f"{source} is the context of {rpc.name} itself, whose private events are folded anyway; drop the source"
    elif source not in others:
        what = f"{rpc.name} names the source {source}, {_unknown(source, others)}"
    elif not others[source].public:
        what = f"{rpc.name} names the source {source}, which has no public event: there is nothing to fold"
    if what:
        package.at_rpc(rpc, what, _SOURCE)


def _check_model(package: Package, model: Descriptor, others: Mapping[str, Package]) -> None:
    options = model.GetOptions().Extensions[options_pb2.model]
    sources = list(dict.fromkeys(name.rpartition(".")[0] or package.name for name in options.folds))
    if len(sources) > 1:
        package.at_model(model, f"{model.name} folds events of {' and '.join(sources)}: {_ONE}", _FOLDS)
    for index, name in enumerate(options.folds):
        if "." in name and (what := _wrong(package, model, name, options.folds[:index], others)):
            package.at_model(model, what, _FOLDS, index)


def _wrong(
    package: Package, model: Descriptor, full_name: str, before: Sequence[str], others: Mapping[str, Package]
) -> str:
    """Say what is wrong with an event of another context that a model folds."""
    source, _, name = full_name.rpartition(".")
    key = model.GetOptions().Extensions[options_pb2.model].key
    folds = f"{model.name} folds {full_name}"
    if full_name in before:
        return f"{folds} twice; keep one"
    if source not in others:
        return f"{folds}, {f'which is its own; call it {name}' if source == package.name else _unknown(source, others)}"
    public = others[source].public
    if name not in public:
        events = {message.name for message in others[source].messages if is_event(message)}
        if name in events:
            return f"{folds}, which other contexts do not hear: it is private there, or replaced; {nearest('', public)}"
        return f"{folds}, which is no event of {source}; {nearest(name, public)}"
    tagged = not key or key in {tag.key for tag in tag_fields(public[name])}
    return (
        "" if tagged else f"{folds}, which has no tag of its key ({key}); keep rows by a tag that it has, or in tables"
    )


def _source(package: Package, rpc: MethodDescriptor) -> str:
    return rpc.GetOptions().Extensions[options_pb2.query].source or package.name


def _unknown(source: str, others: Mapping[str, Package]) -> str:
    hint = nearest(source, others)
    return f"of which no proto is here; put those beside yours that declare its public events, or {hint}"
