"""The tally, and how hard it is tried."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings

from ceqs.codegen import generate
from ceqs.log import _postgres

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def tally(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The messages of the tally by name, and `make_context()`."""
    generated = tmp_path_factory.mktemp("generated")
    generate(HERE / "proto", generated)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(generated), str(HERE), str(HERE.parents[1]), *sys.path])
        context, messages = importlib.import_module("tally_context"), importlib.import_module("tally.v1.tally_pb2")
    return SimpleNamespace(**vars(messages), make_context=context.make_context, messages=messages)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where logs are kept."""
    # A log counts as quiet soon enough for a short history to meet that.
    monkeypatch.setattr(_postgres, "_QUIET", 1)
    return str(request.param)


@pytest.fixture
def trials(store: str) -> settings:
    """The same few trials every time; with CEQS_EXAMPLES, so many and other ones every time."""
    wanted = int(os.environ.get("CEQS_EXAMPLES", "0"))
    few = {"memory": 20, "sqlite": 10, "postgres": 4}[store]
    return settings(
        max_examples=wanted or few,
        stateful_step_count=25,
        derandomize=not wanted,
        database=None,
        deadline=None,
        phases=[Phase.generate],  # shrinking wants what happens the same way every time; a cancelled call does not
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
