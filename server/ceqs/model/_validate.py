"""Validation rules of the contract (https://protovalidate.com), judged before a request is decided or answered."""

from __future__ import annotations

import protovalidate
from google.protobuf.message import Message

from ceqs.errors import Invalid, Violation


def validate(request: Message) -> None:
    """Raise Invalid, with every field that breaks one of the contract's rules."""
    found = [one.proto for one in protovalidate.collect_violations(request)]
    if found:
        raise Invalid(violations=[Violation(_path(one), one.message or one.rule_id) for one in found])


def _path(violation: protovalidate.ViolationPb) -> str:
    names: list[str] = []
    for element in violation.field.elements if violation.field else ():
        index = element.subscript
        names.append(element.field_name if index is None else f"{element.field_name}[{index.value}]")
    return ".".join(names)
