"""The client's side of a context: commands that cannot duplicate, queries with their age, events that resume."""

from ceqs.client._answers import Answer, Event
from ceqs.client._client import ContextClient

__all__ = ["Answer", "ContextClient", "Event"]
