"""The campus: commands that depend on a course, on a course and a student, and on more or less than that.

What it imports is generated when the tests run; tests/typing checks its types.
"""

from __future__ import annotations

from collections.abc import Iterator

from campus.v1.campus_ceqs import CampusCommands, CampusContext, CampusEvent, CourseFoldBase, EnrolmentFoldBase
from campus.v1.campus_pb2 import (
    COURSE_STATUS_CLOSED,
    COURSE_STATUS_OPEN,
    COURSE_STATUS_UNSPECIFIED,
    ChangeCourseCapacityRequest,
    CloseCourseRequest,
    Course,
    CourseCapacityChanged,
    CourseClosed,
    CourseDefined,
    DefineCourseRequest,
    Enrolment,
    StudentSubscribedToCourse,
    StudentUnsubscribedFromCourse,
    SubscribeStudentToCourseRequest,
    UnsubscribeStudentFromCourseRequest,
)

from ceqs.model import Boundary, Decision, Rejected

MOST_COURSES = 10
"""How many courses a student attends at most."""


class CourseFold(CourseFoldBase):
    """Folds a course, and counts the others of its department where these are in the boundary."""

    def on_course_defined(self, course: Course, event: CourseDefined) -> None:
        if event.course_id == course.course_id:
            course.department_id = event.department_id
            course.capacity = event.capacity
            course.status = COURSE_STATUS_OPEN
        else:
            course.other_courses += 1

    def on_course_closed(self, course: Course, event: CourseClosed) -> None:
        if event.course_id == course.course_id:
            course.status = COURSE_STATUS_CLOSED
        else:
            course.other_courses -= 1

    def on_course_capacity_changed(self, course: Course, event: CourseCapacityChanged) -> None:
        course.capacity = event.capacity

    def on_student_subscribed_to_course(self, course: Course, event: StudentSubscribedToCourse) -> None:
        course.students += 1

    def on_student_unsubscribed_from_course(self, course: Course, event: StudentUnsubscribedFromCourse) -> None:
        course.students -= 1


class EnrolmentFold(EnrolmentFoldBase):
    """Folds what happened to the course, the student, or both."""

    def on_course_defined(self, enrolment: Enrolment, event: CourseDefined) -> None:
        enrolment.open = True
        enrolment.capacity = event.capacity

    def on_course_capacity_changed(self, enrolment: Enrolment, event: CourseCapacityChanged) -> None:
        enrolment.capacity = event.capacity

    def on_course_closed(self, enrolment: Enrolment, event: CourseClosed) -> None:
        enrolment.open = False

    def on_student_subscribed_to_course(self, enrolment: Enrolment, event: StudentSubscribedToCourse) -> None:
        self._count(enrolment, event, 1)

    def on_student_unsubscribed_from_course(self, enrolment: Enrolment, event: StudentUnsubscribedFromCourse) -> None:
        self._count(enrolment, event, -1)

    def _count(
        self, enrolment: Enrolment, event: StudentSubscribedToCourse | StudentUnsubscribedFromCourse, one: int
    ) -> None:
        here, this = event.course_id == enrolment.course_id, event.student_id == enrolment.student_id
        enrolment.students += one if here else 0
        enrolment.courses += one if this else 0
        if here and this:
            enrolment.subscribed = one > 0


class Campus(CampusCommands):
    """Decides."""

    def define_course(self, request: DefineCourseRequest, course: Course, ctx: Decision) -> Iterator[CampusEvent]:
        if course.status != COURSE_STATUS_UNSPECIFIED:
            raise Rejected("COURSE_EXISTS", f"there is a course {course.course_id}")
        yield CourseDefined(course_id=request.course_id, department_id=request.department_id, capacity=request.capacity)

    def change_course_capacity_boundary(self, request: ChangeCourseCapacityRequest, boundary: Boundary) -> Boundary:
        """Who attends the course does not matter: a change of capacity waits for no subscription, and none stops it."""
        return boundary.without(StudentSubscribedToCourse, StudentUnsubscribedFromCourse)

    def change_course_capacity(
        self, request: ChangeCourseCapacityRequest, course: Course, ctx: Decision
    ) -> Iterator[CampusEvent]:
        if course.status != COURSE_STATUS_OPEN:
            raise Rejected("NO_SUCH_COURSE", f"there is no open course {course.course_id}")
        if course.capacity != request.capacity:
            yield CourseCapacityChanged(course_id=request.course_id, capacity=request.capacity)

    def close_course_boundary(self, request: CloseCourseRequest, boundary: Boundary) -> Boundary:
        """A department keeps a course: that it has others matters too, though not who attends them."""
        return boundary.also(CourseDefined, CourseClosed, tags=[f"department:{request.department_id}"])

    def close_course(self, request: CloseCourseRequest, course: Course, ctx: Decision) -> Iterator[CampusEvent]:
        if course.status != COURSE_STATUS_OPEN or course.department_id != request.department_id:
            raise Rejected("NO_SUCH_COURSE", f"{request.department_id} has no open course {course.course_id}")
        if course.students:
            raise Rejected("COURSE_IS_ATTENDED", f"{course.students} students attend {course.course_id}")
        if not course.other_courses:
            raise Rejected("LAST_COURSE_OF_DEPARTMENT", f"{course.course_id} is the last of {course.department_id}")
        yield CourseClosed(course_id=request.course_id, department_id=request.department_id)

    def subscribe_student_to_course(
        self, request: SubscribeStudentToCourseRequest, enrolment: Enrolment, ctx: Decision
    ) -> Iterator[CampusEvent]:
        if not enrolment.open:
            raise Rejected("NO_SUCH_COURSE", f"there is no open course {enrolment.course_id}")
        if enrolment.subscribed:
            raise Rejected("ALREADY_SUBSCRIBED", f"{enrolment.student_id} attends {enrolment.course_id}")
        if enrolment.students >= enrolment.capacity:
            raise Rejected("COURSE_FULL", f"{enrolment.course_id} takes {enrolment.capacity} students")
        if enrolment.courses >= MOST_COURSES:
            raise Rejected("TOO_MANY_COURSES", f"{enrolment.student_id} attends {enrolment.courses} courses")
        yield StudentSubscribedToCourse(student_id=request.student_id, course_id=request.course_id)

    def unsubscribe_student_from_course_boundary(
        self, request: UnsubscribeStudentFromCourseRequest, boundary: Boundary
    ) -> Boundary:
        """What matters is what this student did in this course: no other student does, and no other course."""
        return boundary.only(tags=boundary.tags)

    def unsubscribe_student_from_course(
        self, request: UnsubscribeStudentFromCourseRequest, enrolment: Enrolment, ctx: Decision
    ) -> Iterator[CampusEvent]:
        if not enrolment.subscribed:
            raise Rejected("NOT_SUBSCRIBED", f"{enrolment.student_id} does not attend {enrolment.course_id}")
        yield StudentUnsubscribedFromCourse(student_id=request.student_id, course_id=request.course_id)


def make_context() -> CampusContext:
    """Give the campus as a context."""
    return CampusContext(commands=Campus(), folds=[CourseFold(), EnrolmentFold()])
