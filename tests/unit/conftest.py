"""The contract of a small library, for the tests of the rooms that work on any contract."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.message_factory import GetMessageClass

from ceqs.codegen._image import build_image
from ceqs.contract import messages, read_contract

PROTOS = Path(__file__).parent / "protos"


@pytest.fixture(scope="session")
def library() -> Any:
    """The messages of library.v1 by name, `file` and `contract`."""
    name = "library/v1/library.proto"
    pool = descriptor_pool.Default()
    for needed in build_image(PROTOS, [name]).file:
        try:
            pool.FindFileByName(needed.name)
        except KeyError:
            pool.AddSerializedFile(needed.SerializeToString())
    file = pool.FindFileByName(name)
    classes = {descriptor.name: GetMessageClass(descriptor) for descriptor in messages(file)}
    return SimpleNamespace(**classes, file=file, contract=read_contract(file))
