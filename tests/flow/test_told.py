"""A query model of another service's events, with both services in processes of their own that are killed."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.ports import free_address
from tests.unit.kiosk.street import CONTEXTS, Street

from ceqs.cli._settings import Settings
from ceqs.embedded import NatsServer
from ceqs.testing import eventually

START = 40.0
"""Seconds that a process may take to start on a busy machine."""


class Processes:
    """Roles of the press and the kiosk, by their command lines."""

    def __init__(self, settings: Settings, path: list[str], directory: Path) -> None:
        self.directory = directory
        self.running: dict[str, asyncio.subprocess.Process] = {}
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("CEQS_")},
            "PYTHONPATH": os.pathsep.join(path),
            "CEQS_CONTEXTS": ",".join(settings.contexts),
            "CEQS_ADDRESSES": ",".join(f"{name}={address}" for name, address in settings.addresses.items()),
            "CEQS_DATA": str(settings.data),
            "CEQS_KEY": settings.key,
            "CEQS_NATS_URL": settings.nats_url,
        }

    async def start(self, *lines: str) -> None:
        for line in lines:
            with (self.directory / f"{line.replace(' ', '-')}.log").open("a") as log:
                self.running[line] = await asyncio.create_subprocess_exec(
                    *[sys.executable, "-m", "ceqs.cli", *line.split()],
                    env=self.env,
                    cwd=self.directory,
                    stdout=log,
                    stderr=log,
                )

    async def kill(self, *lines: str) -> None:
        for line in lines:
            process = self.running.pop(line)
            process.kill()
            await process.wait()


@pytest.fixture
async def street(
    kiosk_path: list[str], nats_server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Street, Processes]]:
    for path in kiosk_path:
        monkeypatch.syspath_prepend(path)
    settings = Settings(
        contexts=list(CONTEXTS.values()),
        addresses={name: free_address() for name in CONTEXTS},
        data=tmp_path / "data",
        key="the key of the street",
        nats_url=nats_server.url,
    )
    street, processes = Street(settings, timeout=START), Processes(settings, kiosk_path, tmp_path)
    yield street, processes
    await processes.kill(*processes.running)
    await street.close()


@pytest.mark.timeout(300)
async def test_a_model_of_what_another_service_tells_outlives_both_and_is_what_was_told(
    street: tuple[Street, Processes],
) -> None:
    shop, processes = street
    dice = random.Random(5)
    await processes.start("serve press", "relay press", "project press")
    for number in range(20):
        await shop.write(number % 7, dice.choice(("news", "arts")))
    await shop.pull(3)

    # The kiosk opens on a press with history, and reads there what the press has written just now.
    await processes.start("serve kiosk", "project kiosk")
    reading = shop.kiosk.with_token(shop.press.token)
    found = await shop.offers(reading), await shop.sections(reading)
    assert found == shop.folded(await shop.told())

    # The press's server dies: the kiosk answers, and says that nobody knows what it lacks.
    await processes.kill("serve press", "project kiosk")

    async def unknown() -> bool:
        return bool((await shop.kiosk.count_sections(shop.pb.CountSectionsRequest())).age.behind == "press")

    await eventually(unknown, START)
    assert await shop.sections() == found[1]

    # Both are back, and the kiosk reads what the press writes.
    await processes.start("serve press", "project kiosk")
    for number in range(10):
        await shop.write(number, dice.choice(("news", "arts")))
        reading = shop.kiosk.with_token(shop.press.token)
        offer = await reading.get_offer(shop.pb.GetOfferRequest(article_id=str(number)))
        assert not offer.age.behind
        assert offer.message.offer.section
    assert (await shop.offers(reading), await shop.sections(reading)) == shop.folded(await shop.told())
