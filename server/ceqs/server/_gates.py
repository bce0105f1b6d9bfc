"""Gatekeepers: asked before a command is decided, with a deadline, and with a way to go on while they cannot say."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import structlog
from google.protobuf.message import Message

from ceqs.contract import CommandRpc
from ceqs.errors import CeqsError, Expired, Misconfigured, Unavailable
from ceqs.model import Admission, Asked, Context, gate_of
from ceqs.queries import Answers, QueryCall

if TYPE_CHECKING:
    from ceqs.server._calls import CommandCall

OPEN = "open"
_process_log = structlog.get_logger("ceqs.server")


class Gates:
    """Asks the gatekeepers of one context; `answers` are what they may ask."""

    def __init__(self, context: Context, answers: Answers | None = None) -> None:
        self._context = context
        self._answers = answers

    async def ask(self, rpc: CommandRpc, request: Message, call: CommandCall) -> str:
        """Let a command pass. Gives OPEN where its gatekeeper could not say and lets it through, else nothing.

        Raises what the gatekeeper refuses with, and Unavailable where it cannot say and lets nothing through.
        """
        guard = self._context.guard(rpc)
        if guard is None:
            return ""
        gate = gate_of(guard)
        expires = time.monotonic() + gate.within
        if call.expires is not None:
            expires = min(expires, call.expires)
        admission = Admission(command_id=call.command_id, actor=call.actor, ask=self._asker(expires))
        try:
            async with asyncio.timeout(max(0.0, expires - time.monotonic())):
                await guard(request, admission)
        except (Unavailable, TimeoutError, OSError, Expired) as error:
            why = _why(error, gate.within)
            _process_log.warning("a gatekeeper cannot say", rpc=rpc.path, gate=gate.when_down, error=why)
            if gate.when_down == OPEN:
                return OPEN
            closed = Unavailable(
                f"the gatekeeper of {rpc.name} cannot say whether it may pass: {why}. Try again.",
                metadata={"gate": gate.when_down},
            )
            closed.reason = "GATE_CLOSED"
            raise closed from error
        return ""

    def _asker(self, expires: float) -> Any:
        if self._answers is not None:
            return self._answers.asker(QueryCall(expires=expires))

        async def refuse(path: str, _: Message) -> Asked[Any]:
            raise Misconfigured(f"nobody answers {path} to gatekeepers here")

        return self._context.ceqs_asker(refuse)


def _why(error: Exception, within: float) -> str:
    if isinstance(error, CeqsError):
        return error.message
    return f"it took more than {within:g} s" if isinstance(error, TimeoutError) else str(error)
