"""A log of the shelves, and places that are filled from it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any

import sqlalchemy as sa
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from ceqs.contract import bucket_of, new_id, tags_of
from ceqs.log import Entry, Log, NewEvent
from ceqs.model import KeyedFolder, Recorded
from ceqs.projectors import MESSAGE, ModelReader, Past, Place, fill, place_of, table_of
from ceqs.queries import Answer, Answers, QueryCall, States

META = Recorded(event_id="", type="", position=0, public_position=0, recorded_at=None)  # type: ignore[arg-type]
LARGE = 2**63
"""From here on numbers are larger than a database's."""


class Stacks:
    """Books and readers in places of their own."""

    def __init__(self, shelves: Any, log: Log, url: str) -> None:
        self.shelves, self.log, self.url = shelves, log, url
        self.context = shelves.make_context()
        self.places = {name: place_of(url, "shelves", name) for name in self.context.projections}
        self.readers = {name: ModelReader(place) for name, place in self.places.items()}
        self.past = {
            name: Past(projection, self.context.decoder, log, url)
            for name, projection in self.context.projections.items()
        }
        states = States(self.context, log)
        self.answers = Answers(self.context, log, states, self.readers, past=self.past)
        self.recorded: list[Message] = []

    async def record(self, *events: Message) -> None:
        contract = self.context.contract
        new = []
        for event in events:
            kind, tags = contract.event(event), tags_of(event, contract.event(event).tags)
            new.append(
                NewEvent(
                    id=new_id(),
                    type=kind.full_name,
                    payload=event.SerializeToString(),
                    tags=tags,
                    bucket=bucket_of(kind, tags),
                )
            )
        await self.log.append(Entry(command_id=new_id(), events=tuple(new)))
        self.recorded += events

    async def fill(self, upto: int = 0) -> None:
        for name, place in self.places.items():
            projection = self.context.projections[name]
            await fill(place, projection, self.context.decoder, self.log, upto or len(self.recorded))

    async def rows(self, name: str, place: Place | None = None) -> Mapping[Any, Message]:
        """Give what is in a place, by the key's column."""
        model = self.context.contract.models[name]
        table = table_of(model)
        reader = ModelReader(place or self.places[name])
        async with reader.session() as (session, _):
            rows = (await session.execute(sa.select(table.c[model.key_field], table.c[MESSAGE]))).all()
        await reader.close()
        return {key: model.message.FromString(message) for key, message in rows}

    def folded(self, name: str, upto: int | None = None) -> dict[str, Message]:
        """Give what the model is after events, folded one by one, by tag."""
        folder, found = KeyedFolder(self.context.projections[name]), dict[str, Message]()
        heard = {event.full_name for event in folder.model.folds}
        for event in self.recorded[:upto]:
            if event.DESCRIPTOR.full_name not in heard:
                continue
            for tag in folder.tags(event):
                value = tag.partition(":")[2]
                key = int(value) if name == "Reader" else value
                row = folder.fold(found.pop(tag, None), key, event, META)
                if row is not None:
                    found[tag] = row
        return found

    async def ask(self, rpc: str, call: QueryCall | None = None, **fields: Any) -> Answer:
        paths = self.context.contract.queries
        (path,) = [path for path in paths if path.endswith(f"/{rpc}")]
        request = getattr(self.shelves, f"{rpc}Request")(**fields)
        return await self.answers.answer(paths[path], request, call or QueryCall())

    def lent(self, book: str, reader: str = "Ada", number: int = 1, at: int = 0) -> Message:
        event: Message = self.shelves.BookLent(
            book_id=book, reader=reader, reader_no=number, lent_at=Timestamp(seconds=at)
        )
        return event

    def some_events(self, dice: random.Random, count: int, books: int = 12) -> Iterator[Message]:
        """Give events of a few books, not in any order of their own."""
        for _ in range(count):
            book = f"book {dice.randrange(books)}"
            chance = dice.random()
            if chance < 0.6:
                number = dice.choice([1, 2, LARGE, LARGE + 1, 2**64 - 1])
                yield self.lent(book, dice.choice(["Ada", "Bob", "Eve"]), number, dice.randrange(5))
            elif chance < 0.9:
                yield self.shelves.BookReturned(book_id=book)
            else:
                yield self.shelves.BooksBurnt(book_ids=[book, f"book {dice.randrange(books)}"])

    async def close(self) -> None:
        for reader in self.readers.values():
            await reader.close()
        for past in self.past.values():
            await past.close()
