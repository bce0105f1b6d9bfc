"""States that are kept beside the record, each as of a position: where folding begins, never what is trusted."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import structlog

from ceqs.log._types import Keep, Kept, StateKey

if TYPE_CHECKING:
    from ceqs.log._ledger import C, Dialect

_process_log = structlog.get_logger("ceqs.log")


class KeptRow(NamedTuple):
    """A kept state as the log stores it, in the order of the table's columns."""

    state: str
    tag: str
    fingerprint: str
    position: int
    events: int
    checksum: int
    body: bytes


_FIND = """
SELECT c.key, s.state, s.tag, s.fingerprint, s.position, s.events, s.checksum, s.body
FROM {items} AS c CROSS JOIN states AS s WHERE s.state = c.state AND s.tag = c.tag
"""
_STATEMENTS: Mapping[str, str] = {
    "sqlite": _FIND.format(
        items="""(
    SELECT key, json_extract(value, '$.state') AS state, json_extract(value, '$.tag') AS tag
    FROM json_each(:items))"""
    ),
    "postgresql": _FIND.format(
        items="""(
    SELECT * FROM jsonb_to_recordset(CAST(:items AS jsonb)) AS i(key integer, state text, tag text))"""
    ),
}
# Whoever decided on an older state, however late it comes, leaves the newer one in its place.
REPLACE = f"""ON CONFLICT (state, tag) DO UPDATE SET
{", ".join(f"{column} = excluded.{column}" for column in KeptRow._fields[2:])}
WHERE excluded.position > states.position"""


def to_row(keep: Keep, position: int) -> KeptRow:
    """Give a state as it is stored at the position of its entry's last event."""
    row = KeptRow(keep.state, keep.tag, keep.fingerprint, position, keep.events, 0, keep.body)
    return row._replace(checksum=_checksum(row))


def to_kept(row: KeptRow | None, key: StateKey) -> Kept | None:
    """Give what is stored as a value; None where it is of another fold, or damaged."""
    if row is None or row.fingerprint != key.fingerprint:
        return None
    if row.checksum != _checksum(row):
        _process_log.warning("a kept state is damaged, it is folded from its first event", state=row.state, tag=row.tag)
        return None
    return Kept(row.position, row.events, row.body)


def read_kept(connection: C, dialect: Dialect[C], wanted: Sequence[StateKey]) -> Sequence[Kept | None]:
    """Read kept states with one statement, however many they are."""
    items = [{"key": key, "state": one.state, "tag": one.tag} for key, one in enumerate(wanted)]
    found = dialect.rows(connection, _STATEMENTS[dialect.name], {"items": json.dumps(items)})
    rows = {key: KeptRow(*row) for key, *row in found}
    return [to_kept(rows.get(key), one) for key, one in enumerate(wanted)]


def _checksum(row: KeptRow) -> int:
    said = "\0".join((row.state, row.tag, row.fingerprint, str(row.position), str(row.events)))
    return zlib.crc32(row.body, zlib.crc32(said.encode()))
