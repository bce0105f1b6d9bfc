"""For the tests of a context: given/when/then, waiting for what happens eventually, and checking what clients heard."""

from ceqs.testing._check import check_history
from ceqs.testing._clock import FakeClock
from ceqs.testing._eventually import eventually
from ceqs.testing._given import NOW, Given, Outcome, fixed_ids, given
from ceqs.testing._history import Ending, Fact, Operation, Violation
from ceqs.testing._reacting import Heard

__all__ = [
    "NOW",
    "Ending",
    "Fact",
    "FakeClock",
    "Given",
    "Heard",
    "Operation",
    "Outcome",
    "Violation",
    "check_history",
    "eventually",
    "fixed_ids",
    "given",
]
