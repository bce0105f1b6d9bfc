"""Messages without rules are not validated, every other is."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from ceqs.server._rules import has_rules
from ceqs.v1.answers_pb2 import Receipt


@pytest.mark.parametrize(
    ("name", "ruled"),
    [("DepositRequest", True), ("OpenAccountRequest", True), ("Note", True), ("AccountOpened", False)],
)
def test_rules_are_found_wherever_they_are(bank: Any, name: str, ruled: bool) -> None:
    assert has_rules(getattr(bank, name).DESCRIPTOR) is ruled


def test_rules_of_messages_inside_are_found(bank: Any) -> None:
    outer = [m for m in vars(bank).values() if hasattr(m, "DESCRIPTOR") and _has_note(m.DESCRIPTOR)]
    assert outer
    assert all(has_rules(message.DESCRIPTOR) for message in outer)


def _has_note(descriptor: Any) -> bool:
    fields = getattr(descriptor, "fields", ())
    return any(f.message_type is not None and f.message_type.name == "Note" for f in fields)


def test_a_message_that_imports_no_rules_has_none() -> None:
    assert not has_rules(Receipt.DESCRIPTOR)
    assert not has_rules(Timestamp.DESCRIPTOR)
