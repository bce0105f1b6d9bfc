"""The fingerprint of a fold: what tells the states that it folds from those of every other fold."""

from __future__ import annotations

import functools
import hashlib
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, cast

from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto
from google.protobuf.message import Message

from ceqs.contract import StateType


def fingerprint(
    state: StateType, methods: Mapping[str, Callable[..., Any]], upcasts: Mapping[str, Callable[..., Any]]
) -> str:
    """Hash whatever decides what a fold makes of the same events. Equal hashes mean equal states.

    That is the state's message and its boundary; the events that it lists, with their versions and their earlier
    forms; the fold's `version`; and the code of the fold and of the upcasters: their classes, their attributes, and
    every function, class, constant and message type that this code names in its turn, in the fold's own package and in
    all others that are not installed libraries.

    Four things it cannot see: a change within an installed library or within ceqs, what is named by computing
    (`getattr(rules, kind)`) or imported within a function, what a module's attribute becomes after the start, and what
    code reads from outside (the environment, files, the time), which no fold should do. Whoever changes one of these
    raises `Fold.version`.

    It errs on the safe side: another Python, or a constant that changes nothing, gives another hash, and states are
    folded again from their first event.
    """
    walk = _Walk(_top(next((_module(method) for method in methods.values()), "")))
    walk.say("state", state.full_name, *state.boundary)
    walk.message(state.message.DESCRIPTOR)
    for event in state.folds:
        walk.say("event", event.full_name, event.version)
        walk.message(event.message.DESCRIPTOR)
        for form in event.earlier:
            walk.say("earlier", form.type_name, form.version)
            walk.message(form.message.DESCRIPTOR)
    for name, method in sorted(methods.items()):
        walk.say("method", name, getattr(getattr(method, "__self__", None), "version", 1))
        walk.value(method)
    for name, upcast in sorted(upcasts.items()):
        walk.say("upcast", name)
        walk.value(upcast)
    return walk.digest.hexdigest()


class _Walk:
    """Hashes what it is shown, and all that this refers to. Each thing once: the second time its number will do."""

    def __init__(self, package: str) -> None:
        self.digest = hashlib.sha256()
        self._package = package
        self._seen: dict[int, int] = {}
        self._held: list[object] = []
        self._searched: set[tuple[str, tuple[str, ...]]] = set()

    def say(self, *words: object) -> None:
        """Hash words, each apart from the next."""
        for word in words:
            text = repr(word).encode(errors="surrogatepass")
            self.digest.update(b"%d:%b" % (len(text), text))

    def message(self, descriptor: Any) -> None:
        """Hash the declaration of a message, and of all messages and enums in it. How a state is tailored is not it."""
        if not self._first(descriptor):
            return
        declared = DescriptorProto()
        descriptor.CopyToProto(declared)
        declared.ClearField("options")
        self.say("message", descriptor.full_name, declared.SerializeToString(deterministic=True))
        for field in descriptor.fields:
            if field.message_type is not None:
                self.message(field.message_type)
            elif field.enum_type is not None:
                self._enum(field.enum_type)

    def value(self, value: Any) -> None:
        """Hash anything that code can name."""
        if value is None or isinstance(value, bool | int | float | complex | str | bytes):
            self.say(value)
        elif isinstance(value, CodeType):
            self._code(value)
        elif isinstance(value, tuple | frozenset):
            # Whether equal constants are one object differs from process to process.
            self._container(cast("Collection[object]", value))
        elif self._first(value):
            self._object(value)

    def _first(self, value: object) -> bool:
        """Whether this is seen for the first time. What was seen is held, for another could take its address."""
        number = self._seen.setdefault(id(value), len(self._held))
        if number < len(self._held):
            self.say("again", number)
            return False
        self._held.append(value)
        return True

    def _container(self, value: Collection[object]) -> None:
        self.say(type(value).__name__, len(value))
        if isinstance(value, AbstractSet):
            # Their order changes from process to process.
            value = sorted(value, key=repr)
        parts: Iterable[object] = cast("Mapping[object, object]", value).items() if isinstance(value, dict) else value
        for one in parts:
            self.value(one)

    def _object(self, value: Any) -> None:
        descriptor = getattr(value, "DESCRIPTOR", None)
        if isinstance(value, list | set | dict):
            self._container(cast("Collection[object]", value))
        elif isinstance(value, FunctionType):
            self._function(value)
        elif (parts := _parts(value)) is not None:
            self.value(parts)
        elif isinstance(value, Message):
            self.say(value.SerializeToString(deterministic=True))
            self.message(descriptor)
        elif isinstance(value, type) and issubclass(value, Message):
            self.message(descriptor)
        elif hasattr(descriptor, "values_by_number"):
            self._enum(descriptor)
        elif isinstance(value, type):
            self._class(value)
        else:
            self._instance(value)

    def _function(self, function: FunctionType) -> None:
        if not self._is_ours(function.__module__):
            self.say(function.__module__, function.__qualname__)
            return
        code = function.__code__
        self._code(code, function.__doc__)
        self.value(function.__defaults__)
        self.value(function.__kwdefaults__)
        # A cell is empty where the function refers to what is defined after it.
        for cell in function.__closure__ or ():
            self.value(None if _is_empty(cell) else cell.cell_contents)
        self._named(tuple(dict.fromkeys(_names(code))), function.__globals__)

    def _named(self, names: tuple[str, ...], scope: Mapping[str, Any]) -> None:
        """Hash what the names stand for in a scope; for a module of ours, what they stand for in it as well."""
        for name in names:
            if name not in scope:
                continue
            found = scope[name]
            self.say("name", name)
            if not isinstance(found, ModuleType):
                self.value(found)
            elif self._is_ours(found.__name__) and (found.__name__, names) not in self._searched:
                self._searched.add((found.__name__, names))
                self._named(names, vars(found))

    def _code(self, code: CodeType, doc: str | None = None) -> None:
        self.say("code", code.co_code, code.co_names, code.co_freevars, code.co_argcount, code.co_exceptiontable)
        constants = code.co_consts[1:] if doc is not None and code.co_consts[:1] == (doc,) else code.co_consts
        for constant in constants:
            self.value(constant)

    def _class(self, cls: type) -> None:
        self.say("class", cls.__module__, cls.__qualname__)
        if not self._is_ours(cls.__module__):
            return
        for base in cls.__bases__:
            self.value(base)
        for name, attribute in sorted(vars(cls).items()):
            # Python's own notes on a class, some in an order that changes from process to process, are not its code.
            if isinstance(attribute, FunctionType) or not (name.startswith("__") or name == "_abc_impl"):
                self.say("attribute", name)
                self.value(attribute)

    def _instance(self, value: Any) -> None:
        self.value(type(value))
        if self._is_ours(type(value).__module__):
            for name, attribute in sorted(getattr(value, "__dict__", {}).items()):
                self.say("attribute", name)
                self.value(attribute)
        elif type(value).__module__ in _PLAIN:
            self.say(value)

    def _enum(self, descriptor: Any) -> None:
        declared = EnumDescriptorProto()
        descriptor.CopyToProto(declared)
        self.say("enum", descriptor.full_name, declared.SerializeToString(deterministic=True))

    def _is_ours(self, module: str) -> bool:
        """Whether a module belongs to the project, and not to an installed library, to Python or to the platform."""
        top = _top(module)
        if top == self._package:
            return True
        file = getattr(sys.modules.get(module), "__file__", None) or ""
        installed = "site-packages" in file or "dist-packages" in file
        return bool(file) and not installed and top not in sys.stdlib_module_names and top != "ceqs"


_PLAIN = frozenset({"decimal", "datetime", "fractions", "uuid"})
"""Modules of values whose text says all of them."""


_WRAPPERS: tuple[tuple[type, tuple[str, ...]], ...] = (
    (MethodType, ("__func__", "__self__")),
    (staticmethod, ("__func__",)),
    (classmethod, ("__func__",)),
    (property, ("fget", "fset")),
    (functools.cached_property, ("func",)),
    (functools.partial, ("func", "args", "keywords")),
    (re.Pattern, ("pattern", "flags")),
)
"""What is wrapped, and where."""


def _parts(value: object) -> tuple[object, ...] | None:
    """Give what a wrapper is made of; None for anything else."""
    for kind, names in _WRAPPERS:
        if isinstance(value, kind):
            return tuple(getattr(value, name) for name in names)
    wrapped: object = getattr(value, "__wrapped__", None)
    return None if wrapped is None else (wrapped,)


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _module(method: Callable[..., Any]) -> str:
    owner = getattr(method, "__self__", None)
    return type(owner).__module__ if owner is not None else method.__module__


def _top(module: str) -> str:
    return module.partition(".")[0]


def _is_empty(cell: Any) -> bool:
    try:
        return cell.cell_contents is None
    except ValueError:
        return True
