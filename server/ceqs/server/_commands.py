"""A command's way: it waits for its batch, is decided on the pending state, appended, and answered with its receipt.

Commands of a batch are decided in sequence, each on the state as those before it would leave it, and appended together.
Nothing is answered before the commit; where one of them is not accepted, those that built on it are decided again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from google.protobuf.message import Message

from ceqs.contract import CommandRpc, Locking, new_id, prefix, value
from ceqs.errors import CeqsError, Conflict, LogUnavailable, OutOfRange, Overloaded
from ceqs.log import MAX_WAITING_ENTRIES, Appended, Log, Progress
from ceqs.model import Boundary, Context
from ceqs.queries import Known, States
from ceqs.server._batch import Batch, Queued, stands
from ceqs.server._calls import CommandCall
from ceqs.server._decider import Decider
from ceqs.server._decode import canonical
from ceqs.server._gates import Gates
from ceqs.server._intake import Intake, content_hash
from ceqs.server._lane import Lane
from ceqs.v1.answers_pb2 import Receipt

ATTEMPTS = 16
"""How often a command is decided before its caller hears of the conflict."""

Says: TypeAlias = Callable[[Message], CommandCall]
"""Gives what a call says besides its request. Raises what is wrong with that."""


@value()
class Executed:
    """An accepted command."""

    rpc: CommandRpc
    appended: Appended
    gate: str = ""
    """`open` where a gatekeeper could not say whether it may pass."""

    @property
    def receipt(self) -> Receipt:
        """The receipt."""
        return self.appended.receipt

    @property
    def response(self) -> Message:
        """The response, which carries the receipt where it has a field for it."""
        return self.rpc.response.FromString(self.encoded())

    def encoded(self) -> bytes:
        """Give the bytes of the response: those that are stored, and the receipt as one more field."""
        if not self.rpc.receipt_number:
            return self.appended.response
        receipt = self.appended.encoded
        return b"".join((self.appended.response, prefix(self.rpc.receipt_number, len(receipt)), receipt))


@dataclass(slots=True, eq=False)
class _Awaited(Queued):
    """A command whose answer is a future."""

    say: Says
    answer: asyncio.Future[Appended]

    def says(self, request: Message) -> CommandCall:
        return self.say(request)

    def done(self) -> bool:
        return self.answer.done()

    def set_result(self, appended: Appended) -> None:
        self.answer.set_result(appended)

    def set_exception(self, error: Exception) -> None:
        self.answer.set_exception(error)


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
        max_waiting: int = MAX_WAITING_ENTRIES,
        gates: Gates | None = None,
    ) -> None:
        """`max_waiting` commands may wait for their batch, fewer where they wait for long: see `is_full`."""
        self._gates = gates or Gates(context)
        self._context = context
        self._log = log
        self._states = states or States(context, log)
        self.intake = Intake(context)
        """What reads its commands."""
        self._decider = Decider(context, self._states, ids, clock)
        self._max_waiting = max_waiting
        # Other processes may hold a boundary that is locked pessimistically: who needs none must not wait with it.
        self._optimistic, self._pessimistic = (
            Lane(self._decide_all, self._record, company=log.company) for _ in range(2)
        )

    def is_full(self, rpc: CommandRpc) -> bool:
        """Whether so many commands wait, or for so long, that one more is refused."""
        waiting = len(self._optimistic.waiting) + len(self._pessimistic.waiting)
        return waiting >= self._max_waiting or self._lane(rpc).is_late

    async def execute(self, rpc: CommandRpc, request: Message, call: CommandCall) -> Executed:
        """Execute a command, or give the receipt that its id already has.

        Raises Invalid, Conflict, DuplicateCommand, Expired, Overloaded, LogUnavailable, and what the gatekeeper or the
        handler refuses with (Rejected). Nothing was appended then. Any other error is the handler's or the fold's own.
        """
        command = _Awaited(rpc, canonical(request), lambda _: call, asyncio.get_running_loop().create_future())
        try:
            gate = await self._gates.ask(rpc, request, call)
        except Exception:
            # Whatever it says now, a command that was accepted before gets what it was answered.
            hashed = content_hash(rpc, (request, command.raw), call.actor)
            found = await self._log.find(call.command_id, hashed, derived=call.derived)
            if found is None:
                raise
            return Executed(rpc, found)
        if self.is_full(rpc):
            raise Overloaded
        self.intake.take(command, (request, command.raw))
        self.queue(command)
        return Executed(rpc, await command.answer, gate)

    def submit(self, rpc: CommandRpc, raw: bytes, say: Says) -> asyncio.Future[Appended]:
        """Queue a command that no gatekeeper guards. Raises Overloaded; for the rest, see `execute`.

        It is read when its batch begins, with the others: that takes a fourth of the time.
        """
        if self.is_full(rpc):
            raise Overloaded
        command = _Awaited(rpc, raw, say, asyncio.get_running_loop().create_future())
        self.queue(command)
        return command.answer

    def queue(self, command: Queued, *, hurry: bool = False) -> None:
        """Queue a command where it is not full; those of one boundary are decided in the order of calls.

        In a `hurry`, it does not wait for others to share its transaction.
        """
        self._lane(command.rpc).add(command, hurry=hurry)

    def guards(self, rpc: CommandRpc) -> bool:
        """Whether a gatekeeper is asked about a command: then it is for `execute`."""
        return self._context.guard(rpc) is not None

    def _lane(self, rpc: CommandRpc) -> Lane[Queued, Batch]:
        return self._pessimistic if rpc.state.locking is Locking.PESSIMISTIC else self._optimistic

    async def _decide_all(self, batch: Sequence[Queued], before: Batch | None) -> Batch | None:
        """Decide a batch, upon the one before while that is recorded; None where it has to be recorded first."""
        ready, rest = self.intake.read_all(batch)
        wanted: dict[str, Boundary] = {}
        held: dict[str, int] = {}
        for command in ready:
            boundary = command.boundary
            wanted[boundary.key] = boundary
            # Who has met another process takes turns with it.
            if command.attempts or command.rpc.state.locking is Locking.PESSIMISTIC:
                held[boundary.key] = max(held.get(boundary.key, 0), command.least)
        if before and held:
            return None
        left = before.left(wanted) if before else dict[str, Known]()
        if left is None:
            return None
        decided = Batch(wanted, Progress(before.progress if before else None))
        try:
            if held:
                await decided.holding.enter_async_context(self._log.holding(held))
            others = [boundary for key, boundary in wanted.items() if key not in left]
            states = {**await self._states.load_all(others, held), **left}
            decided.pending, decided.commands = self._decider.decide_all(ready, states)
        except BaseException:
            await self._give_up(decided)
            raise
        decided.rest = [*ready[len(decided.commands) :], *rest]
        return decided

    async def _record(self, batch: Batch) -> Sequence[Queued]:
        """Append what was decided, and answer; give back those that have to be decided again."""
        try:
            outcomes = await self._log.append_all([command.entry for command in batch.commands], batch.progress)
        except BaseException:
            await self._give_up(batch)
            raise
        await batch.holding.aclose()
        return [c for c, outcome in zip(batch.commands, outcomes, strict=True) if not self._answered(c, outcome)]

    async def _give_up(self, batch: Batch) -> None:
        # The outcome may be unknown: what is kept of the boundaries is no longer to be relied on.
        for boundary in batch.wanted.values():
            self._states.forget(boundary)
        await batch.holding.aclose()

    def _answered(self, command: Queued, outcome: Appended | CeqsError) -> bool:
        """Answer a command; False where it has to be decided again."""
        if not isinstance(outcome, Appended):
            return self._is_refused(command, outcome)
        if outcome.repeated or command.refusal is None:
            if command.after and not outcome.repeated:
                self._states.keep(command.boundary, stands(command.after, outcome))
            if not command.done():
                command.set_result(outcome)
        elif not command.done():
            command.set_exception(command.refusal)
        return True

    def _is_refused(self, command: Queued, outcome: CeqsError) -> bool:
        """Answer a command that the log refuses; False where it has to be decided again."""
        if isinstance(outcome, Conflict):
            command.attempts += 1
            condition = command.entry.condition
            command.least = condition.after + 1 if condition else 0
            if command.attempts < ATTEMPTS:
                return command.done()
            outcome = Conflict(
                f"{command.rpc.name} was decided {ATTEMPTS} times, and each time its boundary had moved. Try again."
            )
        elif isinstance(outcome, LogUnavailable | OutOfRange):
            self._states.forget(command.boundary)
        if not command.done():
            command.set_exception(outcome)
        return True
