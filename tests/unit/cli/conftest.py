"""For the tests of the commands."""

from __future__ import annotations

import os

import pytest
from tests import ports


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("CEQS_"):
            monkeypatch.delenv(name)


@pytest.fixture
def free_port() -> int:
    return ports.free_port()
