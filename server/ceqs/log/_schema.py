"""The tables of a log, for SQLite and PostgreSQL alike."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
)

SCHEMA_VERSION = 4

# SQLite makes a column the key of its B-tree only where its type is INTEGER.
_Position = BigInteger().with_variant(Integer, "sqlite")

metadata = MetaData()

meta = Table(
    "meta",
    metadata,
    Column("one", Integer, CheckConstraint("one = 1"), primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("log_id", Text, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("schema_version", Integer, nullable=False),
    Column("tag_generation", Integer, nullable=False),
    Column("tagging", Integer, nullable=False, comment="revision of the taggings"),
    comment="One row: what the log is",
)

events = Table(
    "events",
    metadata,
    Column("position", _Position, primary_key=True, autoincrement=False),
    Column("public_position", BigInteger),
    Column("id", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("bucket", Integer, nullable=False),
    Column("recorded_at", BigInteger, nullable=False, comment="microseconds since 1970, UTC"),
    Column("command_id", Text, nullable=False),
    # Last, so that SQLite reads the columns before it without walking the overflow pages of a large event.
    Column("envelope", LargeBinary, nullable=False, comment="ceqs.v1.RecordedEvent"),
    comment="The record: rows are appended, never changed",
)
Index("events_by_type", events.c.type, events.c.position)
_is_public = events.c.public_position.is_not(None)
Index("events_public", events.c.public_position, unique=True, sqlite_where=_is_public, postgresql_where=_is_public)

tags = Table(
    "tags",
    metadata,
    Column("generation", Integer, primary_key=True, autoincrement=False),
    Column("tag", Text, primary_key=True),
    Column("position", _Position, primary_key=True, autoincrement=False),
    Column("type", Text, nullable=False, comment="of the event, so that a boundary is judged from this index alone"),
    comment="An index derived from the events",
    sqlite_with_rowid=False,
)

commands = Table(
    "commands",
    metadata,
    Column("command_id", Text, primary_key=True),
    Column("content_hash", LargeBinary, nullable=False),
    Column("derived", Boolean, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("recorded_at", BigInteger, nullable=False, comment="microseconds since 1970, UTC"),
    Column("receipt", LargeBinary, nullable=False, comment="ceqs.v1.Receipt"),
    Column("response", LargeBinary, nullable=False),
    comment="What each accepted command was answered with",
    sqlite_with_rowid=False,
)

promises = Table(
    "promises",
    metadata,
    Column("since", BigInteger, primary_key=True, autoincrement=False, comment="microseconds since 1970, UTC"),
    Column("days", Integer, comment="NULL: for ever"),
    comment="For how long commands are remembered, by when they were recorded; rows are appended, never changed",
)

states = Table(
    "states",
    metadata,
    Column("state", Text, primary_key=True),
    Column("tag", Text, primary_key=True),
    Column("fingerprint", Text, nullable=False, comment="of the fold that made it"),
    Column("position", BigInteger, nullable=False, comment="it has folded every event of its boundary up to here"),
    Column("events", BigInteger, nullable=False, comment="how many those are"),
    Column("checksum", BigInteger, nullable=False),
    Column("body", LargeBinary, nullable=False, comment="the state's message"),
    comment="States of boundaries of one tag, each the latest that was kept; the record is what counts",
)

publishers = Table(
    "publishers",
    metadata,
    Column("name", Text, primary_key=True),
    Column("round", BigInteger, nullable=False),
    Column(
        "position", BigInteger, nullable=False, comment="of the last private event that is dealt with, in the round"
    ),
    comment="How far each publisher has published",
)

taggings = Table(
    "taggings",
    metadata,
    Column("type", Text, primary_key=True),
    Column("rule", Text, nullable=False, comment="key=number of the field (* if repeated), in order"),
    comment="By which fields of its payload the events of a type were tagged, in the generation that counts",
)

retagging = Table(
    "retagging",
    metadata,
    Column("generation", Integer, primary_key=True, autoincrement=False),
    Column("position", BigInteger, nullable=False, comment="up to here its tags are complete"),
    Column("rules", Text, nullable=False, comment="what it is built by: JSON of rules by type"),
    comment="The next generation of tags while it is being built",
)
