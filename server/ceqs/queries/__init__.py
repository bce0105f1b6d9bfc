"""Answering queries from a state or from a projection, once or live, with the age of every answer."""

from ceqs.queries._answers import Answer, Answers, QueryCall, patience
from ceqs.queries._gathering import Gathering, Part
from ceqs.queries._hops import Around, Hearing, Hops
from ceqs.queries._models import Checkpoint, ModelReader, PastReader
from ceqs.queries._pages import Page, read_page
from ceqs.queries._rows import Rows
from ceqs.queries._states import Known, States
from ceqs.queries._stop import Stop

__all__ = [
    "Answer",
    "Answers",
    "Around",
    "Checkpoint",
    "Gathering",
    "Hearing",
    "Hops",
    "Known",
    "ModelReader",
    "Page",
    "Part",
    "PastReader",
    "QueryCall",
    "Rows",
    "States",
    "Stop",
    "patience",
    "read_page",
]
