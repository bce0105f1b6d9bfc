"""The campus decides by its boundaries: what is in one matters, and what is outside of it does not."""

from __future__ import annotations

from typing import Any

import pytest

from ceqs.errors import Invalid
from ceqs.model import Context
from ceqs.testing import given


@pytest.fixture
def context(campus: Any) -> Context:
    made: Context = campus.make_context()
    return made


def test_a_course_is_defined_once(campus: Any, context: Context) -> None:
    request = campus.DefineCourseRequest(course_id="c1", department_id="maths", capacity=2)
    defined = campus.CourseDefined(course_id="c1", department_id="maths", capacity=2)
    given(context).when(request).yields(defined).when(request).rejects("COURSE_EXISTS")
    given(context, campus.CourseDefined(course_id="c2")).when(request).yields(defined)


def test_a_capacity_changes_and_the_same_one_changes_nothing(campus: Any, context: Context) -> None:
    defined = campus.CourseDefined(course_id="c1", capacity=2)
    request = campus.ChangeCourseCapacityRequest(course_id="c1", capacity=3)
    given(context).when(request).rejects("NO_SUCH_COURSE")
    changed = given(context, defined).when(request)
    changed.yields(campus.CourseCapacityChanged(course_id="c1", capacity=3)).when(request).changes_nothing()


def test_a_change_of_capacity_does_not_look_at_who_attends(campus: Any, context: Context) -> None:
    request = campus.ChangeCourseCapacityRequest(course_id="c1", capacity=3)
    boundary = context.boundary(context.contract.command_of(request), request)
    assert boundary.holds("campus.v1.CourseDefined", ["course:c1"])
    assert not boundary.holds("campus.v1.StudentSubscribedToCourse", ["student:s1", "course:c1"])


# Both rules of a subscription


def test_a_student_subscribes_once(campus: Any, context: Context) -> None:
    defined = campus.CourseDefined(course_id="c1", capacity=5)
    request = campus.SubscribeStudentToCourseRequest(student_id="s1", course_id="c1")
    given(context).when(request).rejects("NO_SUCH_COURSE")
    subscribed = given(context, defined).when(request)
    subscribed.yields(campus.StudentSubscribedToCourse(student_id="s1", course_id="c1"))
    subscribed.when(request).rejects("ALREADY_SUBSCRIBED")


def test_a_course_takes_as_many_students_as_it_has_places(campus: Any, context: Context) -> None:
    elsewhere = campus.StudentSubscribedToCourse(student_id="s9", course_id="c9")
    others = [campus.StudentSubscribedToCourse(student_id=f"s{i}", course_id="c1") for i in range(2, 5)]
    request = campus.SubscribeStudentToCourseRequest(student_id="s1", course_id="c1")
    for places, fits in ((3, False), (4, True)):
        outcome = given(context, campus.CourseDefined(course_id="c1", capacity=places), elsewhere, *others)
        if fits:
            outcome.when(request).yields(campus.StudentSubscribedToCourse(student_id="s1", course_id="c1"))
        else:
            outcome.when(request).rejects("COURSE_FULL")


def test_a_student_attends_ten_courses_at_most(campus: Any, context: Context) -> None:
    defined = campus.CourseDefined(course_id="c1", capacity=5)
    attends = [campus.StudentSubscribedToCourse(student_id="s1", course_id=f"d{i}") for i in range(10)]
    request = campus.SubscribeStudentToCourseRequest(student_id="s1", course_id="c1")
    subscribed = campus.StudentSubscribedToCourse(student_id="s1", course_id="c1")
    given(context, defined, *attends).when(request).rejects("TOO_MANY_COURSES")
    given(context, defined, *attends[:9]).when(request).yields(subscribed)
    left = campus.StudentUnsubscribedFromCourse(student_id="s1", course_id="d3")
    given(context, defined, *attends, left).when(request).yields(subscribed)


def test_a_changed_capacity_counts(campus: Any, context: Context) -> None:
    events = [
        campus.CourseDefined(course_id="c1", capacity=1),
        campus.StudentSubscribedToCourse(student_id="s2", course_id="c1"),
        campus.CourseCapacityChanged(course_id="c1", capacity=2),
    ]
    request = campus.SubscribeStudentToCourseRequest(student_id="s1", course_id="c1")
    given(context, *events[:2]).when(request).rejects("COURSE_FULL")
    given(context, *events).when(request).when(
        campus.SubscribeStudentToCourseRequest(student_id="s3", course_id="c1")
    ).rejects("COURSE_FULL")


# Narrowed and widened boundaries


def test_a_student_leaves_a_course_that_was_attended(campus: Any, context: Context) -> None:
    events = [campus.StudentSubscribedToCourse(student_id=s, course_id=c) for s, c in (("s1", "c2"), ("s2", "c1"))]
    request = campus.UnsubscribeStudentFromCourseRequest(student_id="s1", course_id="c1")
    given(context, *events).when(request).rejects("NOT_SUBSCRIBED")
    attended = given(context, *events, campus.StudentSubscribedToCourse(student_id="s1", course_id="c1"))
    left = attended.when(request).yields(campus.StudentUnsubscribedFromCourse(student_id="s1", course_id="c1"))
    left.when(request).rejects("NOT_SUBSCRIBED")


def test_leaving_a_course_depends_on_that_subscription_alone(campus: Any, context: Context) -> None:
    request = campus.UnsubscribeStudentFromCourseRequest(student_id="s1", course_id="c1")
    boundary = context.boundary(context.contract.command_of(request), request)
    subscribed = "campus.v1.StudentSubscribedToCourse"
    assert boundary.holds(subscribed, ["student:s1", "course:c1"])
    assert not boundary.holds(subscribed, ["student:s1", "course:c2"])
    assert not boundary.holds(subscribed, ["student:s2", "course:c1"])
    assert not boundary.holds("campus.v1.CourseDefined", ["course:c1"])


def test_a_course_is_closed_where_its_department_keeps_another(campus: Any, context: Context) -> None:
    courses = [campus.CourseDefined(course_id=c, department_id="maths", capacity=1) for c in ("c1", "c2")]
    elsewhere = campus.CourseDefined(course_id="p1", department_id="physics", capacity=1)
    close = campus.CloseCourseRequest(course_id="c1", department_id="maths")
    closed = campus.CourseClosed(course_id="c1", department_id="maths")
    given(context, courses[0], elsewhere).when(close).rejects("LAST_COURSE_OF_DEPARTMENT")
    outcome = given(context, *courses, elsewhere).when(close).yields(closed)
    outcome.when(campus.CloseCourseRequest(course_id="c2", department_id="maths")).rejects("LAST_COURSE_OF_DEPARTMENT")
    outcome.when(close).rejects("NO_SUCH_COURSE")
    outcome.when(campus.SubscribeStudentToCourseRequest(student_id="s1", course_id="c1")).rejects("NO_SUCH_COURSE")


def test_a_course_that_is_attended_is_not_closed(campus: Any, context: Context) -> None:
    courses = [campus.CourseDefined(course_id=c, department_id="maths", capacity=1) for c in ("c1", "c2")]
    close = campus.CloseCourseRequest(course_id="c1", department_id="maths")
    for course, attended in (("c1", True), ("c2", False)):
        outcome = given(context, *courses, campus.StudentSubscribedToCourse(student_id="s1", course_id=course))
        if attended:
            outcome.when(close).rejects("COURSE_IS_ATTENDED")
        else:
            outcome.when(close).yields(campus.CourseClosed(course_id="c1", department_id="maths"))


def test_a_widened_boundary_needs_the_value_that_widens_it(campus: Any, context: Context) -> None:
    request = campus.CloseCourseRequest(course_id="c1")
    given(context).when(request).is_invalid("department")
    with pytest.raises(Invalid):
        context.boundary(context.contract.command_of(request), request)
