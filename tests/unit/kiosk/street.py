"""The press and the kiosk: two services, and what they have told each other."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections import Counter
from types import SimpleNamespace
from typing import Any

from ceqs.cli import _roles
from ceqs.cli._settings import Settings
from ceqs.log import open_reader
from ceqs.projectors import HandlerStatus, read_status
from ceqs.testing import eventually
from ceqs.v1.events_pb2 import RecordedEvent

CONTEXTS = {"press": "press_context:press", "kiosk": "kiosk_context:kiosk"}


class Street:
    """What runs of the press and the kiosk, and a client of each."""

    def __init__(self, settings: Settings, timeout: float = 20) -> None:
        modules = [
            importlib.import_module(f"{name}.v1.{name}_{kind}") for name in CONTEXTS for kind in ("pb2", "client")
        ]
        self.pb = SimpleNamespace(**{name: value for module in modules for name, value in vars(module).items()})
        self.contexts = {name: importlib.import_module(f"{name}_context").__dict__[name] for name in CONTEXTS}
        self.settings = settings
        self.press = self.pb.PressClient(settings.addresses["press"], timeout=timeout)
        self.kiosk = self.pb.KioskClient(settings.addresses["kiosk"], timeout=timeout)
        self.tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, *roles: str) -> None:
        """Start roles of contexts: `serve press`."""
        for role in roles:
            kind, name = role.split()
            work = getattr(_roles, kind)(self.settings, [name], lambda text, value: None)
            self.tasks[role] = asyncio.create_task(work)

    async def stop(self, *roles: str) -> None:
        for role in roles:
            task = self.tasks.pop(role)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def close(self) -> None:
        await self.stop(*self.tasks)
        await self.press.close()
        await self.kiosk.close()

    async def write(self, number: int | str, section: str = "news") -> None:
        await self.press.write_article(self.pb.WriteArticleRequest(article_id=str(number), section=section))

    async def pull(self, number: int | str) -> None:
        await self.press.pull_article(self.pb.PullArticleRequest(article_id=str(number)))

    async def offers(self, client: Any = None, **options: Any) -> dict[str, tuple[str, int]]:
        """Give the section of each article that is offered, and how often it was printed."""
        asking = (client or self.kiosk).list_offers(self.pb.ListOffersRequest(page_size=1000), **options)
        return {offer.article_id: (offer.section, offer.times) for offer in (await asking).message.offers}

    async def sections(self, client: Any = None, **options: Any) -> dict[str, int]:
        """Give how often articles of each section were printed."""
        asking = (client or self.kiosk).count_sections(self.pb.CountSectionsRequest(), **options)
        return dict((await asking).message.printed)

    async def told(self) -> list[RecordedEvent]:
        """Give the public log of the press."""
        found, reader = list[RecordedEvent](), await open_reader(self.settings.log_url("press"), "press")
        while (part := await reader.read(after=len(found), public=True)).events:
            found += [RecordedEvent.FromString(event.envelope) for event in part.events]
        await reader.close()
        return found

    def folded(self, told: list[RecordedEvent]) -> tuple[dict[str, tuple[str, int]], dict[str, int]]:
        """Give what offers and sections are after these events."""
        offers, printed = dict[str, tuple[str, int]](), Counter[str]()
        for event in told:
            if event.type == "press.v1.ArticlePrinted":
                article = self.pb.ArticlePrinted.FromString(event.payload)
                offers[article.article_id] = article.section, offers.get(article.article_id, ("", 0))[1] + 1
                printed[article.section] += 1
            elif event.type == "press.v1.ArticlePulled":
                offers.pop(self.pb.ArticlePulled.FromString(event.payload).article_id, None)
        return offers, dict(printed)

    async def status(self, projection: str) -> HandlerStatus:
        """Give where a projection of the kiosk stands, as its place says."""
        settings = self.settings
        found = await read_status(settings.models_url, self.contexts["kiosk"])
        return next(status for status in found if status.name == projection)

    async def answers(self) -> None:
        """Wait until both projections of the kiosk answer with what the press had told."""
        head = len(await self.told())

        async def there() -> bool:
            return all([(await self.status(name)).position >= head for name in ("Offer", "Sections")])

        await eventually(there, 30)
