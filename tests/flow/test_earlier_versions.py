"""A system with history is deployed anew, and from then on records its events otherwise."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.ports import free_address

from ceqs.testing import eventually

CEQS = str(Path(sys.executable).parent / "ceqs")
Ceqs = Callable[..., subprocess.CompletedProcess[str]]
PARCELS = Path(__file__).parent.parent / "unit/parcels"
PROJECT = """
[tool.ceqs]
contexts = ["parcels_context:parcels"]
generated = "."
"""


class Deployed:
    """A project directory, the build that is in it, and its processes."""

    def __init__(self, directory: Path, ceqs: Ceqs) -> None:
        self.directory = directory
        self._ceqs = ceqs
        (directory / "pyproject.toml").write_text(PROJECT)
        self.address = free_address()

    @contextlib.contextmanager
    def running(self, build: Path) -> Iterator[None]:
        """Put a build in the place of the one before, and run it."""
        shutil.copytree(build / "proto", self.directory / "proto", dirs_exist_ok=True)
        shutil.copy(build / "parcels_context.py", self.directory)
        self.ceqs("gen")
        process = subprocess.Popen(
            [CEQS, "dev", "--output", "json"],
            cwd=self.directory,
            env={**os.environ, "CEQS_ADDRESSES": f"parcels={self.address}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            assert process.stdout is not None
            assert any(json.loads(line).get("ready") for line in process.stdout)
            yield
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)

    def ceqs(self, *arguments: str) -> list[Any]:
        done = self._ceqs(*arguments, "--output", "json", cwd=self.directory)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    @property
    def key(self) -> str:
        """The key that `ceqs dev` has made."""
        return str(json.loads((self.directory / ".ceqs/dev.json").read_text())["key"])


async def recorded(client: Any, scope: str) -> list[tuple[int, int, Any]]:
    """Give the events of a log as they mean something today: position, version and message."""
    events = client.events(scope=scope, live=False)
    return [(event.position, event.version, event.message) async for event in events]


@pytest.mark.timeout(180)
async def test_a_system_with_history_reads_what_earlier_builds_recorded(
    tmp_path: Path, parcels: Any, ceqs: Ceqs
) -> None:
    deployed = Deployed(tmp_path, ceqs)
    with deployed.running(PARCELS / "past"):
        deployed.ceqs("call", "WeighParcel", "parcel_id=a", "pounds=2")
        deployed.ceqs("call", "WeighParcel", "parcel_id=a", "pounds=2.5")  # The state is kept now, in pounds.
        deployed.ceqs("call", "SendParcel", "parcel_id=a", "address=Ada, GB")
        async with parcels.ParcelsClient(deployed.address) as client:
            await eventually(lambda: recorded(client, "public"), 40)

    with deployed.running(PARCELS):
        async with parcels.ParcelsClient(deployed.address, key=deployed.key) as client:
            answer = await client.get_parcel(parcels.GetParcelRequest(parcel_id="a"))
            receiver = parcels.Receiver(name="Ada", country="GB")
            assert answer.message.parcel == parcels.Parcel(parcel_id="a", milligrams=1_134_000, receiver=receiver)
            await client.weigh_parcel(parcels.WeighParcelRequest(parcel_id="b", milligrams=5))
            # The projection and the subscriber are new: they begin with the first event.
            async with asyncio.timeout(40):
                listed = await client.list_weights(parcels.ListWeightsRequest(), timeout=40)
                while len(found := await recorded(client, "private")) < 6:
                    await asyncio.sleep(0.1)
            assert listed.message.milligrams == {"a": 1_134_000, "b": 5}
            assert {type(message).__name__ for _, _, message in found} == {
                "ParcelWeighed",
                "ParcelSent",
                "ParcelNoted",
                "ParcelAnnounced",
            }
            notes = await client.get_notes(parcels.GetNotesRequest(parcel_id="a"))
            assert notes.message.notes.texts == ["to GB"]
            # The publisher is not: what it has announced, it does not announce again.
            announced = parcels.ParcelAnnounced(parcel_id="a", country="GB")
            assert await recorded(client, "public") == [(4, 2, announced)]
