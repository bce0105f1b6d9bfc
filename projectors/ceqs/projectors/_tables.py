"""The tables that the platform keeps in a place, beside the handler's own."""

from __future__ import annotations

import datetime as dt

import sqlalchemy as sa

PLATFORM = sa.MetaData()

CHECKPOINT = sa.Table(
    "ceqs_checkpoint",
    PLATFORM,
    sa.Column("source", sa.String, primary_key=True, comment="the context whose log is read"),
    sa.Column("first", sa.Integer, primary_key=True, comment="of the buckets that the row is about: 0 to 255"),
    sa.Column("last", sa.Integer, nullable=False),
    sa.Column(
        "ahead", sa.JSON, nullable=False, comment="what is included beyond the position: [first, last, position]"
    ),
    sa.Column("log_id", sa.String, nullable=False),
    sa.Column("position", sa.BigInteger, nullable=False, comment="a public position where the source is foreign"),
    sa.Column("event_id", sa.String, nullable=False),
    sa.Column("recorded_at", sa.DateTime(timezone=True)),
    sa.Column("skipped", sa.BigInteger, nullable=False, comment="events that the handler does not hear"),
    sa.Column("parked", sa.BigInteger, nullable=False, comment="how many rows ceqs_parked has of these buckets"),
    sa.Column("paused", sa.String, nullable=False, comment="why the handler waits; empty where it does not"),
    sa.Column("round", sa.BigInteger, nullable=False, comment="of a publisher: one more whenever it is to begin again"),
    sa.Column("token", sa.BigInteger, nullable=False, comment="of the lease: grows whenever it changes hands"),
    sa.Column("holder", sa.String, nullable=False, comment="the process that has the lease; empty where none has"),
    sa.Column("expires_at", sa.Double, nullable=False, comment="when the lease ends; seconds since 1970"),
)

OUTBOX = sa.Table(
    "ceqs_outbox",
    PLATFORM,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("request_id", sa.String, nullable=False, unique=True, comment="deterministic: sent twice, done once"),
    sa.Column("path", sa.String, nullable=False, comment="the rpc"),
    sa.Column("request", sa.LargeBinary, nullable=False),
    sa.Column("keys", sa.JSON, nullable=False, comment="rows that share a key are sent in order"),
    sa.Column("position", sa.BigInteger, nullable=False, comment="of the event that it follows from"),
    sa.Column("causation_id", sa.String, nullable=False),
    sa.Column("correlation_id", sa.String, nullable=False),
    sa.Column("depth", sa.Integer, nullable=False),
    sa.Column("outcome", sa.String, nullable=False, index=True, comment="empty while the row waits to be sent"),
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("message", sa.String, nullable=False),
    sa.Column("actor", sa.String, nullable=False, default="", comment="who decided to go on without it"),
    sa.Column("why", sa.String, nullable=False, default=""),
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

TIMERS = sa.Table(
    "ceqs_timers",
    PLATFORM,
    sa.Column("key", sa.String, primary_key=True),
    sa.Column("due", sa.BigInteger, nullable=False, index=True, comment="microseconds since 1970, UTC"),
    sa.Column("request_id", sa.String, nullable=False, comment="key and generation: fired twice, done once"),
    sa.Column("path", sa.String, nullable=False),
    sa.Column("request", sa.LargeBinary, nullable=False),
    sa.Column("keys", sa.JSON, nullable=False),
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.Column("causation_id", sa.String, nullable=False),
    sa.Column("correlation_id", sa.String, nullable=False),
    sa.Column("depth", sa.Integer, nullable=False),
)
"""Calls that go into the outbox when their time has come."""

STATES = sa.Table(
    "ceqs_process_states",
    PLATFORM,
    sa.Column("key", sa.String, primary_key=True, comment="the value of the boundary's key"),
    sa.Column("state", sa.LargeBinary, nullable=False),
)
"""What a process manager remembers."""


PARKED = sa.Table(
    "ceqs_parked",
    PLATFORM,
    sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("bucket", sa.Integer, nullable=False),
    sa.Column("key", sa.String, nullable=False, index=True, comment="rows of one key wait for each other; empty: none"),
    sa.Column("event", sa.LargeBinary, nullable=False, comment="ceqs.v1.RecordedEvent"),
    sa.Column("error", sa.String, nullable=False, comment="why it is here; empty: behind an earlier row of its key"),
    sa.Column("trace", sa.String, nullable=False, comment="where in the code it failed"),
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("parked_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("due", sa.Boolean, nullable=False, comment="an operator wants it tried again"),
)
"""Events that could not be applied, and those that wait behind them."""

GIVEN_UP = sa.Table(
    "ceqs_given_up",
    PLATFORM,
    sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("event", sa.LargeBinary, nullable=False),
    sa.Column("error", sa.String, nullable=False),
    sa.Column("actor", sa.String, nullable=False, comment="who decided it"),
    sa.Column("why", sa.String, nullable=False),
    sa.Column("given_up_at", sa.DateTime(timezone=True), nullable=False),
)
"""Events that an operator let the handler go without, for the record."""

REQUESTS = sa.Table(
    "ceqs_requests",
    PLATFORM,
    sa.Column("id", sa.String, primary_key=True, comment="time-ordered"),
    sa.Column("request", sa.JSON, nullable=False),
)
"""What operators ask of the worker of a place in PostgreSQL."""


def aware(time: dt.datetime | None) -> dt.datetime | None:
    """Give a time from a checkpoint with its zone, which is UTC and which SQLite does not keep."""
    return time.replace(tzinfo=dt.UTC) if time is not None and time.tzinfo is None else time
