"""The roles start from the settings, refuse what they cannot do in one line, and end in order."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Ceqs = Callable[..., subprocess.CompletedProcess[str]]
WIRED = "shop.orders.context:orders,shop.inventory.context:inventory"


@pytest.fixture
def shop(tmp_path: Path, free_port: int) -> dict[str, str]:
    """The environment of a shop whose data lie in tmp_path."""
    return {
        "CEQS_CONTEXTS": WIRED,
        # Nothing ever answers at port 1, whoever runs a shop at the default ports.
        "CEQS_ADDRESSES": f"orders=127.0.0.1:{free_port},inventory=127.0.0.1:1",
        "CEQS_DATA": str(tmp_path / "data"),
        "CEQS_KEY": "secret",
    }


@pytest.fixture
def serving(shop: dict[str, str], tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "ceqs.cli", "serve", "orders", "--output", "json"]
    with subprocess.Popen(
        command, cwd=tmp_path, env={**os.environ, **shop}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


def test_serve_says_where_and_ends_in_order(serving: subprocess.Popen[str], shop: dict[str, str]) -> None:
    assert serving.stdout is not None
    address = shop["CEQS_ADDRESSES"].removeprefix("orders=").partition(",")[0]
    assert json.loads(serving.stdout.readline()) == {
        "serves": "orders",
        "address": address,
        "pid": serving.pid,
        "roles": ["commands", "queries", "events"],
    }
    serving.send_signal(signal.SIGTERM)
    assert serving.wait(20) == 0


def test_call_finds_what_serve_serves(serving: subprocess.Popen[str], shop: dict[str, str], ceqs: Ceqs) -> None:
    assert serving.stdout is not None
    serving.stdout.readline()
    # Its neighbour does not run; that is no reason not to answer.
    head = ceqs("call", "ceqs.v1.EventsService.GetHead", "-o", "json", **shop)
    assert json.loads(head.stdout)["answer"]["head"]["log"] == "orders"
    missing = ceqs("call", "GetOrder", "order_id=1", "--output", "json", **shop)
    assert missing.returncode == 1
    assert json.loads(missing.stderr)["error"] == "NOT_FOUND"
    refused = ceqs("call", "PlaceOrder", "order_id=1", "--output", "json", **shop)
    assert refused.returncode == 1
    assert json.loads(refused.stderr)["error"] == "INVALID"


def test_a_query_waits_for_what_is_recorded_now_as_long_as_it_is_told_to(
    serving: subprocess.Popen[str], shop: dict[str, str], ceqs: Ceqs, tmp_path: Path
) -> None:
    assert serving.stdout is not None
    serving.stdout.readline()
    line = ("lines[0].product_code=A1", "lines[0].quantity=2", "lines[0].unit_price_micros=3")
    project = [sys.executable, "-m", "ceqs.cli", "project", "orders"]
    with subprocess.Popen(project, cwd=tmp_path, env={**os.environ, **shop}) as projecting:
        try:
            assert ceqs("call", "PlaceOrder", "order_id=1", "country=UK", *line, **shop).returncode == 0
            # What the order has brought about meanwhile came after the call.
            assert "orders: 1\n" in ceqs("call", "GetSales", "--at-least", "now", "--wait", "40", **shop).stdout
            projecting.send_signal(signal.SIGSTOP)
            assert ceqs("call", "PlaceOrder", "order_id=2", "country=UK", *line, **shop).returncode == 0
            behind = ceqs("call", "GetSales", "--at-least", "now", "--wait", "1", **shop)
            assert behind.returncode == 1
            assert "which the query asks for" in behind.stderr
        finally:
            projecting.kill()


def test_a_call_asks_as_of_a_moment_of_the_past(
    serving: subprocess.Popen[str], shop: dict[str, str], ceqs: Ceqs
) -> None:
    assert serving.stdout is not None
    serving.stdout.readline()
    line = ("lines[0].product_code=A1", "lines[0].quantity=2", "lines[0].unit_price_micros=3")
    placed = ceqs("call", "PlaceOrder", "order_id=1", "country=UK", *line, "-o", "json", **shop)
    token = json.loads(placed.stdout)["answer"]["receipt"]["token"]
    assert ceqs("call", "CancelOrder", "order_id=1", **shop).returncode == 0
    assert "ORDER_STATUS_CANCELLED" in ceqs("call", "GetOrder", "order_id=1", **shop).stdout
    then = ceqs("call", "GetOrder", "order_id=1", "--as-of", token, **shop).stdout
    assert "ORDER_STATUS_PLACED" in then
    assert "# as of an earlier moment: 1 events have been recorded since, includes events up to" in then
    before = ceqs("call", "GetOrder", "order_id=1", "--as-of", "2010-12-02", **shop)
    assert (before.returncode, before.stderr) == (1, "error: nothing is recorded of order:1\n")


def test_call_waits_for_an_rpc_that_the_project_declares_only(
    serving: subprocess.Popen[str], shop: dict[str, str], ceqs: Ceqs
) -> None:
    assert serving.stdout is not None
    serving.stdout.readline()
    began = time.monotonic()
    of_the_neighbour = ceqs("call", "ReceiveStock", "--wait", "4", **shop)
    assert time.monotonic() - began > 4
    assert of_the_neighbour.returncode == 2
    assert "nothing answers at 127.0.0.1:1" in of_the_neighbour.stderr
    began = time.monotonic()
    assert ceqs("call", "Nonsense", "--wait", "60", **shop).returncode == 2
    assert time.monotonic() - began < 30


def test_a_log_has_one_server(serving: subprocess.Popen[str], shop: dict[str, str], ceqs: Ceqs) -> None:
    assert serving.stdout is not None
    serving.stdout.readline()
    refused = ceqs("serve", "orders", **shop, CEQS_LOG="text")
    assert refused.returncode == 2
    assert "orders" in refused.stderr


def refusal(ceqs: Ceqs, *arguments: str, **env: str) -> str:
    """Give the one line by which a command refuses."""
    refused = ceqs(*arguments, **env)
    assert (refused.returncode, refused.stdout) == (2, "")
    (line,) = refused.stderr.splitlines()
    return line


def test_a_taken_port_is_named(shop: dict[str, str], ceqs: Ceqs) -> None:
    address = shop["CEQS_ADDRESSES"].removeprefix("orders=").partition(",")[0]
    with socket.create_server(("127.0.0.1", int(address.rpartition(":")[2]))):
        assert refusal(ceqs, "serve", "orders", **shop).startswith(f"error: cannot listen on {address}: ")


def test_a_log_in_sqlite_has_one_server_process(shop: dict[str, str], ceqs: Ceqs) -> None:
    for line in (
        refusal(ceqs, "serve", "orders", "--processes", "2", **shop),
        refusal(ceqs, "serve", "orders", **shop, CEQS_PROCESSES="2"),
        refusal(ceqs, "dev", **shop, CEQS_PROCESSES="2"),
    ):
        assert line.startswith("error: 2 server processes cannot share a log in SQLite")
        assert 'store = "postgres"' in line


def test_processes_need_a_database_that_answers(shop: dict[str, str], ceqs: Ceqs) -> None:
    nowhere = {"CEQS_STORE": "postgres", "CEQS_DATABASE_URL": "postgresql://ceqs@127.0.0.1:1/nowhere"}
    refused = ceqs("serve", "orders", "--processes", "2", **shop, **nowhere, CEQS_LOG="text")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "cannot be reached" in refused.stderr


def test_an_address_that_is_none_is_named(shop: dict[str, str], ceqs: Ceqs) -> None:
    line = refusal(ceqs, "serve", "orders", **{**shop, "CEQS_ADDRESSES": "orders=here"})
    assert line == "error: addresses: 'here' of orders is not of the form host:port"


def test_other_than_loopback_needs_tls(shop: dict[str, str], ceqs: Ceqs) -> None:
    line = refusal(ceqs, "serve", "orders", **{**shop, "CEQS_ADDRESSES": "orders=0.0.0.0:50051"})
    assert "0.0.0.0 without TLS" in line


def test_a_directory_that_cannot_be_written_is_named(shop: dict[str, str], ceqs: Ceqs, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in refusal(ceqs, "serve", "orders", **{**shop, "CEQS_DATA": str(tmp_path / "file")})


def test_the_past_is_replayed_by_the_database_that_has_the_models(shop: dict[str, str], ceqs: Ceqs) -> None:
    elsewhere = {"CEQS_SCRATCH_URL": "postgresql://ceqs@127.0.0.1:1/nowhere"}
    assert "is no sqlite, as the models are" in refusal(ceqs, "serve", "orders", **{**shop, **elsewhere})


def test_a_file_that_is_no_database_is_named(shop: dict[str, str], ceqs: Ceqs, tmp_path: Path) -> None:
    log = tmp_path / "data/logs/orders.db"
    log.parent.mkdir(parents=True)
    log.write_text("This is a letter, and no database at all. " * 100)
    assert str(log) in refusal(ceqs, "serve", "orders", **shop)
    assert log.read_text().startswith("This is a letter")


def test_an_unknown_context_is_refused_with_the_nearest(shop: dict[str, str], ceqs: Ceqs) -> None:
    for role in ("serve", "relay", "project"):
        assert refusal(ceqs, role, "order", **shop) == "error: there is no context 'order'; did you mean orders?"


def test_projectors_need_the_key(shop: dict[str, str], ceqs: Ceqs) -> None:
    assert "CEQS_KEY" in refusal(ceqs, "project", **{**shop, "CEQS_KEY": ""})


def test_without_contexts_there_is_nothing_to_serve(ceqs: Ceqs) -> None:
    for role in ("serve", "relay", "project", "dev", "tail"):
        assert refusal(ceqs, role).startswith("error: no contexts: ")


def test_calling_where_nobody_answers_fails(shop: dict[str, str], ceqs: Ceqs, free_port: int) -> None:
    missing = ceqs("call", "GetOrder", "order_id=1", "--address", f"127.0.0.1:{free_port}", "--wait", "0")
    assert missing.returncode == 1
    assert missing.stderr.startswith(f"error: nothing answers at 127.0.0.1:{free_port}; start it with `ceqs dev`")


def test_call_waits_for_a_server_that_is_starting(shop: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ceqs.cli", "call", "ceqs.v1.EventsService.GetHead", "--wait", "40"]
    serve = [sys.executable, "-m", "ceqs.cli", "serve", "orders"]
    env = {**os.environ, **shop}
    with subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True) as early:
        assert early.stderr is not None
        assert early.stderr.readline().startswith("waiting up to 40 s: nothing answers at 127.0.0.1:")
        with subprocess.Popen(serve, cwd=tmp_path, env=env) as server:
            try:
                assert early.wait(50) == 0
            finally:
                server.terminate()


def test_a_contract_that_does_not_compile_is_named_by_line(ceqs: Ceqs, tmp_path: Path) -> None:
    (tmp_path / "proto/a/v1").mkdir(parents=True)
    (tmp_path / "proto/a/v1/a.proto").write_text('syntax = "proto3";\npackage a.v1;\nmessage A { strin x = 1; }\n')
    refused = ceqs("gen")
    assert refused.returncode == 2
    assert "proto/a/v1/a.proto:3:" in refused.stderr
    assert not (tmp_path / "generated").exists()
