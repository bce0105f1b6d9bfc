"""The kiosk: what it offers is what the press tells."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa
from kiosk.v1 import kiosk_pb2 as pb
from kiosk.v1.kiosk_ceqs import (
    KioskAsker,
    KioskCommands,
    KioskContext,
    KioskEvent,
    KioskQueries,
    OfferProjection,
    SaleFoldBase,
    SectionsProjection,
)
from press.v1.press_pb2 import ArticlePrinted, ArticlePulled
from press_context import EarlierNews
from sqlalchemy.ext.asyncio import AsyncSession

from ceqs.model import Decision, Recorded
from ceqs.queries import Gathering

TABLES = sa.MetaData()
PRINTED = sa.Table(
    "printed",
    TABLES,
    sa.Column("article_id", sa.String, primary_key=True),
    sa.Column("times", sa.Integer, primary_key=True),
    sa.Column("section", sa.String, nullable=False),
)


class Kiosk(KioskCommands):
    def sell_article(self, request: pb.SellArticleRequest, sale: pb.Sale, ctx: Decision) -> Iterator[KioskEvent]:
        yield pb.ArticleSold(article_id=request.article_id)


class SaleFold(SaleFoldBase):
    def on_article_sold(self, sale: pb.Sale, event: pb.ArticleSold) -> None:
        sale.sold += 1


class Offers(OfferProjection):
    def on_article_printed(self, offer: pb.Offer, event: ArticlePrinted, meta: Recorded) -> None:
        offer.section = event.section
        offer.times += 1

    def on_article_pulled(self, offer: pb.Offer, event: ArticlePulled, meta: Recorded) -> None:
        offer.Clear()


class Sections(SectionsProjection):
    """Has a row for each time that an article was printed; of the section `unprintable` it can make none."""

    metadata = TABLES
    partition_by = "article"

    async def on_article_printed(self, session: AsyncSession, event: ArticlePrinted, meta: Recorded) -> None:
        if event.section == "unprintable":
            raise ValueError("there is no such section")
        times = sa.select(sa.func.count()).where(PRINTED.c.article_id == event.article_id)
        number = (await session.execute(times)).scalar_one()
        row = {"article_id": event.article_id, "times": number, "section": event.section}
        await session.execute(sa.insert(PRINTED).values(row))


class Queries(KioskQueries):
    async def count_sections(self, request: pb.CountSectionsRequest, session: AsyncSession) -> pb.CountSectionsResponse:
        return pb.CountSectionsResponse(printed=await _printed(session))

    async def watch_sections(self, request: pb.WatchSectionsRequest, session: AsyncSession) -> pb.WatchSectionsResponse:
        return pb.WatchSectionsResponse(printed=await _printed(session))

    async def get_overview(self, request: pb.GetOverviewRequest, ctx: Gathering[KioskAsker]) -> pb.GetOverviewResponse:
        sale = ctx.part("sale", ctx.ask.get_sale(pb.GetSaleRequest(article_id=request.article_id)))
        sections = ctx.part("sections", ctx.ask.count_sections(pb.CountSectionsRequest()))
        return pb.GetOverviewResponse(sold=(await sale).sale.sold, printed=(await sections).printed)


async def _printed(session: AsyncSession) -> dict[str, int]:
    counted = sa.select(PRINTED.c.section, sa.func.count()).group_by(PRINTED.c.section)
    return dict((await session.execute(counted)).all())


kiosk = KioskContext(
    commands=Kiosk(),
    folds=[SaleFold()],
    projections=[Offers(), Sections()],
    queries=Queries(),
    upcasters=[EarlierNews()],
)
