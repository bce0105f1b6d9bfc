"""The host: health, reflection, errors without a name, stopping."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import grpc
import pytest
import structlog
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from ceqs.contract import encode_token
from ceqs.errors import Behind, Internal
from ceqs.server import Served, Server, ServerSettings
from ceqs.testing import eventually
from ceqs.v1 import events_pb2

SERVICES = [
    "",
    "bank.v1.BankCommandsService",
    "bank.v1.BankQueriesService",
    "ceqs.v1.AdminService",
    "ceqs.v1.CommandsService",
    "ceqs.v1.EventsService",
    "grpc.health.v1.Health",
    "grpc.reflection.v1alpha.ServerReflection",
]


@pytest.mark.parametrize("service", SERVICES)
async def test_health_says_that_each_service_answers(served: Any, service: str) -> None:
    stub = health_pb2_grpc.HealthStub(served.channel)
    response = await stub.Check(health_pb2.HealthCheckRequest(service=service))
    assert response.status == health_pb2.HealthCheckResponse.SERVING


async def test_reflection_lists_and_describes_every_service(served: Any) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(served.channel)
    call = stub.ServerReflectionInfo()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    listed = await call.read()
    assert sorted(s.name for s in listed.list_services_response.service) == SERVICES[1:]
    for service in SERVICES[1:6]:
        await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=service))
        described = await call.read()
        files = [FileDescriptorProto.FromString(f) for f in described.file_descriptor_response.file_descriptor_proto]
        assert service in {f"{file.package}.{s.name}" for file in files for s in file.service}
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


async def test_an_error_without_a_name_reaches_the_client_as_an_id_and_the_log_whole(served: Any, refused: Any) -> None:
    with structlog.testing.capture_logs() as logged, refused(Internal) as found:
        await served.send("Fail", served.FailRequest(account_id="a", how="?"))
    error, call = found
    assert "secret" not in str(call)
    assert "Traceback" not in str(call)
    (entry,) = logged
    assert entry["error_id"] == error.metadata["error_id"]
    assert entry["error_id"] in error.message
    assert entry["rpc"] == "/bank.v1.BankCommandsService/Fail"
    assert "secret of the handler" in str(entry["exc_info"])
    assert (await served.log.head()).position == 0


async def test_a_contract_that_handlers_break_is_internal_too(served: Any, refused: Any) -> None:
    with structlog.testing.capture_logs() as logged, refused(Internal) as found:
        await served.send("Fail", served.FailRequest(account_id="a", how="rule"))
    assert "breaks its own rules" not in found[0].message
    assert "breaks its own rules" in str(logged[0]["exc_info"])


async def test_a_commands_trailers_carry_the_token(served: Any) -> None:
    request = served.OpenAccountRequest(account_id="a").SerializeToString()
    call = served.channel.unary_unary("/bank.v1.BankCommandsService/OpenAccount")(request)
    response = served.OpenAccountResponse.FromString(await call)
    assert dict(await call.trailing_metadata())["ceqs-token"] == response.receipt.token


async def test_a_querys_trailers_say_how_old_the_answer_is(served: Any) -> None:
    receipt = (await served.send("Deposit", served.DepositRequest(account_id="a", amount=1))).receipt
    _, trailers = await served.ask("GetAccount", served.GetAccountRequest(account_id="a"), ceqs_at_least=receipt.token)
    assert trailers == {
        "ceqs-token": receipt.token,
        "ceqs-recorded-at": receipt.recorded_at.ToJsonString(),
        "ceqs-lag": "0",
        "ceqs-lag-seconds": "0.000",
        "ceqs-parked": "0",
    }
    _, trailers = await served.ask("GetTotal", served.GetTotalRequest())
    assert trailers["ceqs-lag"] == "1"
    assert float(trailers["ceqs-lag-seconds"]) < 60
    assert "ceqs-recorded-at" not in trailers


async def test_a_querys_trailers_say_how_many_events_are_parked(served: Any) -> None:
    served.model.parked = 3
    _, trailers = await served.ask("GetTotal", served.GetTotalRequest())
    assert trailers["ceqs-parked"] == "3"


async def test_a_query_that_is_not_served_in_time_is_unavailable(served: Any, refused: Any) -> None:
    token = encode_token({served.log.log_id: 3})
    with refused(Behind) as found:
        await served.raw("/bank.v1.BankQueriesService/GetTotal", b"", timeout=0.4, ceqs_at_least=token)
    assert found[1].code() is grpc.StatusCode.UNAVAILABLE
    assert found[0].retry_after == 0.05
    assert found[0].metadata == {"position": "0", "asked": "3"}
    assert served.model.waited[0][0] == 3
    assert served.model.waited[0][1] < 0.4


async def test_a_call_is_recorded_with_its_trace(served: Any) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    for given in (trace, "no trace"):
        request = served.OpenAccountRequest(account_id=given)
        await served.send("OpenAccount", request, traceparent=given, ceqs_actor="ann")
    stored = [events_pb2.RecordedEvent.FromString(e.envelope) for e in (await served.log.read()).events]
    assert [e.traceparent for e in stored] == [trace, ""]
    assert {e.actor for e in stored} == {"ann"}
    assert all(e.correlation_id == e.command_id for e in stored)


class Slow:
    """A log whose appends wait until they are let go."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self.waiting = asyncio.Event()
        self.go_on = asyncio.Event()
        self.expires = 0.0
        """When the last that waits expires."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def append_all(self, entries: Any, progress: Any = None) -> Any:
        self.expires = max([self.expires, *(entry.expires or 0.0 for entry in entries)])
        self.waiting.set()
        await self.go_on.wait()
        return await self._log.append_all(entries, progress)


async def test_a_stopping_server_lets_running_calls_finish_and_takes_no_new_ones(
    bank: Any, context: Any, log: Any, served: Any
) -> None:
    slow, stop = Slow(log), asyncio.Event()
    server = Server([Served(context, slow, {"Total": served.model})], ServerSettings(grace=300))
    serving = asyncio.ensure_future(server.serve_until(stop))
    while not server.port:
        await asyncio.sleep(0.01)
    async with grpc.aio.insecure_channel(server.address) as channel:
        served.channel = channel
        # Streams that nobody ends, of every kind.
        watching = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watching.read()).status == health_pb2.HealthCheckResponse.SERVING
        reflecting = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo()
        await reflecting.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        await reflecting.read()
        subscribed = served.events("Subscribe", events_pb2.SubscribeRequest())
        await subscribed.read()
        live = served.watch("WatchAccount", served.WatchAccountRequest(account_id="a"))
        await live.read()
        running = asyncio.ensure_future(
            served.send("OpenAccount", served.OpenAccountRequest(account_id="a"), timeout=300)
        )
        await slow.waiting.wait()

        stop.set()
        assert (await asyncio.wait_for(subscribed.read(), 30)).HasField("resume")
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await asyncio.wait_for(live.read(), 30)
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await served.send("OpenAccount", served.OpenAccountRequest(account_id="b"))
        assert late.value.code() is grpc.StatusCode.UNAVAILABLE
        assert not serving.done()
        slow.go_on.set()
        assert (await asyncio.wait_for(running, 30)).receipt.position == 1
        # Well before the grace is over.
        await asyncio.wait_for(serving, 30)
    assert (await log.head()).position == 1


async def test_a_call_that_outlasts_the_grace_is_ended(bank: Any, context: Any, log: Any, served: Any) -> None:
    slow = Slow(log)
    server = Server([Served(context, slow, {"Total": served.model})], ServerSettings(grace=0.1))
    await server.start()
    async with grpc.aio.insecure_channel(server.address) as channel:
        served.channel = channel
        running = asyncio.ensure_future(
            served.send("OpenAccount", served.OpenAccountRequest(account_id="a"), timeout=300)
        )
        await slow.waiting.wait()
        await asyncio.wait_for(server.stop(), 30)
        with pytest.raises(grpc.aio.AioRpcError):
            await running


async def test_stopping_twice_or_before_the_start_does_nothing(context: Any, log: Any, served: Any) -> None:
    await Server([Served(context, log, {"Total": served.model})], ServerSettings()).stop()
    await served.server.stop()
    await served.server.stop()
    assert threading.active_count() >= 1


async def test_a_deadline_ends_a_command_without_an_event(bank: Any, context: Any, log: Any, served: Any) -> None:
    slow = Slow(log)
    server = Server([Served(context, slow, {"Total": served.model})], ServerSettings(grace=0.1))
    await server.start()
    async with grpc.aio.insecure_channel(server.address) as channel:
        served.channel = channel
        request = served.OpenAccountRequest(account_id="a").SerializeToString()
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await served.raw("/bank.v1.BankCommandsService/OpenAccount", request, timeout=0.1)
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        # The server's clock for it began later than the caller's.
        await eventually(lambda: time.monotonic() > slow.expires)
        slow.go_on.set()
        await server.stop()
    assert (await log.head()).position == 0
