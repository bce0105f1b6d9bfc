"""Given events, when a command comes, then these events follow, or it is refused.

    given(orders, OrderPlaced(order_id="1")).when(PlaceOrderRequest(order_id="1")).rejects("ORDER_EXISTS")

It runs what the server runs: the contract's validation rules, the boundary, the folds and the handler; with a fixed
clock and fixed ids, without a log.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from ceqs.contract import tags_of
from ceqs.errors import Invalid, Rejected
from ceqs.model import Boundary, Context, Decided, Decision, NamedHandler, decide
from ceqs.server import Decoder
from ceqs.testing._answering import Answering
from ceqs.testing._keeping import kept
from ceqs.testing._reacting import Heard, compare, hear, lines_of

if TYPE_CHECKING:
    from typing import NoReturn

NOW = Timestamp(seconds=1291191960)
"""The time of every decision in tests, unless they say another: 2010-12-01T08:26:00Z."""


def fixed_ids() -> Iterator[str]:
    """Give the ids of tests: `00000000-0000-7000-8000-000000000001` and so on."""
    return (f"00000000-0000-7000-8000-{number:012x}" for number in itertools.count(1))


def given(context: Context, *events: Message, now: Timestamp = NOW, ids: Iterable[str] | None = None) -> Given:
    """Say what has happened in a context, in order: any of its events, of any entity; earlier forms are upcast.

    What another context tells may be among them, where a projection folds it: `given(shop, BookTaken()).keeps(...)`.
    `now` is what handlers see as `ctx.now`; `ids` are what `ctx.new_id()` gives, one after the other.
    """
    return Given(
        context, tuple(_newest(context, event) for event in events), now, iter(ids) if ids is not None else fixed_ids()
    )


def _newest(context: Context, event: Message) -> Message:
    """Give an event as it is today. Raises Misconfigured where neither the context nor its projections know it."""
    folded = {p.ceqs_contract.package: p.ceqs_contract for p in context.projections.values()}
    contract = folded.get(event.DESCRIPTOR.file.package, context.contract)
    newest = context.decoder_of(contract).newest(event)
    contract.event(newest)
    return newest


@dataclass(frozen=True, slots=True)
class Given:
    """What has happened. Go on with `when` for a command, `hears` for an event, `keeps` for what a model has of it."""

    context: Context
    events: tuple[Message, ...]
    now: Timestamp
    ids: Iterator[str]

    def when(self, request: Message, *, actor: str = "") -> Outcome:
        """Let the context decide a command. Errors other than Rejected and Invalid are raised."""
        contract = self.context.contract
        rpc = contract.command_of(request)
        method = self.context.method(rpc)
        assert method is not None, f"{rpc.name} has no method"  # the context checks it when it is made
        time_ns = self.now.ToNanoseconds()
        ctx = Decision(time_ns=time_ns, new_id=lambda: next(self.ids), command_id=f"test {rpc.name}", actor=actor)
        try:
            request = Decoder(rpc.request, strict=True)(request.SerializeToString())
            state = self._state(self.context.boundary(rpc, request))
            return Outcome(self, rpc.response, decide(contract, rpc, method, request, state, ctx))
        except (Rejected, Invalid) as refusal:
            return Outcome(self, rpc.response, refusal)

    def hears(
        self,
        event: Message,
        *,
        by: type[NamedHandler] | None = None,
        answers: Iterable[tuple[Message, Message]] = (),
    ) -> Heard:
        """Let the context's publishers and subscribers react to an event, of its own or of another context.

        `by` names the class of those who are meant, where several hear it. `answers` are what the queries are answered
        with that handlers ask, of their own context and of other services: pairs of a request and a response. Process
        managers have heard all that was given. Their errors are raised.
        """
        return hear(self.context, self.events, event, self.now, by, Answering(self.context, tuple(answers)))

    def keeps(self, model: type[Message], *rows: Message) -> Given:
        """Check that a keyed model has exactly these rows, in the order of their keys; errors are raised.

        `given(library, BookLent(book_id="1")).keeps(Book, Book(book_id="1", times=1))`
        """
        __tracebackhide__ = True
        compare("rows", rows, kept(self.context, self.events, model, self.now))
        return self

    def _state(self, boundary: Boundary) -> Message:
        folder = self.context.folders[boundary.state.name]
        state = folder.initial(boundary.values())
        for event in self.events:
            declared = self.context.contract.events.get(event.DESCRIPTOR.full_name)
            if declared and boundary.holds(declared.full_name, tags_of(event, declared.tags)):
                folder.apply(state, event)
        return state


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command came to. Each check raises AssertionError, with a diff, or gives the outcome again."""

    before: Given
    response_type: type[Message]
    result: Decided | Rejected | Invalid

    @property
    def events(self) -> tuple[Message, ...]:
        """The events that the command decided on; none where it was refused."""
        return self.result.events if isinstance(self.result, Decided) else ()

    def yields(self, *events: Message) -> Outcome:
        """Check that the command was accepted with exactly these events, in this order."""
        __tracebackhide__ = True
        compare("events", events, self._decided("yield events").events)
        return self

    def changes_nothing(self) -> Outcome:
        """Check that the command was accepted without events."""
        __tracebackhide__ = True
        compare("events", (), self._decided("change nothing").events)
        return self

    def answers(self, response: Message) -> Outcome:
        """Check what an accepted command answered, before the platform adds its receipt."""
        __tracebackhide__ = True
        answered = self._decided("answer").response
        compare("response", (response,), (self.response_type() if answered is None else answered,))
        return self

    def rejects(self, reason: str) -> Outcome:
        """Check that a rule refused the command, for this reason."""
        __tracebackhide__ = True
        if not isinstance(self.result, Rejected) or self.result.reason != reason:
            self._fail(f"be rejected with {reason}")
        return self

    def is_invalid(self, field: str) -> Outcome:
        """Check that the request was refused as malformed in this field (a path: `lines[0].quantity`)."""
        __tracebackhide__ = True
        if not isinstance(self.result, Invalid) or field not in [v.field for v in self.result.violations]:
            self._fail(f"be invalid in {field}")
        return self

    def when(self, request: Message, *, actor: str = "") -> Outcome:
        """Let the context decide another command, after the events of this one."""
        before = self.before
        return Given(before.context, before.events + self.events, before.now, before.ids).when(request, actor=actor)

    def _decided(self, expected: str) -> Decided:
        __tracebackhide__ = True
        if not isinstance(self.result, Decided):
            self._fail(expected)
        return self.result

    def _fail(self, expected: str) -> NoReturn:
        __tracebackhide__ = True
        raise AssertionError(f"expected it to {expected}, but it {_told(self.result)}")


def _told(result: Decided | Rejected | Invalid) -> str:
    if isinstance(result, Rejected):
        return f"was rejected with {result.reason}: {result.message}"
    if isinstance(result, Invalid):
        return f"was invalid: {result.message}"
    if not result.events:
        return "was accepted without events"
    return "was accepted:\n" + "\n".join(lines_of(result.events))
