"""How far each publisher has published: every log keeps it, and it only goes forward."""

from __future__ import annotations

from pathlib import Path

import pytest

from ceqs.log import Log, Published, backup_log, open_log, restore_log


async def test_how_far_a_publisher_is_only_goes_forward(log: Log) -> None:
    assert await log.published("a") == Published(1, 0)
    assert await log.published("a", Published(1, 7)) == Published(1, 7)
    assert await log.published("a", Published(1, 5)) == Published(1, 7)
    assert await log.published("b") == Published(1, 0)
    assert await log.publishers() == ["a"]


async def test_a_publisher_that_is_to_begin_again_is_not_taken_back_by_what_it_tells_of_before(log: Log) -> None:
    await log.published("a", Published(1, 7))
    assert await log.publish_again("a") == Published(2, 0)
    assert await log.published("a", Published(1, 9)) == Published(2, 0)
    assert await log.published("a", Published(3, 9)) == Published(2, 0)
    assert await log.published("a", Published(2, 3)) == Published(2, 3)
    assert await log.publish_again("new") == Published(2, 0)
    assert await log.publishers() == ["a", "new"]


async def test_what_was_published_is_known_after_a_restart_and_in_a_backup(url: str, name: str, tmp_path: Path) -> None:
    if url == "memory:":
        pytest.skip("a log in memory ends with its process")
    log = await open_log(url, name)
    await log.published("a", Published(1, 7))
    await log.close()
    log = await open_log(url, name)
    assert await log.published("a") == Published(1, 7)
    await backup_log(url, name, tmp_path / "backup.db")
    await log.published("a", Published(1, 8))
    await log.close()
    await restore_log(url, name, tmp_path / "backup.db", replace=True)
    log = await open_log(url, name)
    assert await log.published("a") == Published(1, 7)
    await log.close()
