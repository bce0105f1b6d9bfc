"""Wrong use of what is generated: type checkers report every marked line, and no other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator

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
    GetLoanRequest,
    LendBookRequest,
    LendBookResponse,
    Loan,
    Register,
    RegisterBookRequest,
    Reservations,
    ReserveBookRequest,
    ReturnBookRequest,
    ReturnBookResponse,
)
from golden.lending.v1.lending_ceqs import (
    BorrowedProjection,
    LendingAsker,
    LendingCommand,
    LendingContext,
    LendingEvent,
    LendingPrivateSubscriber,
    LendingPublicEvent,
    LendingPublisher,
    LendingSubscriber,
    LendingUpcasters,
    LoanCommands,
    LoanFoldBase,
    LoanGatekeeper,
    LoanQueries,
    RegisterCommands,
    RegisterFoldBase,
)
from golden.lending.v1.lending_client import LendingClient
from golden.processes.v1.in_pb2 import GiveBackRequest, PartArrived, Repair, Thing, ThingTakenIn
from golden.processes.v1.processes_ceqs import ProcessesCommand, ProcessesContext, RepairCommands, RepairProcess
from golden.processes.v1.processes_ceqs import ThingFoldBase as Fold
from sqlalchemy.ext.asyncio import AsyncSession as Session

from ceqs.model import Admission, Boundary, Reaction, Recorded, gate
from ceqs.model import Decision as Ctx

Events = Iterator[LendingEvent]
Loans = Iterator[Loan]
Requests = Iterator[ProcessesCommand]


class MissingFold(LoanFoldBase):
    def on_book_lent(self, loan: Loan, event: BookLent) -> None: ...


class WrongStateFold(RegisterFoldBase):
    def on_book_registered(self, register: Loan, event: BookRegistered) -> None: ...  # wrong: state


class WrongEventFold(RegisterFoldBase):
    def on_book_registered(self, register: Register, event: BookLent) -> None: ...  # wrong: event


class UnknownFieldFold(RegisterFoldBase):
    def on_book_registered(self, register: Register, event: BookRegistered) -> None:
        register.last_number = event.numbr  # wrong: there is no such field
        register.first_number = event.number  # wrong: there is no such field
        register.last_number = event.book_id  # wrong: text is no number


class WrongYield(RegisterCommands):
    def register_book(self, request: RegisterBookRequest, register: Register, ctx: Ctx) -> Iterator[LendingEvent]:
        yield BookRegistered(book_id=request.book_id, numbr=1)  # wrong: there is no such field
        yield BookAvailable(book_id=request.book_id)  # wrong: a public event
        yield ReturnBookResponse()  # wrong: no event


class WrongResult(RegisterCommands):
    def register_book(self, request: RegisterBookRequest, register: Register, ctx: Ctx) -> Loans: ...  # wrong: result


class WrongRequest(RegisterCommands):
    def register_book(self, request: LendBookRequest, register: Register, ctx: Ctx) -> Events: ...  # wrong: request


class WrongBoundary(RegisterCommands):
    def register_book(self, request: RegisterBookRequest, register: Register, ctx: Ctx) -> Events:
        yield BookRegistered(book_id=request.book_id)

    def register_book_boundary(self, request: LendBookRequest, boundary: Boundary) -> Boundary:  # wrong: request
        wrong = boundary.without("BookLent")  # wrong: not the name of an event, but its class
        return wrong.query  # wrong: no boundary


class WrongCommands(LoanCommands):
    def lend_book(
        self, request: LendBookRequest, loan: Loan, ctx: Ctx
    ) -> Generator[LendingEvent, None, LendBookResponse]:
        yield BookLent(book_id=request.book_id)
        return ReturnBookResponse()  # wrong: response

    def return_book(self, request: ReturnBookRequest, loan: Register, ctx: Ctx) -> Events: ...  # wrong: state

    def reserve_book(self, request: ReserveBookRequest, reservations: Reservations) -> Events: ...  # wrong: no ctx


class WrongGatekeeper(LoanGatekeeper):
    async def lend_book(self, request: ReturnBookRequest, ctx: Admission[LendingAsker]) -> None: ...  # wrong: request

    def return_book(self, request: ReturnBookRequest, ctx: Admission[LendingAsker]) -> None: ...  # wrong: not async

    @gate(when_down="ajar")  # wrong: open or closed
    async def reserve_book(self, request: ReserveBookRequest, ctx: Admission[LendingAsker]) -> None:
        await ctx.ask.lend_book(request)  # wrong: a gatekeeper sends no commands
        await ctx.ask.get_loan(request)  # wrong: another request


class WrongProjection(BorrowedProjection):
    def on_book_lent(self, session: Session, event: BookLent, meta: Recorded) -> None: ...  # wrong: not async

    async def on_book_returned(self, session: Session, event: BookLent, meta: Recorded) -> None: ...  # wrong: event


class WrongPublisher(LendingPublisher):
    def on_book_returned(self, event: BookReturned, ctx: Reaction) -> Iterator[LendingPublicEvent]:
        yield BookLent(book_id=event.book_id)  # wrong: private

    def on_book_lent(self, event: BookLent, ctx: Reaction) -> Iterator[BookReturned]: ...  # wrong: private

    async def on_book_reserved(self, event: BookReserved, ctx: Reaction[LendingAsker]) -> None:
        await ctx.ask.lend_book(event)  # wrong: it sends no commands
        await ctx.ask.get_loan(event)  # wrong: no request


class WrongWaiting(LendingPrivateSubscriber):
    async def on_book_lent(self, event: BookLent, ctx: Reaction) -> BookLent: ...  # wrong: no commands

    async def on_book_returned(self, event: BookReturned, ctx: Reaction) -> AsyncIterator[BookLent]:  # wrong: event
        yield BookLent()


class WrongSubscriber(LendingPrivateSubscriber):
    def on_book_lent(self, event: BookLent, ctx: Reaction) -> Iterator[LendingCommand]:
        yield BookReturned(book_id=event.book_id)  # wrong: no command


class WrongProcess(RepairProcess):
    def on_thing_taken_in(self, event: ThingTakenIn, repair: Thing, ctx: Reaction) -> Requests: ...  # wrong: state

    def on_part_arrived(self, event: PartArrived, repair: Repair, ctx: Reaction) -> Iterator[ProcessesCommand]:
        ctx.schedule(GiveBackRequest(), after=7)  # wrong: no key, and a number is no duration
        yield PartArrived()  # wrong: no command


class MissingProcess(RepairProcess):
    def on_part_arrived(self, event: PartArrived, repair: Repair, ctx: Reaction) -> Requests:
        yield GiveBackRequest(thing_id=repair.thing_id)


class WrongHearing(LendingSubscriber):
    def on_book_available(self, event: BookLent, ctx: Reaction) -> Iterator[ReturnBookRequest]: ...  # wrong: event


class WrongUpcasters(LendingUpcasters):
    def book_lent_v1(self, earlier: BookLent) -> BookLent: ...  # wrong: an earlier form

    def book_taken(self, earlier: BookTaken) -> BookTaken: ...  # wrong: what it becomes


class MissingUpcasters(LendingUpcasters):
    def book_lent_v1(self, earlier: BookLent.V1) -> BookLent:
        return BookLent(days=earlier.days)  # wrong: there is no such field today


class WrongQueries(LoanQueries):
    async def describe_loan(self, request: DescribeLoanRequest, loan: Loan) -> DescribeLoanResponse:
        return loan  # wrong: response

    async def follow_loan(self, request: FollowLoanRequest, loan: Loan) -> DescribeLoanResponse: ...  # wrong: response


class MissingQueries(LoanQueries):
    async def describe_loan(self, request: DescribeLoanRequest, loan: Loan) -> DescribeLoanResponse:
        return DescribeLoanResponse(txt="")  # wrong: there is no such field


MissingUpcasters()  # wrong: book_taken is missing
MissingFold()  # wrong: on_book_returned is missing
MissingQueries()  # wrong: follow_loan is missing
MissingProcess()  # wrong: on_thing_taken_in is missing


def build(loans: LoanFoldBase, commands: LoanCommands, queries: LoanQueries) -> None:
    LendingContext(  # wrong: projections, upcasters and queries are missing
        commands=[commands],
        folds=[loans],
    )
    LendingContext(
        commands=[queries],  # wrong: no commands
        folds=[commands],  # wrong: no fold
        gatekeepers=[commands],  # wrong: no gatekeeper
        projections=[loans],  # wrong: no projection
        publishers=[WrongSubscriber()],  # wrong: no publisher
        subscribers=[WrongPublisher()],  # wrong: no subscriber
        upcasters=[loans],  # wrong: no upcasters
        queries=[commands],  # wrong: no queries
    )


def build_processes(commands: RepairCommands, folds: Fold) -> None:
    ProcessesContext(commands=commands, folds=[folds])  # wrong: the process manager is missing


async def call(client: LendingClient) -> None:
    await client.lend_book(GetLoanRequest())  # wrong: request
    await client.lend_boook(LendBookRequest())  # wrong: there is no such rpc
    await client.get_loan(GetLoanRequest(), command_id="c")  # wrong: a query has no command id
    answer = await client.get_loan(GetLoanRequest())
    print(answer.message.loan.title)  # wrong: there is no such field
    print(answer.loan)  # wrong: an answer is not its response
    async for _ in client.get_loan(GetLoanRequest()):  # wrong: no stream
        break


async def load(client: LendingClient) -> None:
    async with client.stream() as stream:
        await stream.lend_book(ReturnBookRequest())  # wrong: request
        await stream.get_loan(GetLoanRequest())  # wrong: a query
        sent = await stream.lend_book(LendBookRequest())
        print(sent.response)  # wrong: it has no outcome yet
        print((await sent).result().due_on)  # wrong: there is no such field
    client.execute_many([GetLoanRequest()])  # wrong: a query
    client.execute_many([(1, LendBookRequest())])  # wrong: an id is text
