"""Code narrows and widens a boundary explicitly, and what it cannot mean is refused."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ceqs.errors import Invalid, Misconfigured
from ceqs.model import Boundary, Context, boundary_of

PACKAGE = "campus.v1."
DEFINED, SUBSCRIBED = f"{PACKAGE}CourseDefined", f"{PACKAGE}StudentSubscribedToCourse"
TAGS = {
    "CourseDefined": ("course", "department"),
    "CourseCapacityChanged": ("course",),
    "CourseClosed": ("course", "department"),
    "StudentSubscribedToCourse": ("student", "course"),
    "StudentUnsubscribedFromCourse": ("student", "course"),
}
EVENTS = [
    (PACKAGE + name, tuple(map(":".join, zip(keys, values, strict=True))))
    for name, keys in TAGS.items()
    for values in itertools.product("12", repeat=len(keys))
]
"""Every event that can be told from another by its type and its tags."""


@pytest.fixture
def context(campus: Any) -> Context:
    made: Context = campus.make_context()
    return made


@pytest.fixture
def whole(campus: Any, context: Context) -> Boundary:
    """The boundary of the course 1 and the student 1."""
    request = campus.SubscribeStudentToCourseRequest(student_id="1", course_id="1")
    return context.boundary(context.contract.command_of(request), request)


def held(boundary: Boundary) -> set[tuple[str, tuple[str, ...]]]:
    return {(name, tags) for name, tags in EVENTS if boundary.holds(name, tags)}


def test_a_boundary_holds_the_events_of_its_types_with_any_of_its_tags(whole: Boundary) -> None:
    assert held(whole) == {(name, tags) for name, tags in EVENTS if {"course:1", "student:1"} & {*tags}}
    assert not whole.holds(f"{PACKAGE}Other", ["course:1"])
    assert not whole.tailored


def test_only_keeps_what_is_of_these_types_and_carries_all_of_the_tags(campus: Any, whole: Boundary) -> None:
    by_type = whole.only(campus.CourseDefined, campus.StudentSubscribedToCourse)
    assert held(by_type) == {e for e in held(whole) if e[0] in (DEFINED, SUBSCRIBED)}
    by_tag = whole.only(tags=["course:1", "student:2"])
    assert held(by_tag) == {e for e in held(whole) if {"course:1", "student:2"} <= {*e[1]}}
    both = whole.only(campus.StudentSubscribedToCourse, tags=whole.tags)
    assert held(both) == {(SUBSCRIBED, ("student:1", "course:1"))}
    assert len(both.query.items) == 1, "what two items say alike is asked once"


def test_without_leaves_out_events_by_type(campus: Any, whole: Boundary) -> None:
    less = whole.without(campus.StudentSubscribedToCourse, campus.CourseDefined)
    assert held(less) == {e for e in held(whole) if e[0] not in (DEFINED, SUBSCRIBED)}
    assert whole.holds(SUBSCRIBED, whole.tags)
    assert not less.holds(SUBSCRIBED, whole.tags), "though it carries just what the request addresses"


def test_also_adds_events_that_no_tag_of_the_request_finds(campus: Any, whole: Boundary) -> None:
    more = whole.also(campus.CourseDefined, tags=["department:2"])
    assert held(more) - held(whole) == {(DEFINED, ("course:2", "department:2"))}
    every = whole.also(campus.CourseDefined)
    assert held(every) == held(whole) | {e for e in EVENTS if e[0] == DEFINED}
    tagged = whole.also(tags=["course:2", "student:2"])
    assert held(tagged) == held(whole) | {e for e in EVENTS if {"course:2", "student:2"} <= {*e[1]}}


def test_what_is_tailored_is_told_from_the_whole_and_prefills_the_same_state(campus: Any, whole: Boundary) -> None:
    tailored = [
        whole,
        whole.only(campus.CourseDefined),
        whole.only(campus.StudentSubscribedToCourse),
        whole.only(tags=whole.tags),
        whole.without(campus.CourseDefined),
        whole.also(campus.CourseDefined, tags=["department:1"]),
        whole.also(campus.CourseDefined, tags=["department:2"]),
        whole.also(campus.CourseDefined, campus.CourseClosed, tags=["department:2"]),
    ]
    assert len({boundary.key for boundary in tailored}) == len(tailored)
    assert {str(boundary.values()) for boundary in tailored} == {"{'course': '1', 'student': '1'}"}
    assert [boundary.tailored for boundary in tailored] == [False] + [True] * 7


def test_the_key_of_a_tailored_boundary_is_the_same_however_it_was_named(campus: Any, whole: Boundary) -> None:
    one = whole.only(campus.CourseDefined, campus.CourseClosed).also(tags=["student:2", "course:2"])
    other = whole.only(campus.CourseClosed, campus.CourseDefined).also(tags=["course:2", "student:2"])
    assert one.key == other.key


@pytest.mark.parametrize(
    ("tailor", "says"),
    [
        (
            lambda b, c: b.only(c.Course),
            r"Enrolment does not fold campus\.v1\.Course; what it folds is CourseDefined, ",
        ),
        (lambda b, c: b.without(c.Course), "Enrolment does not fold"),
        (lambda b, c: b.also(c.Course), "Enrolment does not fold"),
        (lambda b, c: b.only(tags=["curse:1"]), r"'curse:1' is no tag of .* Enrolment folds; did you mean course:"),
        (lambda b, c: b.also(tags=["1"]), r"'1' is no tag of .*; their keys are course, department, student"),
        (lambda b, c: b.also(tags=["course"]), "'course' is no tag of"),
        (lambda b, c: b.also(c.CourseDefined, tags=["student:1"]), "no CourseDefined carries 'student:1'"),
        (lambda b, c: b.only(c.CourseDefined, tags=b.tags), "no CourseDefined carries 'course:1' and 'student:1'"),
        (lambda b, c: b.also(tags=["student:1", "department:1"]), "no event that Enrolment folds carries 'department:"),
        (lambda b, c: b.also(tags=["course:1", "course:2"]), "no event that Enrolment folds carries 'course:1' and"),
        (lambda b, c: b.also(), "a boundary of Enrolment is to hold something more"),
        (lambda b, c: b.also(tags=[]), "a boundary of Enrolment is to hold something more"),
        (lambda b, c: b.only(c.CourseDefined).without(c.CourseDefined), "nothing is left of a boundary of Enrolment"),
        (lambda b, c: b.only(tags=["student:1"]).only(tags=["student:2"]), "nothing is left of a boundary of Enrol"),
    ],
)
def test_what_no_boundary_can_hold_is_refused(
    campus: Any, whole: Boundary, tailor: Callable[[Boundary, Any], Boundary], says: str
) -> None:
    with pytest.raises(Misconfigured, match=says):
        tailor(whole, campus)


@pytest.mark.parametrize(
    ("tag", "says"), [("course:", "must have a value"), ("course:a\nb", "control"), ("course:" + "x" * 513, "512")]
)
def test_a_tag_whose_value_cannot_be_is_the_callers_fault(whole: Boundary, tag: str, says: str) -> None:
    """Values come from requests, as those do of the tags that are annotated."""
    for tailor in (whole.only, whole.also):
        with pytest.raises(Invalid) as caught:
            tailor(tags=[tag])
        (violation,) = caught.value.violations
        assert violation.field == "course"
        assert says in violation.description


def test_a_boundary_of_a_whole_type_is_narrowed_by_tags(library: Any) -> None:
    rpc = next(rpc for rpc in library.contract.commands.values() if rpc.name == "CloseLibrary")
    boundary = boundary_of(rpc.state, rpc.tags, library.CloseLibraryRequest())
    narrowed = boundary.only(library.BookAcquired, tags=["book:1"])
    assert narrowed.holds("library.v1.BookAcquired", ["book:1"])
    assert not narrowed.holds("library.v1.BookAcquired", ["book:2"])
    assert not narrowed.holds("library.v1.LibraryClosed", [])
    several = boundary.only(tags=["branch:1", "branch:2"])
    assert several.holds("library.v1.LibraryClosed", ["branch:1", "branch:2", "branch:3"])
    assert not several.holds("library.v1.LibraryClosed", ["branch:1"])


@given(st.data())
def test_tailoring_is_set_arithmetic_on_events(campus: Any, data: st.DataObject) -> None:
    context = campus.make_context()
    request = campus.SubscribeStudentToCourseRequest(student_id="1", course_id="1")
    boundary = context.boundary(context.contract.command_of(request), request)
    types = st.lists(st.sampled_from([getattr(campus, name) for name in TAGS]), unique=True)
    tags = st.lists(st.sampled_from([f"{key}:{n}" for key in ("course", "student", "department") for n in "12"]))
    for verb in data.draw(st.lists(st.sampled_from(["only", "without", "also"]), min_size=1, max_size=4)):
        events, chosen = data.draw(types), [] if verb == "without" else data.draw(tags)
        names = {event.DESCRIPTOR.full_name for event in events}
        meant = {(name, has) for name, has in EVENTS if {*chosen} <= {*has} and (name in names or not names)}
        makes_sense = bool(meant) and names <= {name for name, _ in meant}
        match verb:
            case "only":
                expected = held(boundary) & meant
                tailored = partial(boundary.only, *events, tags=chosen)
            case "without":
                expected = held(boundary) - (meant if names else set())
                tailored = partial(boundary.without, *events)
            case _:
                expected = held(boundary) | meant
                tailored = partial(boundary.also, *events, tags=chosen)
                makes_sense = makes_sense and bool(events or chosen)
        if makes_sense and expected:
            boundary = tailored()
            assert held(boundary) == expected
        else:
            with pytest.raises(Misconfigured):
                tailored()
