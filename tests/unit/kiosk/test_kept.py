"""What a keyed model makes of what another context tells, in the test kit; and what a context refuses."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from ceqs.errors import Misconfigured
from ceqs.model import TableProjection
from ceqs.testing import given


@pytest.fixture
def modules(on_path: None) -> tuple[Any, ...]:
    """The two contexts, and their messages."""
    names = "press_context", "kiosk_context", "press.v1.press_pb2", "kiosk.v1.kiosk_pb2"
    return tuple(map(importlib.import_module, names))


def test_a_model_of_what_another_context_tells_is_tested_like_any_other(modules: Any) -> None:
    _, here, press, pb = modules
    printed = press.ArticlePrinted(article_id="1", section="arts")
    given(here.kiosk, printed, printed).keeps(pb.Offer, pb.Offer(article_id="1", section="arts", times=2))
    given(here.kiosk, printed, press.ArticlePulled(article_id="1")).keeps(pb.Offer)
    sold = pb.ArticleSold(article_id="1")
    given(here.kiosk, printed, sold).when(pb.SellArticleRequest(article_id="1")).yields(sold)
    with pytest.raises(Misconfigured, match=r"press\.v1\.ArticleWritten is not an event of the context 'press'"):
        given(here.kiosk, press.ArticleWritten(article_id="1"))


def test_a_projection_folds_the_log_that_its_context_has_declared_and_hears_public_events_only(modules: Any) -> None:
    _, here, _, _ = modules
    rest = {"commands": here.Kiosk(), "folds": [here.SaleFold()], "queries": here.Queries()}
    heard = {"on_article_sold": here.Sections.on_article_printed}
    declared = {"ceqs_contract": here.kiosk.contract, "ceqs_projection": "Sections"}
    own = type("Sections", (TableProjection,), declared | heard)
    with pytest.raises(
        Misconfigured, match=r"Sections folds events of kiosk\.v1, and no projection Sections of kiosk\.v1"
    ):
        here.KioskContext(**rest, projections=[here.Offers(), own()])

    class Nosy(here.Sections):  # type: ignore[misc,name-defined]
        async def on_article_written(self, session: Any, event: Any, meta: Any) -> None: ...

    with pytest.raises(Misconfigured, match="on_article_written belongs to no event that it may hear"):
        here.KioskContext(**rest, projections=[here.Offers(), Nosy()])
