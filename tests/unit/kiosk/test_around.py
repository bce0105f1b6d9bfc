"""What is of two services at once: earlier versions of what is told, moments, and what tools say of both."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from tests.ports import free_address

from ceqs.cli import _call, _placing, _roles
from ceqs.cli._output import Output
from ceqs.client import ContextClient
from ceqs.contract import decode_token, encode_token, new_id, public_of
from ceqs.errors import Behind, OutOfRange
from ceqs.log import Entry, NewEvent, open_log
from ceqs.server import Role


async def ask(street: Any, rpc: str, capsys: pytest.CaptureFixture[str], *words: str, **options: Any) -> dict[str, Any]:
    """Give what `ceqs call RPC` prints."""
    given = {"address": None, "command_id": None, "at_least": None, "as_of": None, "actor": None, "wait": 20, **options}
    await _call.call(street.settings, rpc, words, **given, output=Output.JSON)
    answer: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])["answer"]
    return answer


async def test_a_call_bears_that_its_server_starts_again(
    street: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it does under `ceqs dev` whenever a file changes."""
    street.start("serve press")
    served, init = _call._served, ContextClient.__init__
    short = 0.1
    monkeypatch.setattr(_call, "ANSWER", short)
    monkeypatch.setitem(init.__kwdefaults__ or {}, "timeout", short)

    async def found_and_gone(*arguments: Any) -> Any:
        found = await served(*arguments)
        await street.stop("serve press")
        asyncio.get_running_loop().call_later(10 * short, street.start, "serve press")
        return found

    monkeypatch.setattr(_call, "_served", found_and_gone)
    assert "receipt" in await ask(street, "WriteArticle", capsys, "article_id=1", "section=news")
    answer = await ask(street, "GetArticle", capsys, "article_id=1", at_least="now")
    assert answer["article"]["times"] == "1"


async def test_what_was_told_in_an_earlier_version_is_projected_as_what_it_is_today(street: Any) -> None:
    log = await open_log(street.settings.log_url("press"), "press")
    for number in range(3):
        event = NewEvent(
            id=new_id(),
            type="press.v1.ArticlePrinted",
            payload=street.pb.ArticlePrinted.V1(article_id=str(number), desk=number).SerializeToString(),
            tags=(f"article:{number}",),
            public=True,
            version=1,
        )
        await log.append(Entry(command_id=new_id(), events=(event,)))
    await log.close()

    street.start("serve press", "relay press", "project press", "serve kiosk", "project kiosk")
    await street.write(0)
    reading = street.kiosk.with_token(street.press.token)
    offers = {"0": ("news", 2), "1": ("sports", 1), "2": ("arts", 1)}
    sections = {"news": 2, "sports": 1, "arts": 1}
    assert (await street.offers(reading), await street.sections(reading)) == (offers, sections)
    (log_id,) = decode_token(street.press.token)
    then = encode_token({public_of(log_id): 2})
    assert await street.offers(as_of=then) == {"0": ("news", 1), "1": ("sports", 1)}
    assert await street.sections(as_of=then) == {"news": 1, "sports": 1}
    await _placing.rebuild(street.settings, "Sections", version=None, follow=True, output=Output.TEXT)
    assert await street.sections() == sections


async def test_a_moment_of_what_is_told_is_one_of_the_teller_too(open_street: Any) -> None:
    street = open_street
    article = street.pb.GetArticleRequest(article_id="1")
    ages = []
    for _ in range(2):
        await street.write(1)
        offer = street.pb.GetOfferRequest(article_id="1")
        ages.append((await street.kiosk.with_token(street.press.token).get_offer(offer)).age)
        await street.answers()
    told = await street.told()
    # Ink is told of last: with the first printing, the press knew of one article, and of both with the last ink.
    (key,) = decode_token(ages[0].token)
    for public, times in ((1, 1), (2, 1), (len(told), 2)):
        answer = await street.press.get_article(article, as_of=encode_token({key: public}))
        assert answer.message.article.times == times
        assert decode_token(answer.age.token) == {key.removesuffix(":public"): told[public - 1].position}
    with pytest.raises(OutOfRange, match=f"the log of press has {len(told)} public events, not yet {len(told) + 1}"):
        await street.press.get_article(article, as_of=encode_token({key: len(told) + 1}))


async def test_the_head_of_a_log_that_is_elsewhere_is_what_its_server_says(
    open_street: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    street = open_street
    await street.write(1)
    await street.offers(street.kiosk.with_token(street.press.token))
    await street.answers()
    here = tmp_path / "here"
    (here / "logs").mkdir(parents=True)
    (here / "models").symlink_to(tmp_path / "models")
    elsewhere = dataclasses.replace(street.settings, data=here)
    await _placing.list_places(elsewhere, ["kiosk"], Output.TEXT)
    assert capsys.readouterr().out.count("0 behind") == 2
    await _placing.show_places(elsewhere, "Offer", Output.JSON)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["head"] == len(await street.told())
    await street.stop("serve press")
    await _placing.list_places(elsewhere, ["kiosk"], Output.TEXT)
    assert capsys.readouterr().out.count("head unknown") == 2


async def test_now_is_what_is_recorded_by_now_in_the_log_that_the_model_folds(
    open_street: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    street = open_street
    await street.write(1)
    found = await ask(street, "CountSections", capsys, at_least="now")
    assert found == {"printed": {"news": "1"}}
    await street.stop("project press")
    await street.write(2)
    with pytest.raises(Behind, match=r"tell-readers of the context press has passed position \d+, \d+ before \d+"):
        await ask(street, "CountSections", capsys, at_least="now", wait=2)
    street.start("project press")
    assert await ask(street, "CountSections", capsys, at_least="now") == {"printed": {"news": "2"}}


async def test_now_is_known_where_queries_are_served_alone(
    open_street: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    street = open_street
    await street.write(1)
    alone = free_address()
    settings = dataclasses.replace(street.settings, query_addresses={"press": alone})
    serving = _roles.serve(settings, ["press"], lambda text, value: None, roles=frozenset({Role.QUERIES}))
    street.tasks["queries"] = asyncio.create_task(serving)
    for times in range(2, 5):
        await street.write(1)
        found = await ask(street, "GetArticle", capsys, "article_id=1", address=alone, at_least="now")
        assert found["article"]["times"] == str(times)
