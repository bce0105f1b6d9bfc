"""Right use of what is generated: type checkers accept every line."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Generator, Iterable, Iterator

from golden.lending.v1.in_pb2 import (
    BookAvailable,
    BookLent,
    BookRegistered,
    BookReserved,
    BookReturned,
    BookTaken,
    DescribeLoanRequest,
    DescribeLoanResponse,
    FollowLoanRequest,
    FollowLoanResponse,
    GetLoanRequest,
    GetLoanResponse,
    GetReportRequest,
    GetReportResponse,
    LendBookRequest,
    LendBookResponse,
    ListBorrowedRequest,
    ListBorrowedResponse,
    ListReadersRequest,
    ListReadersResponse,
    Loan,
    Register,
    RegisterBookRequest,
    Reservations,
    ReserveBookRequest,
    ReturnBookRequest,
    WatchBorrowedRequest,
    WatchBorrowedResponse,
    WatchLoanRequest,
)
from golden.lending.v1.lending_ceqs import (
    BorrowedProjection,
    LendingAsker,
    LendingCommand,
    LendingContext,
    LendingEvent,
    LendingPrivateSubscriber,
    LendingPublicEvent,
    LendingPublicUpcasters,
    LendingPublisher,
    LendingSubscriber,
    LendingUpcasters,
    LoanCommands,
    LoanFoldBase,
    LoanGatekeeper,
    LoanQueries,
    ReadersProjection,
    RegisterCommands,
    RegisterFoldBase,
    ReportQueries,
    ReservationsFoldBase,
)
from golden.lending.v1.lending_client import LendingClient
from golden.processes.v1.in_pb2 import GiveBackRequest, PartArrived, Repair, ThingTakenIn
from golden.processes.v1.processes_ceqs import ProcessesCommand, RepairProcess
from google.protobuf.message import Message
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import AsyncSession

from ceqs.model import Admission, Boundary, Decision, Reaction, Recorded, Rejected, gate
from ceqs.queries import Gathering


class LoanFold(LoanFoldBase):
    def on_book_lent(self, loan: Loan, event: BookLent) -> None:
        loan.member_id = event.member_id

    def on_book_returned(self, loan: Loan, event: BookReturned) -> None:
        loan.member_id = ""


class ReservationsFold(ReservationsFoldBase):
    def on_book_reserved(self, reservations: Reservations, event: BookReserved) -> None:
        reservations.of_book += 1

    def on_book_lent(self, reservations: Reservations, event: BookLent) -> None:
        reservations.of_book -= 1


class RegisterFold(RegisterFoldBase):
    def on_book_registered(self, register: Register, event: BookRegistered) -> None:
        register.last_number = event.number


class Lending(LoanCommands):
    def lend_book(
        self, request: LendBookRequest, loan: Loan, ctx: Decision
    ) -> Generator[LendingEvent, None, LendBookResponse]:
        if loan.member_id:
            raise Rejected("BOOK_LENT")
        yield BookLent(book_id=request.book_id, member_id=request.member_id, due_at=ctx.now)
        return LendBookResponse(due_at=ctx.now)

    def lend_book_boundary(self, request: LendBookRequest, boundary: Boundary) -> Boundary:
        return boundary.only(BookLent, BookReturned).also(tags=[f"book:{request.book_id}"])

    def return_book(self, request: ReturnBookRequest, loan: Loan, ctx: Decision) -> Iterator[LendingEvent]:
        yield BookReturned(book_id=request.book_id)

    def reserve_book(
        self, request: ReserveBookRequest, reservations: Reservations, ctx: Decision
    ) -> Iterable[BookReserved]:
        return [BookReserved(book_id=request.book_id, member_id=request.member_id)]


class Registering(RegisterCommands):
    def register_book(self, request: RegisterBookRequest, register: Register, ctx: Decision) -> Iterator[LendingEvent]:
        yield BookRegistered(book_id=request.book_id, number=register.last_number + 1)


class Guarding(LoanGatekeeper):
    @gate(within=0.2, when_down="open")
    async def lend_book(self, request: LendBookRequest, ctx: Admission[LendingAsker]) -> None:
        asked = await ctx.ask.get_loan(GetLoanRequest(book_id=request.book_id))
        if request.member_id == ctx.actor or asked.message.loan.member_id == request.member_id:
            raise Rejected("NOT_TO_ONESELF")


class Borrowed(BorrowedProjection):
    metadata = MetaData()

    async def on_book_lent(self, session: AsyncSession, event: BookLent, meta: Recorded) -> None:
        await session.commit()


class Readers(ReadersProjection):
    name = "readers"
    version = 2
    metadata = MetaData()

    async def on_book_returned(self, session: AsyncSession, event: BookReturned, meta: Recorded) -> None:
        assert meta.position > 0


class Telling(LendingPublisher):
    def on_book_returned(self, event: BookReturned, ctx: Reaction) -> Iterator[LendingPublicEvent]:
        yield BookAvailable(book_id=event.book_id)

    async def on_book_lent(self, event: BookLent, ctx: Reaction[LendingAsker]) -> AsyncIterator[LendingPublicEvent]:
        asked = await ctx.ask.get_loan(GetLoanRequest(book_id=event.book_id))
        other = await ctx.service(LendingClient).get_loan(GetLoanRequest(book_id=event.book_id))
        if asked.found and asked.message.loan.member_id == other.message.loan.member_id:
            yield BookAvailable(book_id=event.book_id)


class Reminding(LendingPrivateSubscriber):
    def on_book_reserved(self, event: BookReserved, ctx: Reaction) -> Iterator[LendingCommand]:
        yield ReturnBookRequest(book_id=event.book_id)

    async def on_book_returned(self, event: BookReturned, ctx: Reaction) -> None:
        assert ctx.event_id

    async def on_book_lent(self, event: BookLent, ctx: Reaction[LendingAsker]) -> list[LendingCommand]:
        return [ReturnBookRequest(book_id=event.book_id)]


class Repairing(RepairProcess):
    def on_thing_taken_in(self, event: ThingTakenIn, repair: Repair, ctx: Reaction) -> Iterator[ProcessesCommand]:
        repair.missing = event.parts
        request = GiveBackRequest(thing_id=event.thing_id)
        ctx.schedule(request, key=event.thing_id, after=dt.timedelta(days=7))
        ctx.schedule(request, key=event.thing_id, at=ctx.recorded_at)
        yield request

    def on_part_arrived(self, event: PartArrived, repair: Repair, ctx: Reaction) -> list[ProcessesCommand]:
        ctx.cancel(repair.thing_id)
        return []


class Hearing(LendingSubscriber):
    """As another context would hear it, with commands of its own."""

    def on_book_available(self, event: BookAvailable, ctx: Reaction) -> Iterator[ReserveBookRequest]:
        yield ReserveBookRequest(book_id=event.book_id)


class Asking(LendingSubscriber):
    """The same, with the queries of its own context."""

    async def on_book_available(self, event: BookAvailable, ctx: Reaction[LendingAsker]) -> AsyncIterator[Message]:
        yield ReserveBookRequest(member_id=(await ctx.ask.get_loan(GetLoanRequest())).message.loan.member_id)


class Earlier(LendingUpcasters):
    def book_lent_v1(self, earlier: BookLent.V1) -> BookLent:
        return BookLent(book_id=earlier.book_id, member_id=earlier.member_id)

    def book_taken(self, earlier: BookTaken) -> BookLent:
        return BookLent(book_id=earlier.card)


class EarlierNews(LendingPublicUpcasters):
    def book_available_v1(self, earlier: BookAvailable.V1) -> BookAvailable:
        return BookAvailable(book_id=earlier.book_id, shelf_ids=[earlier.shelf_id])


class Answers(LoanQueries):
    async def describe_loan(self, request: DescribeLoanRequest, loan: Loan) -> DescribeLoanResponse:
        return DescribeLoanResponse(text=loan.member_id)

    async def follow_loan(self, request: FollowLoanRequest, loan: Loan) -> FollowLoanResponse:
        return FollowLoanResponse(text=loan.member_id)


class Reports(ReportQueries):
    async def list_borrowed(self, request: ListBorrowedRequest, session: AsyncSession) -> ListBorrowedResponse:
        return ListBorrowedResponse()

    async def watch_borrowed(self, request: WatchBorrowedRequest, session: AsyncSession) -> WatchBorrowedResponse:
        return WatchBorrowedResponse()

    async def list_readers(self, request: ListReadersRequest, session: AsyncSession) -> ListReadersResponse:
        return ListReadersResponse()

    async def get_report(self, request: GetReportRequest, ctx: Gathering[LendingAsker]) -> GetReportResponse:
        loan = ctx.part("loan", ctx.ask.get_loan(GetLoanRequest(book_id="1")), within=0.5)
        other = ctx.optional("other", ctx.service(LendingClient).get_loan(GetLoanRequest(book_id="2")))
        third = ctx.optional("third", ctx.ask.get_loan(GetLoanRequest()), fallback=GetLoanResponse())
        found = await other
        name = found.loan.member_id if found else (await third).loan.member_id
        return GetReportResponse(parts=[GetReportResponse.Part(name=(await loan).loan.member_id + name)])


lending = LendingContext(
    commands=[Lending(), Registering()],
    folds=[LoanFold(), ReservationsFold(), RegisterFold()],
    gatekeepers=[Guarding()],
    projections=[Borrowed(), Readers()],
    publishers=[Telling()],
    subscribers=[Reminding(), Hearing(), Asking()],
    upcasters=[Earlier(), EarlierNews()],
    queries=[Answers(), Reports()],
)


async def call() -> str:
    async with LendingClient("localhost:50051") as client:
        lent = await client.lend_book(LendBookRequest(book_id="b"), command_id="c", timeout=2)
        answer = await client.get_loan(GetLoanRequest(book_id="b"), at_least=lent.receipt.token)
        async for watched in client.watch_loan(WatchLoanRequest(book_id="b")):
            return watched.message.loan.member_id
        return answer.message.loan.member_id


async def load(client: LendingClient) -> list[str]:
    async with client.stream(timeout=60) as stream:
        lending = await stream.lend_book(LendBookRequest(book_id="b"), command_id="c")
        returning = await stream.return_book(ReturnBookRequest(book_id="b"))
    lent: LendBookResponse = lending.result().result()
    ids = [lent.receipt.command_id, (await returning).command_id]
    async for outcome in client.execute_many([ReturnBookRequest(book_id="b"), ("c", LendBookRequest(book_id="b"))]):
        ids.append(outcome.result().receipt.command_id)
    async for outcome in client.execute_many(LendBookRequest(book_id=one) for one in ids):
        if outcome.error is None and outcome.receipt is not None:
            ids.append(outcome.receipt.command_id)
    return ids
