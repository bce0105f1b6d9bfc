"""How far each publisher has published: kept with the events, so that nothing is published twice, whatever is lost.

What a publisher derives has deterministic ids, and is appended once. But one whose place is lost, and whose code was
changed, would derive other events, and some from events that it passed over before: so where it begins is what the log
says, and not what the place does. A publisher that the log knows nothing of begins with the first event.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ceqs.log._ledger import C, Dialect


class Published(NamedTuple):
    """How far a publisher has published."""

    round: int = 1
    """How often history was begun with: again only where somebody wanted that."""
    position: int = 0
    """Everything up to here has been published, in this round."""


_READ = "SELECT round, position FROM publishers WHERE name = :name"
_NAMES = "SELECT name FROM publishers ORDER BY name"
_INSERT = "INSERT INTO publishers (name, round, position) VALUES (:name, :round, :position)"
_UPDATE = "UPDATE publishers SET round = :round, position = :position WHERE name = :name"


def farthest(known: Published, told: Published | None) -> Published:
    """Give how far a publisher is, by what is known and what it tells. Pure. What it tells of another round is idle."""
    if told is None or told.round != known.round:
        return known
    return max(known, told)


def next_round(known: Published) -> Published:
    """Give where a publisher stands that is to publish everything again. Pure."""
    return Published(known.round + 1, 0)


def note_published(connection: C, dialect: Dialect[C], *, name: str, told: Published | None) -> Published:
    """Note how far a publisher is; see Log.published. To be called under the log's lock."""
    stored = _stored(connection, dialect, name)
    known = farthest(stored or Published(), told)
    if known != (stored or Published()):
        _store(connection, dialect, name, known, new=stored is None)
    return known


def publish_again(connection: C, dialect: Dialect[C], *, name: str) -> Published:
    """Begin a publisher's next round; see Log.publish_again. To be called under the log's lock."""
    stored = _stored(connection, dialect, name)
    begun = next_round(stored or Published())
    _store(connection, dialect, name, begun, new=stored is None)
    return begun


def names(connection: C, dialect: Dialect[C]) -> Sequence[str]:
    """Give the publishers that have published, by name; see Log.publishers. To be called under the log's lock."""
    return [name for (name,) in dialect.rows(connection, _NAMES, {})]


def _stored(connection: C, dialect: Dialect[C], name: str) -> Published | None:
    rows = dialect.rows(connection, _READ, {"name": name})
    return Published(*rows[0]) if rows else None


def _store(connection: C, dialect: Dialect[C], name: str, value: Published, *, new: bool) -> None:
    dialect.run(connection, _INSERT if new else _UPDATE, {"name": name} | value._asdict())
