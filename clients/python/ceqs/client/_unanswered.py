"""The commands of a stream that have no outcome yet: what is to be sent, sent again, and given up."""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from dataclasses import dataclass
from itertools import count
from typing import Any

from google.protobuf.message import Message

from ceqs.client._failures import Patience, leave_open
from ceqs.client._outcomes import Outcome, response_of
from ceqs.errors import CeqsError, Invalid, from_status
from ceqs.v1.commands_pb2 import Command, CommandOutcome, ExecuteStreamRequest

IN_FLIGHT = 1024
"""How many commands of a stream are unanswered at most."""
AT_ONCE = 128
AT_ONCE_BYTES = 256 * 1024
"""How many commands, and about how many bytes of them, a message carries. A larger command travels alone: nothing
follows until it is answered, so that a server that finds it too large is heard (see `error_of`)."""
LONGEST = 86_400.0
"""How long, in seconds, a command may take at one attempt, however patient its sender is."""


@dataclass(slots=True, eq=False)
class _Sent:
    command: Command
    request: Message
    response_type: type[Message]
    patience: Patience
    answer: asyncio.Future[Outcome[Any]]


class Unanswered:
    """Commands by number, each until it is answered or has taken longer than `timeout` seconds."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._numbers = count(1)
        self._sent: dict[int, _Sent] = {}
        """The oldest, which expires first, comes first."""
        self._queue: deque[_Sent] = deque()
        self._alone = 0
        """The number of the command that travels alone."""
        self._expiry: asyncio.TimerHandle | None = None
        self._room = asyncio.Event()
        self.more = asyncio.Event()
        """That there is something to send."""

    def __len__(self) -> int:
        return len(self._sent)

    async def until(self, most: int) -> None:
        """Wait until at most so many are unanswered."""
        while len(self._sent) > most:
            self._room.clear()
            await self._room.wait()

    def add(self, command: Command, request: Message, response_type: type[Message]) -> asyncio.Future[Outcome[Any]]:
        """Queue a command, which gets its number; give where its outcome will be."""
        command.number = next(self._numbers)
        sent = _Sent(
            command, request, response_type, Patience(self._timeout), asyncio.get_running_loop().create_future()
        )
        self._sent[command.number] = sent
        if self._expiry is None:
            self._expire()
        self._queue.append(sent)
        self.more.set()
        return sent.answer

    def next_message(self) -> ExecuteStreamRequest:
        """Give what is to be sent, as far as it fits into a message; it has no commands where there is nothing."""
        message, size = ExecuteStreamRequest(), 0
        while self._queue and not self._alone and len(message.commands) < AT_ONCE:
            sent = self._queue[0]
            size += len(sent.command.request)
            if size > AT_ONCE_BYTES and message.commands:
                break
            self._queue.popleft()
            if sent.command.number in self._sent:
                left = min(max(0.0, sent.patience.left()), LONGEST)
                sent.command.timeout.seconds, sent.command.timeout.nanos = int(left), int(left % 1 * 1e9)
                message.commands.append(sent.command)
                self._alone = sent.command.number if size > AT_ONCE_BYTES else 0
        if not self._queue or self._alone:
            self.more.clear()
        return message

    def answer(self, outcome: CommandOutcome) -> bool:
        """Take the server's answer to a command; say whether that was accepted just now."""
        self._answered(outcome.number)
        sent = self._sent.get(outcome.number)
        if sent is None:  # it was given up meanwhile, or answered on an earlier connection
            return False
        if not outcome.HasField("receipt"):
            self._refused(sent, from_status(outcome.status))
            return False
        response = response_of(sent.response_type, outcome.receipt, outcome.response)
        self._settle(sent, Outcome(sent.request, outcome.receipt.command_id, outcome.receipt, response))
        return True

    def send_again(self, error: CeqsError) -> None:
        """After an outage: queue all of them again, in order."""
        for sent in self._sent.values():
            sent.patience.told(error)
        self._alone = 0
        self._queue = deque(self._sent.values())
        if self._queue:
            self.more.set()

    def drop_oversized(self, error: Invalid) -> bool:
        """Where a message was too large for the server: answer the largest command, which travelled alone, with that.

        Say whether there was any that travelled alone.
        """
        largest = max(self._sent.values(), key=lambda sent: len(sent.command.request), default=None)
        if largest is None or len(largest.command.request) <= AT_ONCE_BYTES:
            return False
        self._give_up(largest, error)
        return True

    def fail(self, error: CeqsError) -> None:
        """Answer all of them with an error."""
        for sent in list(self._sent.values()):
            self._give_up(sent, error)

    def close(self) -> None:
        """Cancel the answers that will not come any more."""
        if self._expiry is not None:
            self._expiry.cancel()
        for sent in self._sent.values():
            sent.answer.cancel()
        self._sent.clear()

    def _answered(self, number: int) -> None:
        if self._alone == number:
            self._alone = 0
            if self._queue:
                self.more.set()

    def _refused(self, sent: _Sent, error: CeqsError) -> None:
        """Send it again later where that can help in time; else this is its outcome."""
        try:
            delay = sent.patience.delay(error)
        except CeqsError as final:
            self._give_up(sent, final)
        else:
            asyncio.get_running_loop().call_later(delay, self._again, sent)

    def _again(self, sent: _Sent) -> None:
        if sent.command.number in self._sent:
            self._queue.append(sent)
            self.more.set()

    def _expire(self) -> None:
        """Give up what has taken too long, and look again when the next will have."""
        self._expiry = None
        for sent in list(self._sent.values()):
            if (left := sent.patience.left()) > 0:
                self._expiry = asyncio.get_running_loop().call_later(min(left, LONGEST), self._expire)
                return
            self._give_up(sent, sent.patience.spent())

    def _give_up(self, sent: _Sent, error: CeqsError) -> None:
        command_id = sent.command.command_id
        # One error may be the outcome of many; the note is about this command alone.
        error = copy.copy(error)
        leave_open(error, command_id)
        self._settle(sent, Outcome(sent.request, command_id, error=error))

    def _settle(self, sent: _Sent, outcome: Outcome[Any]) -> None:
        del self._sent[sent.command.number]
        self._answered(sent.command.number)
        if not sent.answer.done():
            sent.answer.set_result(outcome)
        self._room.set()
