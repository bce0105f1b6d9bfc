"""Names of streams and subjects."""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import quote

from ceqs.errors import Misconfigured

_LOG_NAME = re.compile(r"[a-z0-9_-]+")


def stream_name(log: str, epoch: int, *, public: bool) -> str:
    """Give the name of a log's stream: `CEQS_orders_1`, or `CEQS_orders_PUBLIC_1` for the public events alone.

    Raises Misconfigured where the log's name cannot be one token of a subject: it has lower case letters, digits,
    `_` and `-` only (so that no log is named like the public stream of another).
    """
    return f"CEQS_{_checked(log)}_PUBLIC_{epoch}" if public else f"CEQS_{_checked(log)}_{epoch}"


@lru_cache(maxsize=4096)
def subject(log: str, type_name: str, bucket: int, *, public: bool) -> str:
    """Give the subject of an event: `ceqs.orders.log.OrderPlaced.17`, or `ceqs.orders.public.OrderAccepted.17`.

    `type_name` is the full name of the event's message type, of which the last part stands in the subject.
    """
    kind = quote(type_name.rpartition(".")[2], safe="") or "-"
    return f"ceqs.{_checked(log)}.{_scope(public)}.{kind}.{bucket}"


def subjects(log: str, *, public: bool) -> str:
    """Give the wildcard that matches every subject of a log's stream, and of no other."""
    return f"ceqs.{_checked(log)}.{_scope(public)}.>"


def _scope(public: bool) -> str:
    return "public" if public else "log"


def _checked(log: str) -> str:
    if not _LOG_NAME.fullmatch(log):
        raise Misconfigured(f"the name {log!r} has characters other than a-z, 0-9, _ and -: streams cannot bear it")
    return log
