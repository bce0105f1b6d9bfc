"""The tables that the platform keeps in a place, beside the handler's own."""

from __future__ import annotations

import datetime as dt

import sqlalchemy as sa

PLATFORM = sa.MetaData()

CHECKPOINT = sa.Table(
    "ceqs_checkpoint",
    PLATFORM,
    sa.Column("source", sa.String, primary_key=True, comment="the context whose log is read"),
    sa.Column("log_id", sa.String, nullable=False),
    sa.Column("position", sa.BigInteger, nullable=False, comment="a public position where the source is foreign"),
    sa.Column("event_id", sa.String, nullable=False),
    sa.Column("recorded_at", sa.DateTime(timezone=True)),
    sa.Column("skipped", sa.BigInteger, nullable=False, comment="events that the handler does not hear"),
    sa.Column("paused", sa.String, nullable=False, comment="why the handler waits; empty where it does not"),
)

OUTBOX = sa.Table(
    "ceqs_outbox",
    PLATFORM,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("request_id", sa.String, nullable=False, unique=True, comment="deterministic: sent twice, done once"),
    sa.Column("path", sa.String, nullable=False, comment="the rpc"),
    sa.Column("request", sa.LargeBinary, nullable=False),
    sa.Column("keys", sa.JSON, nullable=False, comment="rows that share a key are sent in order"),
    sa.Column("causation_id", sa.String, nullable=False),
    sa.Column("correlation_id", sa.String, nullable=False),
    sa.Column("depth", sa.Integer, nullable=False),
    sa.Column("outcome", sa.String, nullable=False, index=True, comment="empty while the row waits to be sent"),
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("message", sa.String, nullable=False),
    sqlite_autoincrement=True,
)
"""What waits to be sent, and what was sent and not accepted. An accepted row is deleted and counted."""

OUTCOMES = sa.Table(
    "ceqs_outcomes",
    PLATFORM,
    sa.Column("path", sa.String, primary_key=True),
    sa.Column("outcome", sa.String, primary_key=True),
    sa.Column("reason", sa.String, primary_key=True),
    sa.Column("calls", sa.BigInteger, nullable=False),
)


def aware(time: dt.datetime | None) -> dt.datetime | None:
    """Give a time from a checkpoint with its zone, which is UTC and which SQLite does not keep."""
    return time.replace(tzinfo=dt.UTC) if time is not None and time.tzinfo is None else time
