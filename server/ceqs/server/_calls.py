"""What a call says besides its request: metadata, checked."""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from ceqs.contract import CommandRpc, decode_moment, decode_token, new_id, value
from ceqs.errors import Denied, Invalid, Unauthenticated, Violation
from ceqs.queries import QueryCall
from ceqs.v1.commands_pb2 import Command

MAX_ID_BYTES = 200
DERIVED = "ceqs:"
"""How the ids begin that the platform derives."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.{1,64})?")
_MAX_DEPTH = 2**31 - 1


@value()
class CommandCall:
    """Who sends a command, and what it follows from."""

    command_id: str
    actor: str = ""
    correlation_id: str = ""
    causation_id: str = ""
    depth: int = 0
    """How many reactions of subscribers lie between the first command and this one."""
    traceparent: str = ""
    derived: bool = False
    """Whether the platform derived the command id."""
    assigned: bool = False
    """Whether nobody gave a command id, so that this process has made one."""
    expires: float | None = None
    """On the clock of time.monotonic()."""


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sends a stream of commands."""

    actor: str
    metadata: Mapping[str, str]
    expires: float | None
    """When the stream ends, on the clock of time.monotonic()."""


class Calls:
    """Reads the metadata of calls. `key` is the context's key; where it is empty, everything private stays shut."""

    def __init__(self, key: str) -> None:
        self._key = key.encode()

    def command(self, rpc: CommandRpc, request: Message, context: Any) -> CommandCall:
        """Read the metadata of a command.

        Raises Invalid for ids that are none, Unauthenticated and Denied where a claim needs the key.
        """
        metadata = metadata_of(context)
        if not metadata and not rpc.command_id_field:
            command_id = new_id()
            return CommandCall(command_id, correlation_id=command_id, assigned=True, expires=expires_of(context))
        given = text(metadata, "ceqs-command-id")
        if not given and "ceqs-command-id" in metadata:
            raise Invalid(
                violations=[Violation("ceqs-command-id", "must not be empty; leave it out to have one assigned")]
            )
        command_id = _command_id(rpc, request, "ceqs-command-id", given)
        causation_id = text(metadata, "ceqs-causation-id")
        depth = metadata.get("ceqs-causation-depth", "")
        if command_id.startswith(DERIVED) or causation_id or depth:
            self.require_key(metadata)
        assigned, command_id = not command_id, command_id or new_id()
        return CommandCall(
            command_id,
            text(metadata, "ceqs-actor"),
            text(metadata, "ceqs-correlation-id") or command_id,
            causation_id,
            _depth(depth),
            _traceparent(metadata.get("traceparent", "")),
            command_id.startswith(DERIVED),
            assigned,
            expires_of(context),
        )

    def sender(self, context: Any) -> Sender:
        """Read the metadata of a stream of commands. Raises Invalid where the actor's name is none."""
        metadata = metadata_of(context)
        return Sender(text(metadata, "ceqs-actor"), metadata, expires_of(context))

    def streamed(
        self, rpc: CommandRpc, request: Message, command: Command, sender: Sender, arrived: float
    ) -> CommandCall:
        """Read what a command of a stream says besides its request. Raises as `command` does.

        `arrived`: when, on the clock of time.monotonic().
        """
        command_id, causation_id, depth = command.command_id, command.causation_id, command.causation_depth
        correlation_id = command.correlation_id
        if command_id or rpc.command_id_field:
            command_id = _command_id(rpc, request, "command_id", checked("command_id", command_id))
        if correlation_id or causation_id:
            checked("correlation_id", correlation_id)
            checked("causation_id", causation_id)
        derived = command_id.startswith(DERIVED)
        if derived or causation_id or depth:
            self.require_key(sender.metadata)
            if depth > _MAX_DEPTH:
                raise Invalid(violations=[Violation("causation_depth", f"must be at most {_MAX_DEPTH}")])
        assigned, command_id = not command_id, command_id or new_id()
        expires = sender.expires
        if command.HasField("timeout"):
            own = arrived + command.timeout.seconds + command.timeout.nanos / 1e9
            expires = own if expires is None else min(own, expires)
        return CommandCall(
            command_id,
            sender.actor,
            correlation_id or command_id,
            causation_id,
            depth,
            _traceparent(command.traceparent),
            derived,
            assigned,
            expires,
        )

    def query(self, context: Any) -> QueryCall:
        """Read the metadata of a query. Raises Invalid where a token or a moment is none."""
        metadata = metadata_of(context)
        token, as_of = metadata.get("ceqs-at-least", ""), metadata.get("ceqs-as-of", "")
        return QueryCall(
            at_least=decode_token(token) if token else {},
            as_of=decode_moment(as_of) if as_of else None,
            expires=expires_of(context),
        )

    def require_key(self, metadata: Mapping[str, str]) -> None:
        """Raise Unauthenticated where the call carries no key, Denied where it is not the context's."""
        given = metadata.get("ceqs-key", "")
        if not given:
            raise Unauthenticated
        if not self._key:
            raise Denied("This server has no key, so nobody may do this. Start it with one (CEQS_KEY).")
        if not hmac.compare_digest(given.encode(), self._key):
            raise Denied


def metadata_of(context: Any) -> dict[str, str]:
    """Give what a call's metadata says to the platform, as text; of a key that comes twice, the last value."""
    pairs: Iterable[tuple[str, str | bytes]] = context.invocation_metadata() or ()
    return {k: v for k, v in pairs if (k == "traceparent" or k.startswith("ceqs-")) and isinstance(v, str)}


def expires_of(context: Any) -> float | None:
    """Give a call's deadline on the clock of time.monotonic()."""
    remaining = context.time_remaining()
    return None if remaining is None else time.monotonic() + remaining


def text(metadata: Mapping[str, str], name: str) -> str:
    """Give a checked value of the metadata; empty where there is none."""
    return checked(name, metadata.get(name, ""))


def checked(field: str, value: str) -> str:
    """Give the value back. Raises Invalid where it is too long for an id or has control characters."""
    if not value or (len(value) <= MAX_ID_BYTES and value.isascii() and value.isprintable()):
        return value
    if len(value.encode()) > MAX_ID_BYTES:
        raise Invalid(violations=[Violation(field, f"must be at most {MAX_ID_BYTES} bytes long")])
    if _CONTROL.search(value):
        raise Invalid(violations=[Violation(field, "must not contain control characters")])
    return value


def _command_id(rpc: CommandRpc, request: Message, name: str, given: str) -> str:
    if not rpc.command_id_field:
        return given
    field = checked(rpc.command_id_field, getattr(request, rpc.command_id_field))
    if given and field and given != field:
        raise Invalid(violations=[Violation(name, f"differs from the request's {rpc.command_id_field}; send one id")])
    return given or field


def _traceparent(text: str) -> str:
    # By its specification, a trace context that is malformed is ignored.
    return text if text and _TRACEPARENT.fullmatch(text) else ""


def _depth(depth: str) -> int:
    if not depth:
        return 0
    if not depth.isascii() or not depth.isdigit() or int(depth[:20]) > _MAX_DEPTH:
        raise Invalid(violations=[Violation("ceqs-causation-depth", "must be a whole number")])
    return int(depth)
