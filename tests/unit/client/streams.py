"""What a server answers to a stream of commands, and what clients send on one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import grpc.aio

from ceqs.client import Outcome
from ceqs.contract import encode_token
from ceqs.errors import CeqsError, to_status
from ceqs.v1.answers_pb2 import Receipt
from ceqs.v1.commands_pb2 import Command, CommandOutcome, ExecuteStreamRequest, ExecuteStreamResponse

RPC = "ExecuteStream"


async def commands_of(call: Any) -> AsyncIterator[list[Command]]:
    """Give the commands that the server reads, message by message."""
    while (raw := await call.context.read()) is not grpc.aio.EOF:
        yield list(ExecuteStreamRequest.FromString(raw).commands)


def accepted(command: Command, **fields: Any) -> CommandOutcome:
    receipt = Receipt(command_id=command.command_id, position=command.number, token=encode_token({"l": command.number}))
    return CommandOutcome(number=command.number, receipt=receipt, **fields)


def refused(command: Command, error: CeqsError) -> CommandOutcome:
    return CommandOutcome(number=command.number, status=to_status(error, "library"))


async def answer(call: Any, outcomes: Iterable[CommandOutcome]) -> None:
    await call.write(ExecuteStreamResponse(outcomes=outcomes))


def accepting(seen: list[Command], decide: Callable[[Command], CommandOutcome] = accepted) -> Any:
    """A step of the server's script: answer every command, and note it."""

    async def step(call: Any) -> None:
        async for commands in commands_of(call):
            seen.extend(commands)
            await answer(call, map(decide, commands))

    return step


def books(library: Any, count: int) -> Iterator[Any]:
    return (library.LendBookRequest(book_id=str(i)) for i in range(count))


async def outcomes_of(client: Any, requests: Any, **options: Any) -> list[Outcome[Any]]:
    return [outcome async for outcome in client.execute_many(requests, **options)]
