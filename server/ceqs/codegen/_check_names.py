"""Checks of names: those that Python cannot have, and those that two things would share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from keyword import iskeyword

from google.protobuf.descriptor import Descriptor, FileDescriptor

from ceqs.codegen._module import pb2_module
from ceqs.codegen._names import generated_names
from ceqs.codegen._package import FILE_OPTIONS, FILE_PACKAGE, Package
from ceqs.contract import boundary_method, context_name, method_name, snake
from ceqs.errors import Misconfigured
from ceqs.v1 import options_pb2

# What the annotations of generated code mean by these names must stay what they mean.
_TAKEN = {"str", "float", "CONTRACT"}


def check_names(package: Package) -> None:
    """Check the names of a package."""
    _check_files(package)
    _check_shared(package)
    for message in package.messages:
        if message.containing_type is None and (iskeyword(message.name) or message.name in _TAKEN):
            package.at_message(message, f"{message.name} means something else in Python; rename the message")
    context = name_of(package)
    if context is None:
        package.at_file(
            package.files[0],
            f'the package "{package.name}" names no context; name it like shop.orders.v1',
            FILE_PACKAGE,
        )
        return
    file = next((f for f in package.files if _named_by(f)), package.files[0])
    if not re.fullmatch(r"[a-z][a-z0-9_]*", context) or iskeyword(context):
        package.at_file(
            file,
            f'the context "{context}" must be of lower-case letters, digits and underscores, and no word of Python',
            *_name_place(file),
        )
        return
    for other in package.files:
        if _named_by(other) not in ("", context):
            package.at_file(
                other, f'the package is the context "{context}" by {file.name}; keep one name', *_name_place(other)
            )
    _check_generated(package, context)


def check_contexts(packages: Iterable[Package]) -> None:
    """Check that no two packages claim to be one context."""
    owners: dict[str, Package] = {}
    for package in packages:
        context = name_of(package)
        if context is None:
            continue
        owner = owners.setdefault(context, package)
        if owner is not package:
            package.at_file(
                package.files[0],
                f'the packages {owner.name} and {package.name} both are the context "{context}"; name one of them '
                "otherwise: option (ceqs.v1.context).name",
                *_name_place(package.files[0]),
            )


def name_of(package: Package) -> str | None:
    """Give the name of the package's context; None where it has none."""
    try:
        return context_name(package.files) or None
    except Misconfigured:
        return None


def _check_files(package: Package) -> None:
    directory = package.files[0].name.rpartition("/")[0]
    for file in package.files:
        if file.name.rpartition("/")[0] != directory:
            package.at_file(
                file,
                f"the package {package.name} lies in two directories; move this file to {directory}/",
                FILE_PACKAGE,
            )
        *directories, module = pb2_module(file.name).split(".")
        if not module.isidentifier() or any(iskeyword(name) or not name.isidentifier() for name in directories):
            package.at_file(file, f"{file.name} makes no Python module; rename what is no identifier of Python")


def _check_shared(package: Package) -> None:
    """Check the names of methods: those of handlers, and those of the client."""
    handlers: dict[str, Descriptor] = {}
    for event in package.live:
        handler = f"on_{snake(event.name)}"
        other = handlers.setdefault(handler, event)
        if other.name == event.name and other is not event:
            package.at_message(event, f"two events are named {event.name}; rename one")
        elif other is not event:
            package.at_message(event, f"{event.name} and {other.name} are both heard by {handler}; rename one")
    methods: dict[str, str] = {}
    for rpc in (*package.commands, *package.queries):
        method = method_name(rpc.name)
        namesake = methods.setdefault(method, rpc.full_name)
        if namesake != rpc.full_name:
            package.at_rpc(
                rpc,
                f"{_of_service(rpc.full_name)} and {_of_service(namesake)} are both called by {method}; rename one",
            )
    tailors = {boundary_method(rpc.name): rpc for rpc in package.commands}
    for rpc in package.commands:
        method = method_name(rpc.name)
        if method in tailors:
            package.at_rpc(
                rpc,
                f"{_of_service(rpc.full_name)} is called by {method}, which gives the boundary of "
                f"{_of_service(tailors[method].full_name)}; rename one",
            )


def _check_generated(package: Package, context: str) -> None:
    """Check that no class which is generated takes the name of another, or of a message."""
    owners = {m.name: f"the message {m.name}" for m in package.messages if m.containing_type is None}
    for name, full_name, what in generated_names(package, context):
        other = owners.setdefault(name, what)
        if other != what:
            package.at(full_name, f"{what} makes a class {name}, and so does {other}; rename one")


def _named_by(file: FileDescriptor) -> str:
    return file.GetOptions().Extensions[options_pb2.context].name


def _name_place(file: FileDescriptor) -> Sequence[int]:
    return (FILE_OPTIONS, options_pb2.context.number, 1) if _named_by(file) else (FILE_PACKAGE,)


def _of_service(rpc: str) -> str:
    return ".".join(rpc.split(".")[-2:])
