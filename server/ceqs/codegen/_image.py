"""Descriptor images: everything that the protos of a directory say, imports and comments included.

buf cannot fetch modules offline and protovalidate's wheel ships no `validate.proto`, so protoc resolves the imports:
from the directory itself, from this distribution, and for `buf/validate/validate.proto` and `google/rpc/status.proto`
from the descriptors that the packages protovalidate and googleapis-common-protos carry.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.rpc import status_pb2

from ceqs.contract import prefix
from ceqs.errors import Misconfigured

PLATFORM = "ceqs/v1/options.proto"
VALIDATE = "buf/validate/validate.proto"
# FileDescriptorProto.buf_extension (8042, length-delimited) = { is_import (1): true }, in protobuf's wire format:
# buf lints only the files of an image that are not marked so.
_IS_IMPORT = b"\xd2\xf6\x03\x02\x08\x01"


class BadContract(Misconfigured):
    """The protos do not compile, or declare something that ceqs refuses. One problem per line: `file:line: what`."""


def protos_in(proto: Path) -> list[str]:
    """Give the protos of a directory, by the names that others import them by, in a stable order."""
    if not proto.is_dir():
        raise BadContract(f"{proto}: there is no such directory; name the directory of your protos (--proto)")
    paths = (path.relative_to(proto) for path in proto.rglob("*.proto"))
    # What lies in a hidden directory, such as .venv, is not part of the project.
    found = sorted(path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts))
    if not found:
        raise BadContract(f"{proto}: there is no .proto file in this directory")
    return found


@contextlib.contextmanager
def inputs(proto: Path) -> Generator[tuple[str, ...]]:
    """Give protoc's options for finding the protos of a directory and all that they import, for as long as needed."""
    with tempfile.TemporaryDirectory() as temporary:
        installed = Path(temporary, "installed.binpb")
        installed.write_bytes(FileDescriptorSet(file=[validate_descriptor(), _status()]).SerializeToString())
        yield f"-I{proto}", f"-I{_platform_protos()}", f"--descriptor_set_in={installed}"


def build_image(proto: Path, files: Sequence[str]) -> FileDescriptorSet:
    """Compile files of a directory, with imports and source information. Raises BadContract."""
    with inputs(proto) as given, tempfile.TemporaryDirectory() as temporary:
        image = Path(temporary, "image.binpb")
        protoc(
            *given,
            f"--descriptor_set_out={image}",
            "--include_imports",
            "--include_source_info",
            "--retain_options",
            *files,
        )
        return FileDescriptorSet.FromString(image.read_bytes())


def write_image(proto: Path, image: Path) -> None:
    """Write what `buf lint` reads: an image in which only the directory's own protos are linted. Raises BadContract."""
    files = protos_in(proto)
    marked = b""
    for file in build_image(proto, files).file:
        body = file.SerializeToString(deterministic=True) + (b"" if file.name in files else _IS_IMPORT)
        marked += prefix(FileDescriptorSet.FILE_FIELD_NUMBER, len(body)) + body
    image.parent.mkdir(parents=True, exist_ok=True)
    image.write_bytes(marked)


def validate_descriptor() -> FileDescriptorProto:
    """Give the descriptor of `buf/validate/validate.proto` that the installed protovalidate carries."""
    from protovalidate._gen.buf.validate import validate_pb

    return FileDescriptorProto.FromString(validate_pb.desc().proto.to_binary())


def _status() -> FileDescriptorProto:
    found = FileDescriptorProto()
    status_pb2.DESCRIPTOR.CopyToProto(found)
    return found


def protoc(*arguments: str, path: str = "") -> None:
    """Run grpcio-tools' protoc; its plugins look for modules under `path` first. Raises BadContract."""
    pythonpath = os.pathsep.join(filter(None, [path, os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": pythonpath} if pythonpath else None
    command = [sys.executable, "-m", "grpc_tools.protoc", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        lines = [line for line in done.stderr.strip().splitlines() if ": warning: " not in line]
        raise BadContract("\n".join(lines).removeprefix("--ceqs_out: "))


def _platform_protos() -> Path:
    """Give the directory of the platform's protos: in the wheel beside the code, in a checkout at its top."""
    import ceqs

    for portion in map(Path, ceqs.__path__):
        for directory in (portion / "_proto", portion.parents[1] / "proto"):
            if (directory / PLATFORM).is_file():
                return directory
    raise Misconfigured(f"{PLATFORM} is not installed; install ceqs again")
