"""A narrowed boundary is moved by less, a widened one by more, and the state of neither is taken for the whole."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from ceqs.contract import new_id
from ceqs.errors import Rejected
from ceqs.log import Log
from ceqs.model import Boundary, Context, boundary_of
from ceqs.queries import States
from ceqs.server import CommandCall, CommandExecutor


class Office:
    """A process that takes the campus's commands, with a cache of its own; it counts its decisions."""

    def __init__(self, context: Context, log: Log) -> None:
        self.context = context
        self.states = States(context, log)
        self._looks = itertools.count()
        self._executor = CommandExecutor(context, log, self.states, clock=lambda: next(self._looks))

    async def send(self, *requests: Any) -> int:
        """Send commands, one after the other; say how often they were decided."""
        before = next(self._looks)
        for request in requests:
            rpc = self.context.contract.command_of(request)
            await self._executor.execute(rpc, request, CommandCall(command_id=new_id()))
        return next(self._looks) - before - 1


@pytest.fixture
def office(campus: Any, log: Log) -> Callable[[], Office]:
    return lambda: Office(campus.make_context(), log)


def capacity(campus: Any, number: int) -> Any:
    return campus.ChangeCourseCapacityRequest(course_id="c1", capacity=number)


async def test_what_a_narrowed_boundary_leaves_out_does_not_move_it(
    campus: Any, office: Callable[[], Office], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = office(), office()
    await here.send(campus.DefineCourseRequest(course_id="c1", department_id="d", capacity=9), capacity(campus, 8))
    await there.send(campus.SubscribeStudentToCourseRequest(student_id="s1", course_id="c1"))
    assert await here.send(capacity(campus, 7)) == 1
    await there.send(capacity(campus, 6))
    assert await here.send(capacity(campus, 5)) == 2, "what it holds does move it"

    def whole(handler: object, request: Any, boundary: Boundary) -> Boundary:
        return boundary

    handler = here.context.method(here.context.contract.command_of(capacity(campus, 1)))
    assert handler
    monkeypatch.setattr(type(handler.__self__), "change_course_capacity_boundary", whole)  # type: ignore[attr-defined]
    unnarrowed = office()
    await unnarrowed.send(capacity(campus, 4))
    await there.send(campus.SubscribeStudentToCourseRequest(student_id="s2", course_id="c1"))
    assert await unnarrowed.send(capacity(campus, 3)) == 2, "which the whole boundary would have been"


async def test_what_widens_a_boundary_moves_it(campus: Any, office: Callable[[], Office]) -> None:
    here, there = office(), office()
    for course in ("c1", "c2"):
        await here.send(campus.DefineCourseRequest(course_id=course, department_id="d", capacity=9))
    await here.send(campus.SubscribeStudentToCourseRequest(student_id="s1", course_id="c1"))
    close = campus.CloseCourseRequest(course_id="c1", department_id="d")
    with pytest.raises(Rejected, match="attend"):
        await here.send(close)
    await there.send(
        campus.CloseCourseRequest(course_id="c2", department_id="d"),
        campus.UnsubscribeStudentFromCourseRequest(student_id="s1", course_id="c1"),
    )
    with pytest.raises(Rejected, match="last of d"):
        await here.send(close)
    await there.send(campus.DefineCourseRequest(course_id="c3", department_id="d", capacity=9))
    await here.send(close)


@pytest.mark.parametrize("first", ["narrowed", "widened", "whole"])
async def test_the_state_of_a_tailored_boundary_is_a_state_of_its_own(
    campus: Any, office: Callable[[], Office], first: str
) -> None:
    here = office()
    contract = here.context.contract
    close = campus.CloseCourseRequest(course_id="c1", department_id="d")

    async def whole() -> Any:
        rpc = next(rpc for rpc in contract.queries.values() if rpc.name == "GetCourse")
        assert rpc.state
        boundary = boundary_of(rpc.state, rpc.tags, campus.GetCourseRequest(course_id="c1"))
        return (await here.states.load(boundary, least=5)).state

    for course in ("c1", "c2"):
        await here.send(campus.DefineCourseRequest(course_id=course, department_id="d", capacity=9))
    await here.send(campus.SubscribeStudentToCourseRequest(student_id="s1", course_id="c1"))
    await here.send(capacity(campus, 8), capacity(campus, 7))
    if first == "narrowed":
        await here.send(capacity(campus, 7))
    elif first == "whole":
        await whole()
    with pytest.raises(Rejected, match="1 students attend"):
        await here.send(close)
    course = await whole()
    assert (course.capacity, course.students, course.other_courses) == (7, 1, 0)
    await here.send(capacity(campus, 6))
    await here.send(campus.UnsubscribeStudentFromCourseRequest(student_id="s1", course_id="c1"), close)
