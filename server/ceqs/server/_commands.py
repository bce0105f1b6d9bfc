"""A command's way: it waits for its batch, is decided on the pending state, appended, and answered with its receipt.

Commands of a batch are decided in sequence, each on the state as those before it would leave it, and appended together.
Nothing is answered before the commit; where one of them is not accepted, those that built on it are decided again.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from google.protobuf.message import Message

from ceqs.contract import CommandRpc, Locking, bucket_of, new_id, prefix, tags_of, value
from ceqs.errors import CeqsError, Conflict, LogUnavailable, Misconfigured, OutOfRange, Overloaded
from ceqs.log import MAX_WAITING_ENTRIES, Appended, Condition, Entry, Keep, Log, NewEvent, Progress
from ceqs.model import Boundary, Context, Decided, Decision, decide
from ceqs.queries import Known, States
from ceqs.server._batch import Batch, Queued, stands
from ceqs.server._calls import CommandCall
from ceqs.server._decode import Decoded, Decoder, canonical, keep_rules, violations_of
from ceqs.server._gates import Gates
from ceqs.server._lane import Lane
from ceqs.server._pending import Pending
from ceqs.v1.answers_pb2 import Receipt

ATTEMPTS = 16
"""How often a command is decided before its caller hears of the conflict."""

Says: TypeAlias = Callable[[Message], CommandCall]
"""Gives what a call says besides its request. Raises what is wrong with that."""

LONGEST_DECIDING = 0.05
"""How long, in seconds, a process decides before it does anything else: handlers are not interrupted."""
TOGETHER, TOGETHER_BYTES = 64, 64 * 1024
"""As many commands are read together, and their events validated, at most."""
FEW = 4
"""The events of fewer commands are validated one by one, which is quicker then."""


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
        """`max_waiting` commands may wait for their batch."""
        self._gates = gates or Gates(context)
        self._context = context
        self._contract = context.contract
        self._decoders = {rpc.path: Decoder(rpc.request, strict=True) for rpc in context.contract.commands.values()}
        self._log = log
        self._states = states or States(context, log)
        self._new_id = ids
        self._clock = clock
        self._max_waiting = max_waiting
        # Other processes may hold a boundary that is locked pessimistically: who needs none must not wait with it.
        self._optimistic, self._pessimistic = (
            Lane(self._decide_all, self._record, company=log.company) for _ in range(2)
        )

    @property
    def full(self) -> bool:
        """Whether so many commands wait that one more is refused."""
        return len(self._optimistic.waiting) + len(self._pessimistic.waiting) >= self._max_waiting

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
        if self.full:
            raise Overloaded
        self._take(command, (request, command.raw))
        self.queue(command)
        return Executed(rpc, await command.answer, gate)

    def submit(self, rpc: CommandRpc, raw: bytes, say: Says) -> asyncio.Future[Appended]:
        """Queue a command that no gatekeeper guards. Raises Overloaded; for the rest, see `execute`.

        It is read when its batch begins, with the others: that takes a fourth of the time.
        """
        if self.full:
            raise Overloaded
        command = _Awaited(rpc, raw, say, asyncio.get_running_loop().create_future())
        self.queue(command)
        return command.answer

    def queue(self, command: Queued, *, hurry: bool = False) -> None:
        """Queue a command where the executor is not `full`; those of one boundary are decided in the order of calls.

        In a `hurry`, it does not wait for others to share its transaction.
        """
        lane = self._pessimistic if command.rpc.state.locking is Locking.PESSIMISTIC else self._optimistic
        lane.add(command, hurry=hurry)

    def decode(self, rpc: CommandRpc, raw: bytes) -> Message:
        """Give a request. Raises Invalid where it is malformed."""
        return self._decoders[rpc.path](raw)

    def read(self, command: Queued) -> None:
        """Read a command before it is queued. Raises what is wrong with it."""
        request = self.decode(command.rpc, command.raw)
        self._take(command, (request, canonical(request)))

    def guards(self, rpc: CommandRpc) -> bool:
        """Whether a gatekeeper is asked about a command: then it is for `execute`."""
        return self._context.guard(rpc) is not None

    async def _decide_all(self, batch: Sequence[Queued], before: Batch | None) -> Batch | None:
        """Decide a batch, upon the one before while that is recorded; None where it has to be recorded first."""
        ready, rest = self._read_all(batch)
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
            decided.pending, decided.commands = self._propose_all(ready, states)
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

    def _read_all(self, batch: Sequence[Queued]) -> tuple[Sequence[Queued], Sequence[Queued]]:
        """Read commands, the first at least, for as long as others can be kept waiting; give them, and the rest."""
        ready: list[Queued] = []
        end = time.monotonic() + LONGEST_DECIDING
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
            self._take(command, decoded)
        except Exception as error:  # noqa: BLE001  # the caller's answer
            if not command.done():
                command.set_exception(error)
            return False
        return True

    def _take(self, command: Queued, decoded: Decoded) -> None:
        """Take in a command's request, and what its call says. Raises what is wrong with them."""
        command.request = request = decoded[0]
        command.call = call = command.says(request)
        command.boundary = self._context.boundary(command.rpc, request)
        command.content_hash = content_hash(command.rpc, decoded, call.actor)

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

    def _propose_all(
        self, batch: Sequence[Queued], states: Mapping[str, Known | Exception]
    ) -> tuple[Pending, Sequence[Queued]]:
        """Decide commands, the first at least, for as long as others can be kept waiting; give those."""
        pending = Pending(self._states, states)
        decided = self._propose_some(batch, pending, alone=len(batch) < FEW)
        if decided is None:
            # The rules of an event are broken, and those after it must not be decided upon it.
            pending = Pending(self._states, states)
            decided = self._propose_some(batch, pending, alone=True)
        assert decided is not None
        return pending, decided

    def _propose_some(self, batch: Sequence[Queued], pending: Pending, *, alone: bool) -> Sequence[Queued] | None:
        """As above. None where it is not plain that all events keep their rules, unless each is looked at `alone`."""
        end = time.monotonic() + LONGEST_DECIDING
        for number, command in enumerate(batch, 1):
            self._propose(command, pending, alone=alone)
            if number == len(batch) or not number % TOGETHER or time.monotonic() > end:
                if not alone and not keep_rules(pending.latest()):
                    return None
                if time.monotonic() > end:
                    return batch[:number]
        return batch

    def _propose(self, command: Queued, pending: Pending, *, alone: bool) -> None:
        """Decide a command on the state as the batch leaves it.

        What refuses it, even an error of the handler, counts only if it was decided on the present, and not if the
        command was accepted before: that is for the log to judge, as it judges events.
        """
        rpc, call, boundary = command.rpc, command.call, command.boundary
        condition: Condition | None = None
        decided: Decided | None = None
        events: list[NewEvent] = []
        command.after = command.refusal = None
        try:
            known = pending.state(boundary)
            condition = Condition(boundary.query, known.position)
            method = self._context.method(rpc)
            assert method is not None, f"{rpc.name} has no method"  # the context has looked when it was made
            ctx = Decision(self._clock(), self._new_id, call.command_id, call.actor)
            decided = decide(self._contract, rpc, method, command.request, known.state, ctx)
            own: list[Message] = []
            for message in decided.events:
                event = self._recordable(message, alone=alone)
                events.append(event)
                if boundary.holds(event.type, event.tags):
                    own.append(message)
            # Folded before they are appended: what the fold cannot take is not recorded.
            after = self._states.fold(boundary, known, own)
        except Exception as refusal:  # noqa: BLE001  # the caller's answer
            if decided and not alone:
                # It comes of its events: whether they keep their rules is asked first.
                self._propose(command, pending, alone=True)
                return
            if not isinstance(refusal, CeqsError):
                self._states.forget(boundary)
            command.refusal = refusal
            command.entry = _entry(command, condition)
            return
        keeps: Keep | None = None
        if events:
            after, keeps = self._states.keep_in_log(boundary, after)
            pending.propose(boundary, after, events, decided.events)
        response = decided.response.SerializeToString() if decided.response is not None else b""
        command.after = after
        command.entry = _entry(command, condition, tuple(events), response, keeps, remember=True)

    def _recordable(self, event: Message, *, alone: bool) -> NewEvent:
        kind = self._contract.event(event)
        if alone and (broken := violations_of(event)):
            rules = "; ".join(f"{v.field}: {v.description}" for v in broken)
            raise Misconfigured(f"a handler yielded {kind.name}, which breaks its own rules: {rules}")
        tags = tags_of(event, kind.tags)
        payload = canonical(event)
        return NewEvent(self._new_id(), kind.full_name, payload, tags, kind.public, bucket_of(kind, tags), kind.version)


def _entry(
    command: Queued,
    condition: Condition | None,
    events: tuple[NewEvent, ...] = (),
    response: bytes = b"",
    keeps: Keep | None = None,
    *,
    remember: bool = False,
) -> Entry:
    call = command.call
    return Entry(
        call.command_id,
        command.content_hash,
        call.derived,
        call.assigned,
        events,
        condition,
        response,
        remember,
        keeps,
        call.causation_id,
        call.correlation_id or call.command_id,
        call.depth,
        call.actor,
        call.traceparent,
        call.expires,
    )


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
