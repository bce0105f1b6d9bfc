"""Preparing entries: what is wrong with one alone is found before it is judged with others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
    """Entries that were decided in sequence, each knowing what those before it would append; and looked at alone."""

    entries: Sequence[Entry]
    invalid: Sequence[Invalid | None]
    """For each of them, what names every excess of it beyond the limits."""

    def __len__(self) -> int:
        """Say how many they are."""
        return len(self.entries)

    def __iter__(self) -> Iterator[tuple[Entry, Invalid | None]]:
        """Go through the entries, each with what is wrong with it."""
        return zip(self.entries, self.invalid, strict=True)


def prepare(entries: Sequence[Entry]) -> Prepared:
    """Check entries against the limits."""
    return Prepared(entries, [None if _is_fit(entry) else _invalid(entry) for entry in entries])


def _invalid(entry: Entry) -> Invalid | None:
    violations = list(_violations(entry))
    return Invalid(violations=violations) if violations else None


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
    # How many bytes a character takes at most. Where all the texts are short, so are the tags of each event, and where
    # all the payloads are small, so is each.
    width = 1 if together.isascii() else 4
    return (
        "\0" not in together
        and (width == 1 or _is_unicode(together))
        and len(together) * width <= MAX_TAG_BYTES
        and size <= MAX_EVENT_BYTES
        and len(entry.events) <= MAX_ENTRY_EVENTS
        and 0 < len(entry.command_id) * width <= MAX_COMMAND_ID_BYTES
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
        elif not _is_unicode(text):
            yield Violation(where, f"{text!r} is not valid Unicode")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")
