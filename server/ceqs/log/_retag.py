"""Building the next generation of tags beside the one that counts, and putting it in its place.

Tags are derived from the payloads of events by the contract's annotations. Where these have changed, all tags are
derived anew, in transactions of some hundred events each, while servers go on appending by the old ones; the last few
events follow under the log's lock, together with the change. Killed at any point, it goes on where it stood.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from itertools import accumulate, takewhile
from typing import TYPE_CHECKING

from ceqs.contract import tags_of
from ceqs.errors import Invalid, Misconfigured
from ceqs.log._schema import tags
from ceqs.log._tagging import Rules, read_rules, rules_of, write_rules
from ceqs.log._types import MAX_SLICE_BYTES, Retagged
from ceqs.model import EventDecoder

if TYPE_CHECKING:
    from ceqs.log._ledger import C, Dialect
    from ceqs.log._sql import Store

BATCH = 1_000
"""How many events one transaction tags at most."""
_BATCH_BYTES = 8 * MAX_SLICE_BYTES
_SWEPT = 5_000
"""How many tags of earlier generations one transaction deletes at most, and as many of those that were given up."""

# Walks from type to type along events_by_type, however many events there are of each.
_TYPES = """
WITH RECURSIVE found(type) AS (
    SELECT min(type) FROM events
    UNION ALL
    SELECT (SELECT min(e.type) FROM events AS e WHERE e.type > f.type) FROM found AS f WHERE f.type IS NOT NULL
) SELECT type FROM found WHERE type IS NOT NULL
"""
_SIZES = "SELECT position, length(envelope) FROM events WHERE position > :after ORDER BY position LIMIT :limit"
_EVENTS = "SELECT position, type, envelope FROM events WHERE position > :after AND position <= :until ORDER BY position"
_LAST_GENERATION = """
SELECT max(generation) FROM (
    SELECT tag_generation AS generation FROM meta UNION ALL SELECT max(generation) FROM tags) AS found
"""
_HEAD = "SELECT coalesce(max(position), 0) FROM events"
_SWEEP = """
DELETE FROM tags WHERE (generation, tag, position) IN (
    SELECT generation, tag, position FROM tags WHERE generation {side} (SELECT tag_generation FROM meta)
    AND generation NOT IN (SELECT generation FROM retagging) LIMIT :limit)
"""
_SWEEPS = _SWEEP.format(side="<"), _SWEEP.format(side=">")


async def retag(
    store: Store,
    decoder: EventDecoder,
    *,
    anew: bool = False,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Retagged:
    """Make the log's tags those that the decoder's contract annotates, if they are not; or in any case `anew`.

    `report` hears, after each transaction, up to which position events are tagged and where the head stands.

    Raises Misconfigured where the log holds an event that the contract does not declare or a value that cannot be a
    tag. The tags that count are as they were then.
    """
    rules = rules_of(decoder.contract)
    changed = await store.work(partial(_begin, rules=rules, anew=anew))
    events = await _rebuild(store, rules, decoder, report) if changed or anew else 0
    while await store.work(_sweep, locked=False):
        pass
    return Retagged(await store.work(_generation), tuple(changed), events)


async def _rebuild(store: Store, rules: Rules, decoder: EventDecoder, report: Callable[[int, int], None]) -> int:
    step, flip = partial(_advance, rules=rules, decoder=decoder), partial(_flip, rules=rules, decoder=decoder)
    try:
        done, head = await store.work(step, locked=False)
        while head - done >= BATCH:
            report(done, head)
            done, head = await store.work(step, locked=False)
        done = await store.work(flip)
    except _DoneElsewhere as elsewhere:
        done = elsewhere.head
    report(done, done)
    return done


class _DoneElsewhere(Exception):
    """Another process that retags by the same rules was faster."""

    def __init__(self, head: int) -> None:
        self.head = head


def _begin(connection: C, dialect: Dialect[C], *, rules: Rules, anew: bool) -> list[str]:
    """Say which types are tagged by other rules, and begin or resume the next generation where there are any."""
    recorded = [name for (name,) in dialect.rows(connection, _TYPES, {})]
    for name in recorded:
        if name not in rules:
            raise Misconfigured(_undeclared(name))
    stored = read_rules(connection, dialect)
    changed = [name for name in recorded if stored.get(name) != rules[name]]
    under_way = dialect.rows(connection, "SELECT generation, rules FROM retagging", {})
    wanted = bool(changed or anew)
    if any(json.loads(found) != rules for _, found in under_way) or not wanted:
        dialect.run(connection, "DELETE FROM retagging", {})
    if wanted and not any(json.loads(found) == rules for _, found in under_way):
        # What is left of one that was given up must not be taken for a part of this one.
        ((last,),) = dialect.rows(connection, _LAST_GENERATION, {})
        dialect.run(
            connection,
            "INSERT INTO retagging VALUES (:generation, 0, :rules)",
            {"generation": last + 1, "rules": json.dumps(rules)},
        )
    return changed


def _advance(connection: C, dialect: Dialect[C], *, rules: Rules, decoder: EventDecoder) -> tuple[int, int]:
    """Tag the next events; give the position up to which events are tagged now, and the head's."""
    # Locks the row: a second process that retags by the same rules takes turns with this one.
    dialect.run(connection, "UPDATE retagging SET position = position", {})
    under_way = dialect.rows(connection, "SELECT generation, position, rules FROM retagging", {})
    ((head,),) = dialect.rows(connection, _HEAD, {})
    if not under_way and read_rules(connection, dialect).items() >= rules.items():
        raise _DoneElsewhere(head)
    if not under_way or json.loads(under_way[0][2]) != rules:
        raise Misconfigured("another process retags the log by another contract: see that all of them have the same")
    generation, after, _ = under_way[0]
    sizes = dialect.rows(connection, _SIZES, {"after": after, "limit": BATCH})
    totals = takewhile(lambda total: total <= _BATCH_BYTES, accumulate(size for _, size in sizes))
    if until := sizes[max(1, sum(1 for _ in totals)) - 1][0] if sizes else 0:
        events = dialect.rows(connection, _EVENTS, {"after": after, "until": until})
        rows = [
            (generation, tag, position, event_type)
            for position, event_type, envelope in events
            for tag in _tags(decoder, event_type, position, envelope)
        ]
        if rows:
            dialect.insert(connection, tags, rows)
        dialect.run(connection, "UPDATE retagging SET position = :until", {"until": until})
    return until or after, head


def _tags(decoder: EventDecoder, event_type: str, position: int, envelope: bytes) -> tuple[str, ...]:
    event = decoder.contract.recorded.get(event_type)
    if event is None:
        raise Misconfigured(_undeclared(event_type))
    if not event.tags:
        return ()
    message = decoder.decode_stored(envelope)
    try:
        return tags_of(message, event.tags)
    except Invalid as error:
        raise Misconfigured(
            f"{event.name} at position {position} cannot be tagged: {error.message}. Take the tag off the field"
        ) from error


def _flip(connection: C, dialect: Dialect[C], *, rules: Rules, decoder: EventDecoder) -> int:
    """Tag the last events and let the new generation count. Nothing is appended meanwhile: the log is locked."""
    done, head = _advance(connection, dialect, rules=rules, decoder=decoder)
    while done < head:
        done, head = _advance(connection, dialect, rules=rules, decoder=decoder)
    dialect.run(connection, "UPDATE meta SET tag_generation = (SELECT generation FROM retagging)", {})
    dialect.run(connection, "DELETE FROM retagging", {})
    dialect.run(connection, "DELETE FROM taggings", {})
    write_rules(connection, dialect, rules)
    return done


def _sweep(connection: C, dialect: Dialect[C]) -> int:
    """Delete some tags of generations that no longer count, or that were given up; give how many."""
    return sum(dialect.run(connection, sweep, {"limit": _SWEPT}) for sweep in _SWEEPS)


def _generation(connection: C, dialect: Dialect[C]) -> int:
    ((generation,),) = dialect.rows(connection, "SELECT tag_generation FROM meta", {})
    return int(generation)


def _undeclared(event_type: str) -> str:
    return (
        f"the log holds {event_type}, which the contract does not declare: its tags come from nowhere. Declare it again"
    )
