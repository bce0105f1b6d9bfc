"""A package as the checks see it: what it declares, well or badly, and the problems found so far."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor, MethodDescriptor, ServiceDescriptor

from ceqs.codegen._sources import Sources
from ceqs.contract import messages, services
from ceqs.v1 import options_pb2

# Where descriptor.proto keeps the options of a message, a field and a method; and a file's package and options.
MESSAGE_OPTIONS, FIELD_OPTIONS, METHOD_OPTIONS, FILE_PACKAGE, FILE_OPTIONS = 7, 8, 4, 2, 8


@dataclass
class Package:
    """The files of one package."""

    files: Sequence[FileDescriptor]
    sources: Sources
    replaced: frozenset[str] = frozenset()
    """The full names of the events of any package that others have replaced."""
    problems: set[tuple[str, int, str]] = field(default_factory=set[tuple[str, int, str]])

    @property
    def name(self) -> str:
        """The package's name."""
        return self.files[0].package

    @property
    def is_context(self) -> bool:
        """Whether the package declares an event that is still recorded, a state, a model, a command or a query."""
        return bool(self.live or self.states or self.models or self.services)

    @cached_property
    def messages(self) -> list[Descriptor]:
        """Every message, nested ones included."""
        return [one for file in self.files for message in messages(file) for one in _with_nested(message)]

    @cached_property
    def events(self) -> list[Descriptor]:
        """Every message with the event option."""
        return [message for message in self.messages if is_event(message)]

    @cached_property
    def live(self) -> list[Descriptor]:
        """Every event that no other has replaced."""
        return [event for event in self.events if event.full_name not in self.replaced]

    @cached_property
    def public(self) -> dict[str, Descriptor]:
        """What other contexts may hear, by name."""
        return {event.name: event for event in self.live if is_public(event) and event.containing_type is None}

    @property
    def telling(self) -> list[FileDescriptor]:
        """The files that say what other contexts may hear: of which events, and from whom."""
        named = [file for file in self.files if file.GetOptions().HasExtension(options_pb2.context)]
        telling = [event.file.name for event in self.public.values()] + [file.name for file in named]
        return [file for file in self.files if file.name in telling]

    @cached_property
    def states(self) -> list[Descriptor]:
        """Every message with the state option."""
        return [message for message in self.messages if is_state(message)]

    @cached_property
    def models(self) -> list[Descriptor]:
        """Every message with the model option."""
        return [message for message in self.messages if is_model(message)]

    @cached_property
    def services(self) -> list[ServiceDescriptor]:
        """Every service that has a command or a query."""
        every = (service for file in self.files for service in services(file))
        return [service for service in every if any(is_command(m) or is_query(m) for m in service.methods)]

    @cached_property
    def commands(self) -> list[MethodDescriptor]:
        """Every command rpc."""
        return [method for service in self.services for method in service.methods if is_command(method)]

    @cached_property
    def queries(self) -> list[MethodDescriptor]:
        """Every query rpc."""
        return [method for service in self.services for method in service.methods if is_query(method)]

    def at_message(self, message: Descriptor, what: str, *within: int) -> None:
        """Report a problem of a message."""
        self._report(self.sources.line(message.full_name, *within), what)

    def at_event(self, event: Descriptor, what: str, *option: int) -> None:
        """Report a problem of an event option, or of one of its fields."""
        self.at_message(event, what, MESSAGE_OPTIONS, options_pb2.event.number, *option)

    def at_state(self, state: Descriptor, what: str, *option: int) -> None:
        """Report a problem of a state option, or of one of its fields."""
        self.at_message(state, what, MESSAGE_OPTIONS, options_pb2.state.number, *option)

    def at_model(self, model: Descriptor, what: str, *option: int) -> None:
        """Report a problem of a model option, or of one of its fields."""
        self.at_message(model, what, MESSAGE_OPTIONS, options_pb2.model.number, *option)

    def at_field(self, one: FieldDescriptor, what: str, *option: int) -> None:
        """Report a problem of a field; of its field option where one is named."""
        within = (FIELD_OPTIONS, options_pb2.field.number, *option) if option else ()
        self._report(self.sources.line(one.full_name, *within), what)

    def at_rpc(self, rpc: MethodDescriptor, what: str, *option: int) -> None:
        """Report a problem of an rpc; of its command or query option where a field of it is named."""
        extension = options_pb2.command.number if is_command(rpc) else options_pb2.query.number
        self._report(self.sources.line(rpc.full_name, *((METHOD_OPTIONS, extension, *option) if option else ())), what)

    def at_file(self, file: FileDescriptor, what: str, *within: int) -> None:
        """Report a problem of a file."""
        self._report(self.sources.file_line(file.name, *within), what)

    def at(self, name: str, what: str) -> None:
        """Report a problem of whatever has the full name."""
        self._report(self.sources.line(name), what)

    def _report(self, line: str, what: str) -> None:
        file, _, number = line.rpartition(":")
        self.problems.add((file, int(number), what))


def is_event(message: Descriptor) -> bool:
    """Whether the message carries the event option."""
    return message.GetOptions().HasExtension(options_pb2.event)


def is_public(message: Descriptor) -> bool:
    """Whether the message is an event that other services may read."""
    return message.GetOptions().Extensions[options_pb2.event].visibility == options_pb2.VISIBILITY_PUBLIC


def is_state(message: Descriptor) -> bool:
    """Whether the message carries the state option."""
    return message.GetOptions().HasExtension(options_pb2.state)


def is_model(message: Descriptor) -> bool:
    """Whether the message carries the model option: it is a keyed model."""
    return message.GetOptions().HasExtension(options_pb2.model)


def is_process(message: Descriptor) -> bool:
    """Whether the message is the state of a process manager."""
    return message.GetOptions().Extensions[options_pb2.state].process


def is_command(method: MethodDescriptor) -> bool:
    """Whether the rpc carries the command option."""
    return method.GetOptions().HasExtension(options_pb2.command)


def is_query(method: MethodDescriptor) -> bool:
    """Whether the rpc carries the query option."""
    return method.GetOptions().HasExtension(options_pb2.query)


def nearest(name: str, names: Iterable[str]) -> str:
    """Give the hint at the end of a message about an unknown name."""
    names = list(names)
    near = difflib.get_close_matches(name, names, 1)
    return f"did you mean {near[0]}?" if near else f"there is {', '.join(names) or 'none'}"


def _with_nested(message: Descriptor) -> Iterator[Descriptor]:
    yield message
    for nested in message.nested_types:
        yield from _with_nested(nested)
