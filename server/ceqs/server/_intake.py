"""Reading commands: from the bytes of a call to what is decided upon, many at a time."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

from google.protobuf.message import Message

from ceqs.contract import CommandRpc
from ceqs.model import Context
from ceqs.server._batch import LONGEST_TURN, TOGETHER, Queued
from ceqs.server._decode import Decoded, Decoder, canonical

TOGETHER_BYTES = 64 * 1024
"""Of how many bytes commands are read together, beside TOGETHER of them."""


class Intake:
    """Reads the commands of one context."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._decoders = {rpc.path: Decoder(rpc.request, strict=True) for rpc in context.contract.commands.values()}

    def decode(self, rpc: CommandRpc, raw: bytes) -> Message:
        """Give a request. Raises Invalid where it is malformed."""
        return self._decoders[rpc.path](raw)

    def read(self, command: Queued) -> None:
        """Read a command before it is queued. Raises what is wrong with it."""
        request = self.decode(command.rpc, command.raw)
        self.take(command, (request, canonical(request)))

    def read_all(self, batch: Sequence[Queued]) -> tuple[Sequence[Queued], Sequence[Queued]]:
        """Read commands, the first at least, for as long as others can be kept waiting; give them, and the rest."""
        ready: list[Queued] = []
        end = time.monotonic() + LONGEST_TURN
        looked_at = 0
        for some in _parted(batch):
            decoded = self._decode_all(command for command in some if not command.content_hash)
            for command in some:
                looked_at += 1
                if command.content_hash or self._is_read(command, decoded[command]):
                    ready.append(command)
                if time.monotonic() > end:
                    return ready, batch[looked_at:]
        return ready, ()

    def _decode_all(self, commands: Iterable[Queued]) -> Mapping[Queued, Decoded | Exception]:
        """Give the requests of commands, or what is wrong with them."""
        by_rpc: dict[str, list[Queued]] = {}
        for command in commands:
            by_rpc.setdefault(command.rpc.path, []).append(command)
        found: dict[Queued, Decoded | Exception] = {}
        for path, of_rpc in by_rpc.items():
            decoded = self._decoders[path].all([command.raw for command in of_rpc])
            found.update(zip(of_rpc, decoded, strict=True))
        return found

    def _is_read(self, command: Queued, decoded: Decoded | Exception) -> bool:
        """Read a command; where that fails, it is answered."""
        try:
            if isinstance(decoded, Exception):
                raise decoded  # to be answered like any other
            self.take(command, decoded)
        except Exception as error:  # noqa: BLE001  # the caller's answer
            if not command.done():
                command.set_exception(error)
            return False
        return True

    def take(self, command: Queued, decoded: Decoded) -> None:
        """Take in a command's request, and what its call says. Raises what is wrong with them."""
        command.request = request = decoded[0]
        command.call = call = command.says(request)
        command.boundary = self._context.boundary(command.rpc, request)
        command.content_hash = content_hash(command.rpc, decoded, call.actor)


def content_hash(rpc: CommandRpc, decoded: Decoded, actor: str) -> bytes:
    """Give the hash by which a repeated command is told from another one under the same id."""
    request, content = decoded
    if rpc.command_id_field and getattr(request, rpc.command_id_field):
        bare = type(request)()
        bare.CopyFrom(request)
        bare.ClearField(rpc.command_id_field)
        content = canonical(bare)
    return hashlib.sha256(_hashed_first(rpc.path, actor) + content).digest()


def _parted(batch: Sequence[Queued]) -> Iterator[Sequence[Queued]]:
    """Part a batch into what is read together."""
    start = size = 0
    for end, command in enumerate(batch, 1):
        size += len(command.raw)
        if end == len(batch) or end - start == TOGETHER or size > TOGETHER_BYTES:
            yield batch[start:end]
            start, size = end, 0


@lru_cache(maxsize=1024)
def _hashed_first(path: str, actor: str) -> bytes:
    # Neither a path nor an actor has a NUL in it.
    return f"{path}\0{actor}\0".encode()
