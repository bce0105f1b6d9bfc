"""What a setting takes: text of the environment, or a value of TOML."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Which numbers a setting takes: from `least` to `most`, and `above` a number."""

    least: float = -math.inf
    above: float = -math.inf
    most: float = math.inf

    def check(self, value: float) -> None:
        """Raise ValueError for a number beyond it."""
        if value < self.least:
            raise ValueError(f"should be {self.least:g} or more")
        if value <= self.above:
            raise ValueError(f"should be more than {self.above:g}")
        if not value <= self.most:
            raise ValueError(f"should be {self.most:g} or less")


def read_value(kind: Any, value: Any) -> Any:
    """Give the value that a setting of a kind takes. Raises ValueError, which says what it should be."""
    if get_origin(kind) is Annotated:
        kind, *ranges = get_args(kind)
        value = read_value(kind, value)
        for one in ranges:
            one.check(value)
        return value
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ValueError(f"should be {' or '.join(map(repr, get_args(kind)))}")
        return value
    return _READERS[kind](value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("should be text")
    return value


def _path(value: Any) -> Path:
    return Path(_text(value))


def _optional_path(value: Any) -> Path | None:
    return _path(value) if value else None


def _whole(value: Any) -> int:
    try:
        if isinstance(value, (int, str)) and not isinstance(value, bool):
            return int(value)
    except ValueError:
        pass
    raise ValueError("should be a whole number")


def _number(value: Any) -> float:
    try:
        if isinstance(value, (int, float, str)) and not isinstance(value, bool):
            return float(value)
    except ValueError:
        pass
    raise ValueError("should be a number")


def _listed(value: Any) -> list[str]:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, list):
        items: list[Any] = value  # pyright: ignore[reportUnknownVariableType]  # of TOML
        return [_text(one) for one in items]
    raise ValueError("should be a list")


def _addresses(value: Any) -> dict[str, str]:
    if isinstance(value, str):
        pairs = (part.partition("=") for part in _listed(value))
        return {name: address for name, _, address in pairs}
    if isinstance(value, Mapping):
        table: Mapping[str, Any] = value  # pyright: ignore[reportUnknownVariableType]  # of TOML
        return {name: f"127.0.0.1:{one}" if isinstance(one, int) else _text(one) for name, one in table.items()}
    raise ValueError("should be a table")


def _counts(value: Any) -> dict[str, int]:
    if isinstance(value, Mapping):
        table: Mapping[str, Any] = value  # pyright: ignore[reportUnknownVariableType]  # of TOML
        return {name: _whole(one) for name, one in table.items()}
    return {name: _whole(count) for name, count in _addresses(value).items()}


_READERS: Mapping[Any, Callable[[Any], Any]] = {
    str: _text,
    int: _whole,
    float: _number,
    Path: _path,
    Path | None: _optional_path,
    list[str]: _listed,
    dict[str, str]: _addresses,
    dict[str, int]: _counts,
}
