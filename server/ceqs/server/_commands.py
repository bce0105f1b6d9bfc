"""A command's way: load the state, decide, append if the boundary has not moved, answer with the receipt."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakValueDictionary

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from ceqs.contract import CommandRpc, Locking, bucket_of, new_id, tags_of
from ceqs.errors import CeqsError, Conflict, Misconfigured
from ceqs.log import Appended, Condition, Entry, Log, NewEvent
from ceqs.model import Admission, Boundary, Context, Decided, Decision, boundary_of, decide
from ceqs.queries import Known, States
from ceqs.server._calls import CommandCall
from ceqs.server._decode import violations_of
from ceqs.v1.answers_pb2 import Receipt

ATTEMPTS = 16
"""How often a command is decided before its caller hears of the conflict."""
LONGEST_PAUSE = 0.1
"""The longest pause between two attempts, in seconds."""


@dataclass(frozen=True, slots=True)
class Executed:
    """An accepted command: the response, which carries the receipt where it has a field for it."""

    response: Message
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class _Command:
    rpc: CommandRpc
    request: Message
    call: CommandCall
    boundary: Boundary
    content_hash: bytes


class _Misguided(Exception):
    """A decision failed on a state that was only guessed."""


class CommandExecutor:
    """Executes the commands of one context against its log.

    A decision is taken on the state that is known and judged by the log: it counts only if no event of its boundary
    was recorded since, whoever wrote it. That holds for refusals and for decisions without events as well.
    """

    def __init__(
        self,
        context: Context,
        log: Log,
        states: States | None = None,
        *,
        ids: Callable[[], str] = new_id,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._context = context
        self._log = log
        self._states = states or States(context, log)
        self._new_id = ids
        self._clock = clock
        self._beginning: set[str] = set()
        """The rpcs whose last new boundary had no event: what they address next is likely to have none either."""
        self._turns: WeakValueDictionary[Any, asyncio.Lock] = WeakValueDictionary()

    async def execute(self, rpc: CommandRpc, request: Message, call: CommandCall) -> Executed:
        """Execute a command, or give the receipt that its id already has.

        Raises Invalid, Conflict, DuplicateCommand, Expired, Overloaded, LogUnavailable, and what the handler refuses
        with (Rejected). Nothing was appended then. Any other error is the handler's or the fold's own.
        """
        boundary = boundary_of(rpc.state, rpc.tags, request)
        command = _Command(rpc, request, call, boundary, content_hash(rpc, request, call.actor))
        if earlier := await self._refused(command):
            return earlier
        turn = self._turns.setdefault(boundary.key, asyncio.Lock())
        least = 0
        for attempt in range(ATTEMPTS):
            # Commands of one boundary decide at once until they meet; from then on they take turns.
            in_turn = attempt > 0 or turn.locked() or rpc.state.locking is Locking.PESSIMISTIC
            async with turn if in_turn else nullcontext():
                new = not self._states.is_kept(boundary)
                if new and not in_turn and rpc.path in self._beginning:
                    with suppress(Conflict, _Misguided):
                        return await self._attempt(command, self._states.initial(boundary), guessed=True)
                    self._beginning.discard(rpc.path)
                known = await self._states.load(boundary, least)
                if new and not known.events:
                    self._beginning.add(rpc.path)
                try:
                    return await self._attempt(command, known)
                except Conflict:
                    least = known.position + 1
            await _pause(attempt)
        raise Conflict(f"{rpc.name} was decided {ATTEMPTS} times, and each time its boundary had moved. Try again.")

    async def _refused(self, command: _Command) -> Executed | None:
        """Ask the gatekeeper. Where it refuses a command that was accepted before, give what that was answered."""
        guard, call = self._context.guard(command.rpc), command.call
        if guard is None:
            return None
        try:
            await guard(command.request, Admission(command_id=call.command_id, actor=call.actor))
        except Exception:
            earlier = await self._log.find(call.command_id, command.content_hash, derived=call.derived)
            if earlier is None:
                raise
            return _executed(command.rpc, earlier)
        return None

    async def _attempt(self, command: _Command, known: Known, *, guessed: bool = False) -> Executed:
        """Decide on a state and let the log judge.

        A state may be `guessed`: that nothing was recorded in the boundary is then for the log to confirm. What the log
        cannot confirm, that a handler or a fold fails on it, is Misguided.
        """
        condition = Condition(command.boundary.query, known.position)
        try:
            decided = self._decide(command, known)
            events = [self._recordable(event) for event in decided.events]
            # Folded before they are appended: what the fold cannot take is not recorded.
            own = [m for m, e in zip(decided.events, events, strict=True) if command.boundary.holds(e.type, e.tags)]
            after = self._states.fold(command.boundary, known, own)
        except Misconfigured:
            if guessed:
                raise _Misguided from None
            raise
        except CeqsError as refusal:
            # A refusal counts only if it was decided on the present, and not if the command was accepted before.
            earlier = await self._append(command, condition)
            if earlier.repeated:
                return _executed(command.rpc, earlier)
            raise refusal from None
        except Exception:
            if guessed:
                raise _Misguided from None
            self._states.forget(command.boundary)
            raise
        response = decided.response.SerializeToString() if decided.response is not None else b""
        appended = await self._append(command, condition, events, response, remember=True)
        if not appended.repeated:
            self._states.keep(command.boundary, replace(after, position=appended.receipt.position))
        return _executed(command.rpc, appended)

    def _decide(self, command: _Command, known: Known) -> Decided:
        now = Timestamp()
        now.FromNanoseconds(self._clock())
        call, rpc = command.call, command.rpc
        ctx = Decision(now=now, new_id=self._new_id, command_id=call.command_id, actor=call.actor)
        method = self._context.method(rpc)
        if method is None:
            raise Misconfigured(f"the command {rpc.name} has no handler")
        return decide(self._context.contract, rpc, method, command.request, known.state, ctx)

    def _recordable(self, event: Message) -> NewEvent:
        kind = self._context.contract.event(event)
        if broken := violations_of(event):
            rules = "; ".join(f"{v.field}: {v.description}" for v in broken)
            raise Misconfigured(f"a handler yielded {kind.name}, which breaks its own rules: {rules}")
        tags = tags_of(event, kind.tags)
        return NewEvent(
            id=self._new_id(),
            type=kind.full_name,
            payload=event.SerializeToString(deterministic=True),
            tags=tags,
            public=kind.public,
            bucket=bucket_of(kind, tags),
            version=kind.version,
        )

    async def _append(
        self,
        command: _Command,
        condition: Condition,
        events: Sequence[NewEvent] = (),
        response: bytes = b"",
        *,
        remember: bool = False,
    ) -> Appended:
        call = command.call
        entry = Entry(
            command_id=call.command_id,
            content_hash=command.content_hash,
            derived=call.derived,
            events=tuple(events),
            condition=condition,
            response=response,
            remember=remember,
            causation_id=call.causation_id,
            correlation_id=call.correlation_id or call.command_id,
            causation_depth=call.depth,
            actor=call.actor,
            traceparent=call.traceparent,
            expires=call.expires,
        )
        try:
            return await self._log.append(entry)
        except Conflict:
            raise
        except Exception:
            # The outcome may be unknown: what is kept of the boundary is no longer to be relied on.
            self._states.forget(command.boundary)
            raise


def content_hash(rpc: CommandRpc, request: Message, actor: str) -> bytes:
    """Give the hash by which a repeated command is told from another one under the same id."""
    if rpc.command_id_field and getattr(request, rpc.command_id_field):
        bare = type(request)()
        bare.CopyFrom(request)
        bare.ClearField(rpc.command_id_field)
        request = bare
    # Neither a path nor an actor has a NUL in it.
    content = b"\0".join((rpc.path.encode(), actor.encode(), request.SerializeToString(deterministic=True)))
    return hashlib.sha256(content).digest()


def _executed(rpc: CommandRpc, appended: Appended) -> Executed:
    response = rpc.response.FromString(appended.response)
    if rpc.receipt_field:
        getattr(response, rpc.receipt_field).CopyFrom(appended.receipt)
    return Executed(response, appended.receipt)


async def _pause(attempt: int) -> None:
    """Pause longer, and less predictably, the more attempts were in vain; the first costs none."""
    longest = min(LONGEST_PAUSE, 0.001 * 2**attempt) if attempt else 0.0
    await asyncio.sleep(random.uniform(0, longest))  # noqa: S311  # spreads rivals, keeps no secret
