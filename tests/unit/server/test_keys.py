"""What needs the context's key: tried without it, with a wrong one, and with the right one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc.aio
import pytest

from ceqs.errors import CeqsError, Denied, Unauthenticated
from ceqs.server import Served, Server, ServerSettings
from ceqs.v1 import admin_pb2, events_pb2

Calling = Callable[[Any, dict[str, str]], Awaitable[Any]]
EVENT_ID = "01a20683-d39b-7081-aff0-7069e5d45daf"


async def append_public(served: Any, metadata: dict[str, str]) -> Any:
    payload = served.AccountAnnounced(account_id="a").SerializeToString()
    event = admin_pb2.PublicEvent(id=EVENT_ID, type="bank.v1.AccountAnnounced", payload=payload)
    request = admin_pb2.AppendPublicRequest(append_id="ceqs:bank/announce:1:0", events=[event])
    return await served.raw("/ceqs.v1.AdminService/AppendPublic", request.SerializeToString(), **metadata)


async def purge_commands(served: Any, metadata: dict[str, str]) -> Any:
    return [await served.raw("/ceqs.v1.AdminService/PurgeCommands", b"", **metadata)]


async def begin_epoch(served: Any, metadata: dict[str, str]) -> Any:
    return [await served.raw("/ceqs.v1.AdminService/BeginEpoch", b"", **metadata)]


async def note_published(served: Any, metadata: dict[str, str]) -> Any:
    request = admin_pb2.NotePublishedRequest(publisher="announce")
    return [await served.raw("/ceqs.v1.AdminService/NotePublished", request.SerializeToString(), **metadata)]


async def publish_again(served: Any, metadata: dict[str, str]) -> Any:
    request = admin_pb2.PublishAgainRequest(publisher="announce")
    return [await served.raw("/ceqs.v1.AdminService/PublishAgain", request.SerializeToString(), **metadata)]


async def read_private(served: Any, metadata: dict[str, str]) -> Any:
    return await served.events("Read", events_pb2.ReadRequest(scope=events_pb2.SCOPE_PRIVATE), **metadata).read()


async def subscribe_private(served: Any, metadata: dict[str, str]) -> Any:
    request = events_pb2.SubscribeRequest(scope=events_pb2.SCOPE_PRIVATE)
    return await served.events("Subscribe", request, **metadata).read()


async def derived_command_id(served: Any, metadata: dict[str, str]) -> Any:
    request = served.OpenAccountRequest(account_id="a")
    return await served.send("OpenAccount", request, ceqs_command_id="ceqs:bank/reserve:1:0", **metadata)


async def derived_command_id_in_the_request(served: Any, metadata: dict[str, str]) -> Any:
    request = served.OpenAccountRequest(account_id="a", request_id="ceqs:bank/reserve:1:0")
    return await served.send("OpenAccount", request, **metadata)


async def causation_id(served: Any, metadata: dict[str, str]) -> Any:
    request = served.OpenAccountRequest(account_id="a")
    return await served.send("OpenAccount", request, ceqs_causation_id="e", **metadata)


async def causation_depth(served: Any, metadata: dict[str, str]) -> Any:
    request = served.OpenAccountRequest(account_id="a")
    return await served.send("OpenAccount", request, ceqs_causation_depth="1", **metadata)


PRIVATE = [
    append_public,
    purge_commands,
    begin_epoch,
    note_published,
    publish_again,
    read_private,
    subscribe_private,
    derived_command_id,
    derived_command_id_in_the_request,
    causation_id,
    causation_depth,
]


@pytest.mark.parametrize("call", PRIVATE)
async def test_a_private_call_without_the_key_is_unauthenticated(served: Any, refused: Any, call: Calling) -> None:
    for metadata in ({}, {"ceqs_key": ""}):
        with refused(Unauthenticated) as found:
            await call(served, metadata)
        assert "CEQS_KEY" in found[0].message
    assert (await served.log.head()).position == 0
    assert (await served.log.head()).epoch == 1


@pytest.mark.parametrize("call", PRIVATE)
async def test_a_private_call_with_another_key_is_denied(served: Any, refused: Any, call: Calling) -> None:
    for wrong in (served.key[:-1], served.key + "x", "x"):
        with refused(Denied):
            await call(served, {"ceqs_key": wrong})
    assert (await served.log.head()).position == 0


@pytest.mark.parametrize("call", PRIVATE)
async def test_a_private_call_with_the_key_is_answered(served: Any, call: Calling) -> None:
    assert await call(served, {"ceqs_key": served.key})


@pytest.mark.parametrize("call", PRIVATE)
@pytest.mark.parametrize("key", ["", "x"])
async def test_a_server_without_a_key_shuts_everything_private(
    served: Any, refused: Any, call: Calling, key: str
) -> None:
    server = Server([Served(served.context, served.log, {"Total": served.model})], ServerSettings())
    await server.start()
    with_key, served.channel = served.channel, grpc.aio.insecure_channel(server.address)
    expected: type[CeqsError] = Denied if key else Unauthenticated
    with refused(expected):
        await call(served, {"ceqs_key": key})
    await served.channel.close()
    served.channel = with_key
    await server.stop()


async def test_a_malformed_private_call_says_nothing_without_the_key(served: Any, refused: Any) -> None:
    with refused(Unauthenticated):
        await served.raw("/ceqs.v1.AdminService/AppendPublic", b"\x0a\xff")


async def test_what_a_derived_command_follows_from_is_recorded(served: Any) -> None:
    metadata = {
        "ceqs_causation_id": "e",
        "ceqs_causation_depth": "3",
        "ceqs_correlation_id": "c",
        "ceqs_key": served.key,
    }
    request = served.OpenAccountRequest(account_id="a")
    first = await served.send("OpenAccount", request, ceqs_command_id="ceqs:bank/x:1:0", **metadata)
    # Under an id that the platform derived, the first receipt wins whatever the content.
    other = served.OpenAccountRequest(account_id="b")
    assert await served.send("OpenAccount", other, ceqs_command_id="ceqs:bank/x:1:0", **metadata) == first
    read = await served.events(
        "Read", events_pb2.ReadRequest(scope=events_pb2.SCOPE_PRIVATE), ceqs_key=served.key
    ).read()
    (event,) = read.events
    assert (event.causation_id, event.correlation_id, event.causation_depth) == ("e", "c", 3)


@pytest.mark.parametrize("depth", ["-1", "x", "1.5", "9" * 30])
async def test_a_causation_depth_is_a_whole_number(served: Any, depth: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="ceqs-causation-depth: must be a whole number"):
        await served.send(
            "OpenAccount",
            served.OpenAccountRequest(account_id="a"),
            ceqs_causation_depth=depth,
            ceqs_key=served.key,
        )
