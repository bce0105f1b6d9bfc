"""Runs the projector of a context: `run_projector.py MODULE:CONTEXT SETTINGS [POINT:COUNT]`.

SETTINGS is JSON. With a point the process kills itself there, at the COUNTth time: `commit` (rows and checkpoint are
written, not committed) or `settle` (calls were answered, their outcomes not recorded).
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from ceqs.projectors import Projector, ProjectorSettings
from ceqs.projectors._outbox import Outbox
from ceqs.projectors._store import Store


def die_at(point: str, count: int) -> None:
    left = count

    def maybe() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    if point == "commit":
        advance = Store.advance

        @asynccontextmanager
        async def dying(self: Store, *arguments: Any, **options: Any) -> AsyncIterator[Any]:
            async with advance(self, *arguments, **options) as session:
                yield session
                await session.flush()
                maybe()

        Store.advance = dying  # type: ignore[method-assign]
    else:
        settle = Outbox.settle

        async def dying_too(self: Outbox, outcomes: Any) -> None:
            maybe()
            await settle(self, outcomes)

        Outbox.settle = dying_too  # type: ignore[method-assign]


async def main() -> None:
    module, _, name = sys.argv[1].partition(":")
    if len(sys.argv) > 3:
        point, _, count = sys.argv[3].partition(":")
        die_at(point, int(count))
    context = getattr(importlib.import_module(module), name)
    await Projector(context, ProjectorSettings(**json.loads(sys.argv[2]))).run()


asyncio.run(main())
