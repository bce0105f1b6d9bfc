"""`ceqs republish`, with and without a server."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ceqs.log import open_log

Ceqs = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def env(tmp_path: Path, free_port: int) -> dict[str, str]:
    return {
        "CEQS_CONTEXTS": "shop.orders.context:orders",
        "CEQS_ADDRESSES": f"orders=127.0.0.1:{free_port}",
        "CEQS_DATA": str(tmp_path / "data"),
        "CEQS_KEY": "secret",
    }


def test_a_publisher_is_told_to_publish_again_by_somebody_who_is_sure(
    ceqs: Ceqs, env: dict[str, str], tmp_path: Path
) -> None:
    async def round_() -> int:
        log = await open_log(f"sqlite:///{tmp_path}/data/logs/orders.db", "orders")
        found = (await log.published("publish-orders")).round
        await log.close()
        return found

    def again(*options: str) -> subprocess.CompletedProcess[str]:
        return ceqs("republish", "publish-orders", "-o", "json", *options, **env)

    refused = again()
    assert refused.returncode == 2
    assert "--yes" in refused.stderr
    assert asyncio.run(round_()) == 1
    assert json.loads(again("--yes").stdout) == {"publisher": "orders/publish-orders", "round": 2}
    command = [sys.executable, "-m", "ceqs.cli", "serve", "--output", "json"]
    environment = {**os.environ, **env}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        server.stdout.readline()
        assert json.loads(again("--yes").stdout)["round"] == 3
        server.terminate()
    assert asyncio.run(round_()) == 3
