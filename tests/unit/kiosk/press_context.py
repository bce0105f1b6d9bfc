"""The press: an article may be written again, and withdrawn."""

from __future__ import annotations

from collections.abc import Iterator

from press.v1 import press_pb2 as pb
from press.v1.press_ceqs import (
    ArticleFoldBase,
    PressAsker,
    PressCommands,
    PressContext,
    PressEvent,
    PressPublicUpcasters,
    PressPublisher,
)

from ceqs.errors import Rejected
from ceqs.model import Decision, Reaction


class Press(PressCommands):
    def write_article(
        self, request: pb.WriteArticleRequest, article: pb.Article, ctx: Decision
    ) -> Iterator[PressEvent]:
        yield pb.ArticleWritten(article_id=request.article_id, section=request.section)

    def pull_article(self, request: pb.PullArticleRequest, article: pb.Article, ctx: Decision) -> Iterator[PressEvent]:
        if not article.times:
            raise Rejected("NOT_WRITTEN", f"there is no article {request.article_id}")
        yield pb.ArticleWithdrawn(article_id=request.article_id, section=article.section)


class ArticleFold(ArticleFoldBase):
    def on_article_written(self, article: pb.Article, event: pb.ArticleWritten) -> None:
        article.section = event.section
        article.times += 1

    def on_article_withdrawn(self, article: pb.Article, event: pb.ArticleWithdrawn) -> None:
        article.times = 0


class TellReaders(PressPublisher):
    def on_article_written(
        self, event: pb.ArticleWritten, ctx: Reaction[PressAsker]
    ) -> Iterator[pb.ArticlePrinted | pb.InkUsed]:
        yield pb.ArticlePrinted(article_id=event.article_id, section=event.section)
        yield pb.InkUsed(millilitres=5)

    def on_article_withdrawn(self, event: pb.ArticleWithdrawn, ctx: Reaction[PressAsker]) -> Iterator[pb.ArticlePulled]:
        yield pb.ArticlePulled(article_id=event.article_id, section=event.section)


class EarlierNews(PressPublicUpcasters):
    def article_printed_v1(self, earlier: pb.ArticlePrinted.V1) -> pb.ArticlePrinted:
        return pb.ArticlePrinted(article_id=earlier.article_id, section=("news", "sports", "arts")[earlier.desk])


press = PressContext(commands=Press(), folds=[ArticleFold()], publishers=[TellReaders()], upcasters=[EarlierNews()])
