"""Preparing an entry: what is wrong with it alone is found before it is judged with others."""

from __future__ import annotations

from collections.abc import Iterator

from ceqs.contract import value
from ceqs.errors import Invalid, Violation
from ceqs.log._types import (
    MAX_COMMAND_ID_BYTES,
    MAX_ENTRY_BYTES,
    MAX_ENTRY_EVENTS,
    MAX_EVENT_BYTES,
    MAX_EVENT_TAGS,
    MAX_TAG_BYTES,
    Entry,
)


@value()
class Prepared:
    """An entry that was looked at by itself."""

    entry: Entry
    group: int = 0
    """Entries of one group are decided in sequence: each knows what those before it would append."""
    invalid: Invalid | None = None
    """Names every excess of an entry beyond the limits."""


def prepare(entry: Entry, group: int = 0) -> Prepared:
    """Check an entry against the limits."""
    if not _is_fit(entry) and (violations := list(_violations(entry))):
        return Prepared(entry, group, Invalid(violations=violations))
    return Prepared(entry, group)


def _is_fit(entry: Entry) -> bool:
    """Whether it is plain at a glance that nothing is wrong: so it is with almost every entry."""
    texts = [entry.command_id, entry.causation_id, entry.correlation_id, entry.actor, entry.traceparent]
    if entry.condition:
        for item in entry.condition.query.items:
            texts += item.types
            texts += item.tags
    if keep := entry.keeps:
        texts += keep.state, keep.tag, keep.fingerprint
    size = 0
    for event in entry.events:
        texts += event.id, event.type
        texts += event.tags
        size += len(event.payload)
        if len(event.tags) > MAX_EVENT_TAGS:
            return False
    together = "".join(texts)
    # In ASCII, a character is a byte. Where all the texts are short, so are the tags of each event, and where all the
    # payloads are small, so is each.
    return (
        together.isascii()
        and "\0" not in together
        and len(together) <= MAX_TAG_BYTES
        and size <= MAX_EVENT_BYTES
        and len(entry.events) <= MAX_ENTRY_EVENTS
        and 0 < len(entry.command_id) <= MAX_COMMAND_ID_BYTES
    )


def _violations(entry: Entry) -> Iterator[Violation]:
    if not 0 < len(_bytes(entry.command_id)) <= MAX_COMMAND_ID_BYTES:
        yield Violation("command_id", f"must be 1 to {MAX_COMMAND_ID_BYTES} bytes long")
    yield from _unstorable("command_id", entry.command_id)
    if entry.condition:
        for item in entry.condition.query.items:
            yield from _unstorable("condition", *item.types, *item.tags)
    if keep := entry.keeps:
        yield from _unstorable("keeps", keep.state, keep.tag, keep.fingerprint)
    said = (entry.causation_id, entry.correlation_id, entry.actor, entry.traceparent)
    yield from _unstorable("entry", *said)
    size = sum(len(event.payload) for event in entry.events)
    if len(entry.events) > MAX_ENTRY_EVENTS or size > MAX_ENTRY_BYTES:
        yield Violation(
            "events",
            f"are {len(entry.events)} of {size} bytes; one command records at most {MAX_ENTRY_EVENTS} "
            f"of {MAX_ENTRY_BYTES} bytes: split it into several",
        )
    for i, event in enumerate(entry.events):
        where = f"events[{i}]"
        if len(event.payload) > MAX_EVENT_BYTES:
            yield Violation(
                where, f"{event.type} has {len(event.payload)} bytes; at most {MAX_EVENT_BYTES} are recorded"
            )
        if len(event.tags) > MAX_EVENT_TAGS:
            yield Violation(where, f"{event.type} has {len(event.tags)} tags; at most {MAX_EVENT_TAGS} are recorded")
        if sum(len(_bytes(tag)) for tag in event.tags) > MAX_TAG_BYTES:
            yield Violation(where, f"the tags of {event.type} have more than {MAX_TAG_BYTES} bytes")
        yield from _unstorable(where, event.id, event.type, *event.tags)


def _unstorable(where: str, *texts: str) -> Iterator[Violation]:
    """Give a violation for text that no database stores: it would fail the whole batch, not only its own entry."""
    for text in texts:
        if "\0" in text:
            yield Violation(where, f"{text!r} contains NUL")
        elif not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            yield Violation(where, f"{text!r} is not valid Unicode")


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")
