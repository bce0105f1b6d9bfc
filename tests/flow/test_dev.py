"""`ceqs dev` as a developer lives with it: call, tail, break things, change things, Ctrl-C."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.ports import free_address

from ceqs.cli._new import write_project

CEQS = str(Path(sys.executable).parent / "ceqs")
Ceqs = Callable[..., subprocess.CompletedProcess[str]]
ROLES = {"serve", "relay", "project"}


def until(condition: Callable[[], Any], what: str, within: float = 40.0) -> Any:
    """Wait for a condition; give its value."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        time.sleep(0.05)
    return value


def children(pid: int) -> dict[int, str]:
    """Give the command lines of the processes that a process has started, and they, by process id."""
    parents: dict[int, int] = {}
    commands: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # It may end while we look.
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                commands[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    found: dict[int, str] = {}
    wanted = [pid]
    while wanted:
        one = wanted.pop()
        for child in (child for child, parent in parents.items() if parent == one and child in commands):
            found[child] = commands[child]
            wanted.append(child)
    return found


class Dev:
    """A running `ceqs dev` of the project `bakery`."""

    def __init__(self, project: Path, ceqs: Ceqs) -> None:
        self.project = project
        self._ceqs = ceqs
        self.address = free_address()
        self.env = {**os.environ, "CEQS_ADDRESSES": f"bakery={self.address}"}
        command = [CEQS, "dev", "--output", "json"]
        self.process = subprocess.Popen(
            command, cwd=project, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.lines: list[dict[str, Any]] = []
        self.errors: list[str] = []
        self._readers = [threading.Thread(target=self._read), threading.Thread(target=self._read_errors)]
        for reader in self._readers:
            reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            self.lines.extend(map(json.loads, lines))

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            self.errors.extend(lines)

    def said(self, process: str, text: str) -> list[str]:
        return [line["line"] for line in list(self.lines) if line.get("process") == process and text in line["line"]]

    def ceqs(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self._ceqs(*arguments, cwd=self.project)

    def call(self, rpc: str, *words: str) -> dict[str, Any]:
        """Call until it is answered: a process may be starting."""
        called: list[subprocess.CompletedProcess[str]] = []

        def answered() -> bool:
            called.append(self.ceqs("call", rpc, *words, "--output", "json"))
            return called[-1].returncode == 0

        until(answered, f"{rpc}: {[one.stderr for one in called[-1:]]}")
        answer: dict[str, Any] = json.loads(called[-1].stdout)
        return answer

    def pid_of(self, text: str, *, other_than: int = 0) -> int | None:
        found = children(self.process.pid)
        return next((pid for pid, line in found.items() if text in line and pid != other_than), None)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        self.process.wait(30)
        for reader in self._readers:
            reader.join(10)


@pytest.fixture
def dev(tmp_path: Path, ceqs: Ceqs) -> Iterator[Dev]:
    running = Dev(write_project(tmp_path, "bakery"), ceqs)
    try:
        until(lambda: any(line.get("ready") for line in list(running.lines)), "ready")
        yield running
    finally:
        running.end()


def test_call_tail_and_ctrl_c(dev: Dev) -> None:
    (ready,) = [line for line in dev.lines if line.get("ready")]
    assert ready["addresses"] == {"bakery": dev.address}
    # The key lies where only its owner can read it.
    state = dev.project / ".ceqs/dev.json"
    assert state.stat().st_mode & 0o777 == 0o600
    assert json.loads(state.read_text())["key"] not in json.dumps(dev.lines)

    tail = subprocess.Popen(
        [CEQS, "tail", "bakery", "--type", "ItemOpened", "--after", "0", "--output", "json"],
        cwd=dev.project,
        stdout=subprocess.PIPE,
        text=True,
    )
    events: queue.Queue[dict[str, Any]] = queue.Queue()
    assert tail.stdout is not None
    lines = tail.stdout

    def read() -> None:
        for line in lines:
            events.put(json.loads(line))

    reader = threading.Thread(target=read)
    reader.start()
    receipt = dev.call("OpenItem", "item_id=1", "title=bread")["answer"]["receipt"]
    dev.call("CloseItem", '{"item_id": "1"}')
    dev.call("bakery.v1.ItemCommandsService/OpenItem", "item_id=2", "title=cake")
    first, second = events.get(timeout=20), events.get(timeout=20)
    assert (first["position"], first["id"], first["event"]["item_id"]) == (1, receipt["event_ids"][0], "1")
    assert (second["position"], second["event"]["item_id"]) == (3, "2")
    tail.send_signal(signal.SIGINT)
    assert tail.wait(20) == 0
    reader.join()
    lines.close()

    # The state answers at once, the projection once it includes what was asked for.
    assert dev.call("GetItem", "item_id=1")["answer"]["item"]["closed"] is True
    token = dev.call("OpenItem", "item_id=3", "title=pie", "--command-id", "pie")["answer"]["receipt"]["token"]
    listed = dev.call("ListOpenItems", "--at-least", token)
    assert [item["title"] for item in listed["answer"]["items"]] == ["cake", "pie"]
    assert listed["age"]["token"] == token
    # One command id, one item: the first receipt again.
    assert dev.call("OpenItem", "item_id=3", "title=pie", "--command-id", "pie")["answer"]["receipt"]["token"] == token

    rejected = dev.ceqs("call", "OpenItem", "item_id=3", "title=tart")
    assert (rejected.returncode, rejected.stderr) == (1, "error: ITEM_EXISTS: the item 3 was opened before\n")
    misspelt = dev.ceqs("call", "OpenItm")
    assert (misspelt.returncode, misspelt.stderr) == (2, "error: no rpc 'OpenItm'; did you mean OpenItem?\n")
    closed = dev.ceqs("tail", "--public", "--after", "0", "--no-follow")
    assert (closed.returncode, closed.stdout) == (0, "")

    first_two = dev.ceqs("tail", "--after", "0", "--limit", "2", "--output", "json")
    assert [json.loads(line)["position"] for line in first_two.stdout.splitlines()] == [1, 2]

    second_dev = dev.ceqs("dev")
    assert second_dev.returncode == 2
    assert "ceqs dev runs here already" in second_dev.stderr

    started = children(dev.process.pid)
    assert len(started) == len(ROLES) + 1
    began = time.monotonic()
    dev.end()
    assert time.monotonic() - began < 10
    assert dev.process.returncode == 0
    assert [pid for pid in started if Path(f"/proc/{pid}").exists()] == []
    assert not state.exists()


def test_whatever_is_killed_starts_again_and_nothing_is_lost(dev: Dev) -> None:
    dev.call("OpenItem", "item_id=0", "title=t0")
    for number, victim in enumerate(["serve", "relay", "project", "nats-server"], start=1):
        pid = until(partial(dev.pid_of, victim), f"{victim} runs")
        os.kill(pid, signal.SIGKILL)
        until(partial(dev.pid_of, victim, other_than=pid), f"{victim} runs again")
        dev.call("OpenItem", f"item_id={number}", f"title=t{number}")
    token = dev.call("OpenItem", "item_id=5", "title=t5")["answer"]["receipt"]["token"]
    listed = dev.call("ListOpenItems", "--at-least", token)["answer"]["items"]
    assert [item["item_id"] for item in listed] == ["0", "1", "2", "3", "4", "5"]


def test_a_changed_contract_is_generated_and_served(dev: Dev) -> None:
    dev.call("OpenItem", "item_id=1", "title=bread")
    proto = dev.project / "proto/bakery/v1/bakery.proto"
    sound = proto.read_text()

    # What does not compile is said by line, and what runs goes on.
    proto.write_text(sound.replace("string title = 2 [", "strin title = 2 ["))
    until(lambda: any("bakery.proto:" in line for line in list(dev.errors)), "the mistake is named")
    assert dev.call("GetItem", "item_id=1")["answer"]["item"]["title"] == "bread"

    field = "  // When it was opened; unset"
    proto.write_text(sound.replace(field, f"  // What it costs.\n  int64 price = 5;\n{field}"))
    context = dev.project / "bakery/context.py"
    until(lambda: "price" in (dev.project / "bakery/v1/bakery_pb2.pyi").read_text(), "the contract is generated")
    context.write_text(
        context.read_text().replace("item.title = event.title", "item.title, item.price = event.title, 7")
    )
    until(lambda: dev.call("GetItem", "item_id=1")["answer"]["item"].get("price") == "7", "the new code answers")

    settings = dev.project / "pyproject.toml"
    settings.write_text(settings.read_text().replace("[tool.ceqs]", "[tool.ceqs]\ngrace = 5.0"))
    until(lambda: dev.said("dev", "pyproject.toml changed: starting again"), "other settings are read")
    assert dev.call("GetItem", "item_id=1")["answer"]["item"]["price"] == "7"


def test_a_call_of_a_new_rpc_waits_until_dev_serves_it(dev: Dev) -> None:
    proto, context = dev.project / "proto/bakery/v1/bakery.proto", dev.project / "bakery/context.py"
    rpc = "  // Gives it once more.\n  rpc PeekItem(PeekItemRequest) returns (PeekItemResponse) {\n"
    rpc += '    option (ceqs.v1.query).state = "Item";\n  }\n'
    messages = (
        '// It.\nmessage PeekItemRequest {\n  // Its id.\n  string item_id = 1 [(ceqs.v1.field).tag = "item"];\n}\n'
    )
    messages += "// It.\nmessage PeekItemResponse {\n  // It.\n  Item item = 1;\n}\n"
    query = "  // Gives an item whenever it changes."
    proto.write_text(proto.read_text().replace(query, rpc + query) + messages)
    assert dev.ceqs("gen").returncode == 0
    assert "PeekItem" not in context.read_text()
    peeked = dev.ceqs("call", "PeekItem", "item_id=1", "--wait", "40")
    assert "nothing is recorded of item:1" in peeked.stderr


def test_dev_that_is_killed_leaves_nothing_behind(dev: Dev) -> None:
    started = children(dev.process.pid)
    dev.process.kill()
    until(lambda: not [pid for pid in started if Path(f"/proc/{pid}").exists()], "its children are gone", within=10)


def test_a_taken_port_is_named_before_anything_starts(tmp_path: Path) -> None:
    project = write_project(tmp_path, "bakery")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        env = {**os.environ, "CEQS_ADDRESSES": f"bakery={address}"}
        refused = subprocess.run(
            [CEQS, "dev"], cwd=project, env=env, capture_output=True, text=True, timeout=60, check=False
        )
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"error: {address}, where bakery shall be served, is not free")
    assert refused.stderr.count("\n") == 1
    assert not (project / ".ceqs").exists()
