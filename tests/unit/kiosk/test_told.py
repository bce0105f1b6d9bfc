"""Projections of what another service tells: filled, fed, rebuilt and asked, with real servers, relays and NATS."""

from __future__ import annotations

import dataclasses
import datetime as dt
import random
from typing import Any

import pytest

from ceqs.cli import _placing
from ceqs.cli._output import Output
from ceqs.contract import decode_token, encode_token, merge_tokens, public_of
from ceqs.errors import Behind, NotFound, OutOfRange, Unavailable
from ceqs.testing import eventually

BOTH = pytest.mark.parametrize("store", ["sqlite", "postgres"], indirect=True)
EVERYTHING = "serve press", "relay press", "project press", "serve kiosk", "relay kiosk", "project kiosk"


async def publish(street: Any, articles: int, dice: random.Random) -> None:
    """Write articles, some of them again, and pull some."""
    for number in range(articles):
        await street.write(number % (articles * 2 // 3 + 1), dice.choice(("news", "sports", "arts")))
        if number % 5 == 4:
            await street.pull(number % (articles * 2 // 3 + 1))


@BOTH
async def test_a_projection_is_filled_from_history_that_no_stream_has_any_more_and_follows(street: Any) -> None:
    street.settings = dataclasses.replace(street.settings, stream_messages=3)
    street.start("serve press", "relay press", "project press")
    await publish(street, 20, random.Random(1))
    await eventually(lambda: told_all(street), 20)
    history = await street.told()

    street.start("serve kiosk", "project kiosk")
    await street.answers()
    assert (await street.offers(), await street.sections()) == street.folded(history)
    await publish(street, 10, random.Random(2))
    reading = street.kiosk.with_token(street.press.token)
    found = await street.offers(reading), await street.sections(reading)
    told = await street.told()
    assert len(told) > len(history)
    assert found == street.folded(told)

    for name, heard in (("Offer", ("ArticlePrinted", "ArticlePulled")), ("Sections", ("ArticlePrinted",))):
        at = await street.status(name)
        assert (at.source, at.position) == ("press", len(told))
        assert at.skipped == sum(event.type.rpartition(".")[2] not in heard for event in told)


async def told_all(street: Any) -> bool:
    """Say whether the press has told everything: twice of each that it prints, once of each that it pulls."""
    told = [event.type for event in await street.told()]
    return (told.count("press.v1.ArticlePrinted"), told.count("press.v1.ArticlePulled")) == (20, 4)


@BOTH
async def test_a_rebuild_is_a_fold_of_what_was_told(street: Any, capsys: pytest.CaptureFixture[str]) -> None:
    street.start(*EVERYTHING)
    await publish(street, 15, random.Random(3))
    reading = street.kiosk.with_token(street.press.token)
    before = await street.offers(reading), await street.sections(reading)
    for name in ("Offer", "Sections"):
        await _placing.rebuild(street.settings, name, version=None, follow=True, output=Output.TEXT)
        assert "v1.2 answers" in capsys.readouterr().out
    assert (await street.offers(), await street.sections()) == before == street.folded(await street.told())
    await _placing.list_places(street.settings, ["kiosk"], Output.TEXT)
    assert "0 behind" in capsys.readouterr().out


async def test_whoever_writes_there_reads_it_here_at_once(open_street: Any) -> None:
    street = open_street
    for number in range(25):
        await street.write(number)
        reading = street.kiosk.with_token(street.press.token)
        offer = await reading.get_offer(street.pb.GetOfferRequest(article_id=str(number)))
        assert offer.message.offer.times == 1
        assert (await street.sections(reading))["news"] == number + 1
        # And the other way round: what the answer included, the press has.
        article = await street.press.with_token(offer.age.token).get_article(
            street.pb.GetArticleRequest(article_id=str(number))
        )
        assert article.message.article.times == 1


async def test_an_answer_says_how_far_it_is_in_what_the_other_tells(open_street: Any) -> None:
    street = open_street
    await street.write(1)
    answer = await street.kiosk.with_token(street.press.token).get_offer(street.pb.GetOfferRequest(article_id="1"))
    told = await street.told()
    (key,) = decode_token(answer.age.token)
    reader = decode_token(street.press.token)
    assert key in {public_of(log_id) for log_id in reader}
    assert answer.age.recorded_at.ToNanoseconds() in {event.recorded_at.ToNanoseconds() for event in told}
    await street.answers()
    answer = await street.kiosk.get_offer(street.pb.GetOfferRequest(article_id="1"))
    assert decode_token(answer.age.token) == {key: len(told)}
    assert (answer.age.lag_events, answer.age.lag_seconds, answer.age.behind) == (0, 0, "")

    await street.stop("project kiosk")
    await street.write(2)
    await eventually(lambda: lags(street, 2), 20)
    age = (await street.kiosk.get_offer(street.pb.GetOfferRequest(article_id="1"))).age
    assert decode_token(age.token) == {key: len(told)}
    assert 0 < age.lag_seconds < 30
    assert not age.behind
    with pytest.raises(NotFound):
        await street.kiosk.get_offer(street.pb.GetOfferRequest(article_id="2"))


async def lags(street: Any, events: int) -> bool:
    age = (await street.kiosk.get_offer(street.pb.GetOfferRequest(article_id="1"))).age
    return bool(age.lag_events == events)


async def test_a_query_that_cannot_have_what_its_token_says_names_who_is_behind(open_street: Any) -> None:
    street = open_street
    await street.write(1)
    await street.offers(street.kiosk.with_token(street.press.token))
    await street.answers()
    await street.stop("project press")
    await street.write(2)
    with pytest.raises(Behind, match=r"tell-readers of the context press has passed position \d+, \d+ before \d+"):
        await street.offers(street.kiosk.with_token(street.press.token), timeout=2)
    street.start("project press")
    assert set(await street.offers(street.kiosk.with_token(street.press.token))) == {"1", "2"}

    await street.stop("project kiosk")
    await street.write(3)
    with pytest.raises(Behind, match=r"Offer stands at position \d+, \d+ before \d+") as behind:
        await street.offers(street.kiosk.with_token(street.press.token), timeout=3)
    assert behind.value.retry_after is not None
    # What it writes itself is no concern of a model of what others tell.
    await street.kiosk.sell_article(street.pb.SellArticleRequest(article_id="1"))
    assert set(await street.offers()) == {"1", "2"}
    street.start("project kiosk")
    assert set(await street.offers(street.kiosk.with_token(street.press.token))) == {"1", "2", "3"}


async def test_while_the_other_is_down_queries_answer_and_say_that_nobody_knows_their_lag(open_street: Any) -> None:
    street = open_street
    await street.write(1)
    await street.offers(street.kiosk.with_token(street.press.token))
    await street.answers()
    asked = street.pb.GetOfferRequest(article_id="1")
    known = (await street.kiosk.get_offer(asked)).age
    assert not known.behind
    await street.stop("serve press")

    async def unknown() -> bool:
        return bool((await street.kiosk.get_offer(asked, timeout=2)).age.behind == "press")

    await eventually(unknown, 20)
    first, second = [(await street.kiosk.get_offer(asked)).age for _ in range(2)]
    assert second.lag_seconds > first.lag_seconds > 0
    assert first.token == known.token
    assert (await street.sections())["news"] == 1
    # Its own answers' tokens are waited for without asking; those of the press only it can resolve.
    await street.offers(street.kiosk.with_token(known.token))
    with pytest.raises(Unavailable, match="press cannot say what the token means"):
        await street.offers(street.kiosk.with_token(street.press.token), timeout=2)

    street.start("serve press")
    await street.write(2)
    assert set(await street.offers(street.kiosk.with_token(street.press.token))) == {"1", "2"}

    async def said() -> bool:
        return not (await street.kiosk.get_offer(asked)).age.behind

    await eventually(said, 20)


async def test_an_event_that_cannot_be_applied_is_parked_and_stops_no_other(open_street: Any) -> None:
    street = open_street
    await street.write(1, "unprintable")
    await street.write(1)
    await street.write(2)
    reading = street.kiosk.with_token(street.press.token)

    async def parked() -> bool:
        answer = await reading.count_sections(street.pb.CountSectionsRequest())
        return (dict(answer.message.printed), answer.age.parked) == ({"news": 1}, 2)

    await eventually(parked, 30)
    assert await street.offers(reading) == {"1": ("news", 2), "2": ("news", 1)}


@BOTH
async def test_as_of_any_moment_it_answers_as_a_fresh_fold_does(street: Any) -> None:
    street.start(*EVERYTHING)
    dice = random.Random(4)
    await publish(street, 12, dice)
    reading = street.kiosk.with_token(street.press.token)
    await street.offers(reading)
    told = await street.told()
    (log_id,) = decode_token(street.press.token)
    for position in [0, *dice.sample(range(1, len(told)), 4), len(told)]:
        moment = encode_token({public_of(log_id): position})
        found = await street.offers(as_of=moment), await street.sections(as_of=moment)
        assert found == street.folded(told[:position]), position
    # By a time, and by a position of the press's own: what had been told by then.
    for event in dice.sample(told, 3):
        then = [one for one in told if one.recorded_at.ToNanoseconds() <= event.recorded_at.ToNanoseconds()]
        assert await street.offers(as_of=event.recorded_at.ToDatetime(dt.UTC)) == street.folded(then)[0]
        then = [one for one in told if one.position <= event.position]
        assert await street.sections(as_of=encode_token({log_id: event.position})) == street.folded(then)[1]
    with pytest.raises(OutOfRange, match=f"the log of press ends at {len(told)}, before {len(told) + 1}"):
        await street.offers(as_of=encode_token({public_of(log_id): len(told) + 1}))
    # By a moment of the kiosk's own log: as of the time that this was.
    await street.kiosk.sell_article(street.pb.SellArticleRequest(article_id="1"))
    sold = street.kiosk.token
    await street.write("later")
    assert "later" in await street.offers(street.kiosk.with_token(street.press.token))
    assert await street.offers(as_of=sold) == street.folded(told)[0]


async def test_a_live_query_tells_what_was_told(open_street: Any) -> None:
    street = open_street
    await street.write(1)
    await street.offers(street.kiosk.with_token(street.press.token))
    await street.answers()
    watching = street.kiosk.watch_sections(street.pb.WatchSectionsRequest())
    seen: list[dict[str, int]] = []
    async for answer in watching:
        seen.append(dict(answer.message.printed))
        assert all(key.endswith(":public") for key in decode_token(answer.age.token))
        if len(seen) == 3:
            break
        await street.write(len(seen) + 1)
    assert seen == [{"news": 1}, {"news": 2}, {"news": 3}]


async def test_an_aggregator_joins_what_is_of_two_logs_and_says_how_old_each_is(open_street: Any) -> None:
    street = open_street
    await street.write(1)
    await street.kiosk.sell_article(street.pb.SellArticleRequest(article_id="1"))
    reading = street.kiosk.with_token(merge_tokens(street.press.token, street.kiosk.token))
    answer = await reading.get_overview(street.pb.GetOverviewRequest(article_id="1"))
    assert (answer.message.sold, dict(answer.message.printed)) == (1, {"news": 1})
    ages = answer.message.ages
    (own,), (foreign,) = (decode_token(ages[part].age.token) for part in ("sale", "sections"))
    assert foreign.endswith(":public")
    assert set(decode_token(answer.age.token)) == {own, foreign}
