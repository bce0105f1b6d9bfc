"""Trying again: how long to wait before, and what to say meanwhile."""

from __future__ import annotations

import random

from sqlalchemy.exc import DBAPIError

from ceqs.errors import CeqsError


def backoff(failures: int, *, least: float = 0.1, most: float = 2.0) -> float:
    """Give how many seconds to wait after so many failures in a row: doubled each time, and never the same twice."""
    return min(most, least * 2.0 ** min(failures, 30)) * random.uniform(0.5, 1)  # noqa: S311  # spreads, guards nothing


def said(error: BaseException) -> str:
    """Give an error in one line, for a status."""
    if isinstance(error, CeqsError):
        return error.message
    if isinstance(error, DBAPIError) and error.orig is not None:
        return said(error.orig)  # without the statement and its parameters, which may be anybody's data
    return f"{type(error).__name__}: {error}"
