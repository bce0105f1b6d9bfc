"""For the tests of a context: given/when/then for its decisions, and waiting for what happens eventually."""

from ceqs.testing._eventually import eventually
from ceqs.testing._given import NOW, Given, Outcome, fixed_ids, given

__all__ = ["NOW", "Given", "Outcome", "eventually", "fixed_ids", "given"]
