"""Deciding commands in sequence, each on the state as those before it would leave it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from google.protobuf.message import Message

from ceqs.contract import bucket_of, tags_of
from ceqs.errors import CeqsError, Misconfigured
from ceqs.log import Condition, Entry, Keep, NewEvent
from ceqs.model import Context, Decided, Decision, decide
from ceqs.queries import Known, States
from ceqs.server._batch import LONGEST_TURN, TOGETHER, Queued
from ceqs.server._decode import canonical, keep_rules, violations_of
from ceqs.server._pending import Pending

FEW = 4
"""The events of fewer commands are validated one by one, which is quicker then."""


class Decider:
    """Decides the commands of one context."""

    def __init__(self, context: Context, states: States, ids: Callable[[], str], clock: Callable[[], int]) -> None:
        self._context = context
        self._contract = context.contract
        self._states = states
        self._new_id = ids
        self._clock = clock

    def decide_all(
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
        end = time.monotonic() + LONGEST_TURN
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
