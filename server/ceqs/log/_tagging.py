"""By which fields of their payloads events are tagged: what the log was indexed by, and what this process goes by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

from ceqs.contract import Contract, EventType
from ceqs.errors import Unavailable

if TYPE_CHECKING:
    from ceqs.log._ledger import C, Dialect

Rules: TypeAlias = Mapping[str, str]
"""The rule of each event type, by its full name."""


def rules_of(contract: Contract) -> Rules:
    """Give the rules of a contract's annotations."""
    return {name: _rule(event) for name, event in contract.recorded.items()}


def _rule(event: EventType) -> str:
    # A field is told by its number: a new name of it changes no tag.
    fields = event.message.DESCRIPTOR.fields_by_name
    return ",".join(sorted(f"{tag.key}={fields[tag.field].number}{'*' * tag.repeated}" for tag in event.tags))


class Tagging:
    """The rules of this process, and the revision of the log's that they are known to fit.

    A process that declares none names the tags of its events itself, and goes by whatever the log has.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.rules: Rules = {}
        self.revision = 0
        """0 while they are not known to fit."""

    def fits(self, revision: int) -> bool:
        """Whether the rules are known to fit the log as it is at a revision."""
        return not self.rules or revision == self.revision

    def unfit(self, stored: Rules) -> list[str]:
        """Give the types that the log is indexed by other rules of. Of those that nobody declared, it has no events."""
        return [name for name, rule in self.rules.items() if stored.get(name, rule) != rule]

    def judge(self, revision: int, stored: Rules) -> None:
        """Raise Unavailable where the log, as it is at a revision, is indexed by other rules."""
        self.revision = 0
        if unfit := self.unfit(stored):
            names = ", ".join(name.rpartition(".")[2] for name in unfit)
            raise Unavailable(
                f"the log is indexed by other tags of {names} than the contract annotates now. "
                f"Run: ceqs log retag {self._name}"
            )
        self.revision = revision


def adopt(connection: C, dialect: Dialect[C], *, rules: Rules) -> Rules:
    """Store the rules of types that have no events, which any rule fits, and of types that nobody declared before.

    Gives what is stored then. To be called in a transaction that holds the log's lock.
    """
    stored = read_rules(connection, dialect)
    free = {
        name: rule
        for name, rule in rules.items()
        if stored.get(name) != rule and (name not in stored or not _is_recorded(connection, dialect, name))
    }
    if free:
        write_rules(connection, dialect, free)
    return {**stored, **free}


def read_rules(connection: C, dialect: Dialect[C]) -> Rules:
    """Read by which rules the generation of tags that counts was built."""
    return {row[0]: row[1] for row in dialect.rows(connection, "SELECT type, rule FROM taggings", {})}


def write_rules(connection: C, dialect: Dialect[C], rules: Rules) -> None:
    """Store rules, and tell by a new revision that they changed."""
    for name, rule in rules.items():
        dialect.run(
            connection,
            "INSERT INTO taggings VALUES (:type, :rule) ON CONFLICT (type) DO UPDATE SET rule = excluded.rule",
            {"type": name, "rule": rule},
        )
    dialect.run(connection, "UPDATE meta SET tagging = tagging + 1", {})


def _is_recorded(connection: C, dialect: Dialect[C], event_type: str) -> bool:
    return bool(dialect.rows(connection, "SELECT 1 FROM events WHERE type = :type LIMIT 1", {"type": event_type}))
