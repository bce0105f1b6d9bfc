"""The contracts of a small library and a small bank, for the tests of the rooms that work on any contract."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.message_factory import GetMessageClass

from ceqs.codegen import generate
from ceqs.codegen._image import build_image
from ceqs.contract import messages, read_contract

PROTOS = Path(__file__).parent / "protos"
BANK = Path(__file__).parent / "bank"


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


@pytest.fixture(scope="session")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The messages of bank.v1 by name, and `make_context()`: the bank with its handlers, generated code included."""
    generated = tmp_path_factory.mktemp("generated")
    generate(BANK / "proto", generated)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(generated), str(BANK), *sys.path])
        handlers, messages_of_bank = (
            importlib.import_module("bank_context"),
            importlib.import_module("bank.v1.bank_pb2"),
        )
    return SimpleNamespace(**vars(messages_of_bank), **{k: v for k, v in vars(handlers).items() if k == "make_context"})
