"""How long the ids of commands are remembered: what a log promises, and forgetting what it no longer promises.

A log remembers for ever unless it promises otherwise. Its promises stand in a table of their own, one below the other,
none ever changed: each command is kept as long as the promise says under which it was recorded, or a longer one that
was made later. So a promise is lengthened for all commands, and shortened only for those to come. Whoever deletes a
command sooner, by whatever tool, is refused by the database itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from ceqs.errors import Misconfigured
from ceqs.log._types import Purged

if TYPE_CHECKING:
    from ceqs.log._ledger import C, Dialect

DAY = 86_400_000_000
"""In microseconds."""
MAX_DAYS = 36_500
PURGED = 250
"""How many commands one transaction looks at: nobody waits long for the log's lock."""

Days: TypeAlias = int | None
"""None is for ever."""


class Promise(NamedTuple):
    """Commands that are recorded from `since` on (microseconds since 1970) are remembered for so many days."""

    since: int
    days: Days


def is_promised(recorded_at: int, promises: Sequence[Promise], now: int) -> bool:
    """Whether a command that was recorded then is still to be remembered. Promises come in their order; times in µs.

    Pure, and the same rule as the database's (see PROMISED).
    """
    before = [i for i, promise in enumerate(promises) if promise.since <= recorded_at]
    if not before:
        return True
    return any(p.days is None or recorded_at + p.days * DAY > now for p in promises[before[-1] :])


# `{row}` is a row of the commands, `{now}` the database's clock.
PROMISED = """
NOT EXISTS (SELECT 1 FROM promises AS b WHERE b.since <= {row}.recorded_at)
OR EXISTS (
    SELECT 1 FROM promises AS p
    WHERE p.since >= (SELECT max(b.since) FROM promises AS b WHERE b.since <= {row}.recorded_at)
    AND (p.days IS NULL OR {row}.recorded_at + p.days * 86400000000 > {now}))
"""
NOW_SQLITE = "CAST(strftime('%s', 'now') AS INTEGER) * 1000000"
NOW_POSTGRES = "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)"

_PROMISES = "SELECT since, days FROM promises ORDER BY since"
_LAST_COMMAND = "SELECT max(recorded_at) FROM commands"
_PROMISE = "INSERT INTO promises (since, days) VALUES (:since, :days)"
_COMMANDS = """
SELECT command_id, recorded_at, derived FROM commands WHERE command_id > :after ORDER BY command_id LIMIT :limit
"""


def next_promise(
    days: Days, promises: Sequence[Promise], last_command: int | None, *, shorten: bool, name: str
) -> Promise | None:
    """Give the promise to add, None where that is what is promised already. Pure.

    `last_command` is when the last command was recorded. Raises Misconfigured for a shorter promise that nobody asked
    to `shorten`, unless there is no command yet to which anything was promised.
    """
    if days is not None and not 0 < days <= MAX_DAYS:
        raise Misconfigured(f"commands are remembered for 1 to {MAX_DAYS} days or for ever, not for {days} days")
    current = promises[-1].days if promises else None
    if days == current:
        return None
    shorter = days is not None and (current is None or days < current)
    if shorter and last_command is not None and not shorten:
        raise Misconfigured(
            f"the log of {name} promises to remember commands {in_words(current)}, and {in_words(days)} is shorter. "
            "What is there is kept as it was promised. To promise less to the commands to come: "
            f"ceqs log remember {name} --days {days} --shorten"
        )
    return Promise(max(-1 if last_command is None else last_command, promises[-1].since if promises else -1) + 1, days)


def in_words(days: Days) -> str:
    """Say how long."""
    return "for ever" if days is None else f"for {days} day{'s' * (days != 1)}"


def read_promises(connection: C, dialect: Dialect[C]) -> list[Promise]:
    """Read what was promised, in the order in which it was."""
    return [Promise(*row) for row in dialect.rows(connection, _PROMISES, {})]


def promise(connection: C, dialect: Dialect[C], *, days: Days, shorten: bool, name: str) -> None:
    """Promise from now on to remember for so many days; see Log.remember. To be called under the log's lock."""
    promises = read_promises(connection, dialect)
    ((last_command,),) = dialect.rows(connection, _LAST_COMMAND, {})
    if added := next_promise(days, promises, last_command, shorten=shorten, name=name):
        dialect.run(connection, _PROMISE, added._asdict())


def purge(connection: C, dialect: Dialect[C], *, after: str, dry_run: bool) -> Purged:
    """Forget, of the next commands, those that nothing is promised to any more; see Log.purge."""
    promises = read_promises(connection, dialect)
    ((now,),) = dialect.rows(connection, dialect.now, {})
    found = dialect.rows(connection, _COMMANDS, {"after": after, "limit": PURGED})
    lapsed = [row[0] for row in found if not row[2] and not is_promised(row[1], promises, now)]
    if lapsed and not dry_run:
        dialect.run(connection, dialect.forget, {"ids": json.dumps(lapsed)})
    return purged([row[0] for row in found], lapsed)


def purged(examined: Sequence[str], lapsed: Sequence[str]) -> Purged:
    """Give what was done."""
    return Purged(len(examined), len(lapsed), examined[-1] if len(examined) == PURGED else "")
