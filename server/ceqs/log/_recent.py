"""What was appended of late, as far as this process knows all of it: most conditions are judged by that."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ceqs.log._judge import Verdict
    from ceqs.log._types import Condition

MOST = 50_000
"""How many tags and types are remembered at most."""


class Mark(NamedTuple):
    """Where a log stands, and by which tags its events are found."""

    log_id: str
    position: int
    generation: int
    tagging: int


_NOWHERE = Mark("", 0, 0, 0)


class Recent:
    """The last position of each tag and type, of all that was appended since some position.

    What other processes append is not heard of. So what is remembered counts only while the log is found as this
    process has left it.
    """

    def __init__(self) -> None:
        self._mark = _NOWHERE
        self._since = 0
        self._last: dict[str, int] = {}

    def find(self, mark: Mark) -> None:
        """Note how the log is found, under its lock."""
        if mark != self._mark or len(self._last) > MOST:
            self._mark, self._since, self._last = mark, mark.position, {}

    def leave(self, verdict: Verdict) -> None:
        """Note how the log is left by what is about to be committed; where that fails, see `forget`."""
        self._mark = self._mark._replace(position=verdict.head.position)
        self._last |= {tag: position for _, tag, position, _ in verdict.tags}
        self._last |= {event_type: position for position, _, _, event_type, _, _, _, _ in verdict.events}

    def forget(self) -> None:
        """Remember nothing: something that was noted was not committed."""
        self._mark = _NOWHERE

    def untouched(self, condition: Condition) -> bool:
        """Whether no event after a condition's position matches its query. False where that is not known."""
        after, items, last = condition.after, condition.query.items, self._last
        if after < self._since or not items:
            return False
        for item in items:
            # What matches carries all of the tags and is of one of the types.
            for tag in item.tags:
                if last.get(tag, 0) <= after:
                    break
            else:
                if not item.types or any(last.get(one, 0) > after for one in item.types):
                    return False
        return True
