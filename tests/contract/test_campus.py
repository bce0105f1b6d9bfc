"""Rules that span entities hold on every log, however many enrol at once: see tests/unit/campus."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import grpc
import grpc.aio
import pytest
from google.rpc import status_pb2

from ceqs.contract import Contract, new_id
from ceqs.errors import Rejected, from_status
from ceqs.log import Log
from ceqs.model import Context
from ceqs.server import CommandCall, CommandExecutor, Served, Server, ServerSettings
from ceqs.v1.events_pb2 import RecordedEvent

CLIENTS = 64
MOST_COURSES = 10
Send: TypeAlias = Callable[[Any], Awaitable[None]]
"""Sends a command; raises what it is refused with."""


@pytest.fixture
def context(campus: Any) -> Context:
    made: Context = campus.make_context()
    return made


@pytest.fixture(params=["executor", "server"])
async def send(request: pytest.FixtureRequest, context: Context, log: Log) -> AsyncIterator[Send]:
    if request.param == "executor":
        executor = CommandExecutor(context, log)

        async def execute(command: Any) -> None:
            await executor.execute(context.contract.command_of(command), command, CommandCall(command_id=new_id()))

        yield execute
        return
    server = Server([Served(context, log, {})], ServerSettings(key="key", grace=5))
    await server.start()
    async with grpc.aio.insecure_channel(server.address) as channel:

        async def call(command: Any) -> None:
            # By hand: the generated client would try again what was ABORTED, and nothing is to be.
            unary: Any = channel.unary_unary(context.contract.command_of(command).path)
            metadata = (("ceqs-command-id", new_id()),)
            while True:
                try:
                    await unary(command.SerializeToString(), metadata=metadata, timeout=60)
                except grpc.aio.AioRpcError as error:
                    if error.code() is grpc.StatusCode.CANCELLED:
                        continue  # On a busy machine the server had no time to take the call.
                    details = dict(error.trailing_metadata())["grpc-status-details-bin"]
                    assert isinstance(details, bytes)
                    raise from_status(status_pb2.Status.FromString(details)) from None
                return

        yield call
    await server.stop()


@dataclass
class Campus:
    """The rules, held against one event of the log after the other."""

    capacity: dict[str, int] = field(default_factory=dict[str, int])
    students: Counter[str] = field(default_factory=Counter[str])
    """How many attend a course."""
    courses: Counter[str] = field(default_factory=Counter[str])
    """How many a student attends."""
    attended: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    departments: dict[str, set[str]] = field(default_factory=dict[str, set[str]])

    def hear(self, event: Any) -> None:
        """Check that the event keeps to the rules, as of the events before it."""
        match type(event).__name__:
            case "CourseDefined":
                assert event.course_id not in self.capacity
                self.capacity[event.course_id] = event.capacity
                self.departments.setdefault(event.department_id, set()).add(event.course_id)
            case "CourseCapacityChanged":
                assert self.capacity[event.course_id] != event.capacity
                self.capacity[event.course_id] = event.capacity
            case "CourseClosed":
                assert not self.students[event.course_id]
                self.departments[event.department_id].remove(event.course_id)
                assert self.departments[event.department_id]
            case "StudentSubscribedToCourse":
                assert (event.student_id, event.course_id) not in self.attended
                assert self.students[event.course_id] < self.capacity[event.course_id]
                assert self.courses[event.student_id] < MOST_COURSES
                self._count(event, 1)
                self.attended.add((event.student_id, event.course_id))
            case _:
                self.attended.remove((event.student_id, event.course_id))
                self._count(event, -1)

    def _count(self, event: Any, one: int) -> None:
        self.students[event.course_id] += one
        self.courses[event.student_id] += one


async def recorded(log: Log, contract: Contract) -> list[Any]:
    events, after = list[Any](), 0
    while (part := await log.read(after=after)).events:
        for stored in part.events:
            payload = RecordedEvent.FromString(stored.envelope).payload
            events.append(contract.events[stored.type].message.FromString(payload))
        after = part.through
    return events


async def replayed(log: Log, contract: Contract) -> Campus:
    rules = Campus()
    for event in await recorded(log, contract):
        rules.hear(event)
    return rules


async def sent(send: Send, commands: Sequence[Any]) -> list[str]:
    """Send commands, 64 at a time; give the reason of each that is refused, and "" for each that is accepted.

    Whatever else it fails with, a conflict above all, is raised.
    """
    outcomes = [""] * len(commands)
    numbered = iter(list(enumerate(commands)))

    async def client() -> None:
        for number, command in numbered:
            try:
                await send(command)
            except Rejected as refusal:
                outcomes[number] = refusal.reason

    async with asyncio.TaskGroup() as clients:
        for _ in range(CLIENTS):
            clients.create_task(client())
    return outcomes


def define(campus: Any, courses: Iterable[str], capacity: int, department: str = "maths") -> list[Any]:
    return [campus.DefineCourseRequest(course_id=c, department_id=department, capacity=capacity) for c in courses]


async def test_the_rules_hold_under_64_enrolments_at_once(campus: Any, context: Context, log: Log, send: Send) -> None:
    """Many students into few courses, few students into many courses, and both rules in each other's way."""
    dice = random.Random(11)
    few, many = [f"few-{i}" for i in range(6)], [f"many-{i}" for i in range(30)]
    crowd, eager = [f"crowd-{i}" for i in range(48)], [f"eager-{i}" for i in range(4)]
    await sent(send, define(campus, few, 15) + define(campus, many, 100))
    wanted = [(student, course) for student in crowd for course in dice.sample(few, 3)]
    wanted += [(student, course) for student in eager for course in many + few]
    wanted += dice.sample(wanted, 40)
    dice.shuffle(wanted)
    outcomes = await sent(send, [campus.SubscribeStudentToCourseRequest(student_id=s, course_id=c) for s, c in wanted])
    rules = await replayed(log, context.contract)
    accepted = [pair for pair, reason in zip(wanted, outcomes, strict=True) if not reason]
    assert len(accepted) == len(set(accepted))
    assert set(accepted) == rules.attended, "every accepted one is recorded, and nothing else"
    # Places are only taken, so who was refused is refused still: nobody was turned away for nothing.
    for (student, course), reason in zip(wanted, outcomes, strict=True):
        match reason:
            case "":
                pass
            case "COURSE_FULL":
                assert rules.students[course] == rules.capacity[course]
            case "TOO_MANY_COURSES":
                assert rules.courses[student] == MOST_COURSES
            case _:
                assert reason == "ALREADY_SUBSCRIBED"
                assert (student, course) in rules.attended
    assert {course: rules.students[course] for course in few} == dict.fromkeys(few, 15)
    assert {student: rules.courses[student] for student in eager} == dict.fromkeys(eager, MOST_COURSES)
    assert {"COURSE_FULL", "TOO_MANY_COURSES", "ALREADY_SUBSCRIBED"} <= set(outcomes)


async def test_the_rules_hold_while_boundaries_of_other_widths_are_decided(
    campus: Any, context: Context, log: Log, send: Send
) -> None:
    """Subscriptions, beside commands that look at less: who leaves, and how many places there are."""
    dice = random.Random(12)
    courses, students = [f"c{i}" for i in range(4)], [f"s{i}" for i in range(24)]
    await sent(send, define(campus, courses, 5))
    commands: list[Any] = []
    for _ in range(400):
        student, course = dice.choice(students), dice.choice(courses)
        match dice.randrange(8):
            case 0:
                commands.append(campus.ChangeCourseCapacityRequest(course_id=course, capacity=dice.randint(3, 9)))
            case 1 | 2 | 3:
                commands.append(campus.UnsubscribeStudentFromCourseRequest(student_id=student, course_id=course))
            case _:
                commands.append(campus.SubscribeStudentToCourseRequest(student_id=student, course_id=course))
    outcomes = await sent(send, commands)
    assert set(outcomes) == {"", "COURSE_FULL", "ALREADY_SUBSCRIBED", "NOT_SUBSCRIBED"}
    said = Counter(
        (type(command).__name__.removesuffix("Request"), command.student_id, command.course_id)
        for command, reason in zip(commands, outcomes, strict=True)
        if not reason and not isinstance(command, campus.ChangeCourseCapacityRequest)
    )
    rules = Campus()
    done: Counter[tuple[str, str, str]] = Counter()
    for event in await recorded(log, context.contract):
        rules.hear(event)
        if isinstance(event, campus.StudentSubscribedToCourse):
            done["SubscribeStudentToCourse", event.student_id, event.course_id] += 1
        elif isinstance(event, campus.StudentUnsubscribedFromCourse):
            done["UnsubscribeStudentFromCourse", event.student_id, event.course_id] += 1
    assert done == said


async def test_a_widened_boundary_is_kept_whole(campus: Any, context: Context, log: Log, send: Send) -> None:
    """All courses of each department close at once; each keeps one."""
    departments = {f"d{i}": [f"d{i}-{j}" for j in range(8)] for i in range(8)}
    for name, courses in departments.items():
        await sent(send, define(campus, courses, 1, name))
    closing = [
        campus.CloseCourseRequest(course_id=course, department_id=name)
        for name, courses in departments.items()
        for course in courses
    ]
    random.Random(13).shuffle(closing)
    outcomes = await sent(send, closing)
    rules = await replayed(log, context.contract)
    assert {name: len(courses) for name, courses in rules.departments.items()} == dict.fromkeys(departments, 1)
    assert Counter(outcomes) == {"": 56, "LAST_COURSE_OF_DEPARTMENT": 8}
