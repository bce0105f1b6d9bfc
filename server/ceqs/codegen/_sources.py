"""Where things stand in the protos, and what their comments say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, SourceCodeInfo

Path = tuple[int, ...]


class Sources:
    """Lines and comments of everything that a set of files declares, by full name."""

    def __init__(self, files: Iterable[FileDescriptorProto]) -> None:
        self._where: dict[str, tuple[str, Path]] = {}
        self._locations: dict[str, dict[Path, SourceCodeInfo.Location]] = {}
        for file in files:
            self._locations[file.name] = {tuple(one.path): one for one in file.source_code_info.location}
            for name, path in _paths(file):
                self._where[name] = (file.name, path)

    def line(self, name: str, *within: int) -> str:
        """Give `file:line` of a declaration, or of what lies in it (a path of field numbers, as in descriptor.proto).

        Where the source has no such part, the closest one around it is meant.
        """
        file, path = self._where[name]
        return self._line(file, path, within)

    def file_line(self, file: str, *within: int) -> str:
        """Give `file:line` of a part of a file, such as its package or one of its options."""
        return self._line(file, (), within)

    def comment(self, name: str) -> str:
        """Give the comment of a declaration: what stands before it, else what follows on its line."""
        file, path = self._where[name]
        location = self._locations[file].get(path, SourceCodeInfo.Location())
        lines = (location.leading_comments or location.trailing_comments).split("\n")
        kept = [line.removeprefix(" ").rstrip() for line in lines if not line.strip().startswith("buf:lint:")]
        return "\n".join(kept).strip()

    def _line(self, file: str, path: Path, within: Sequence[int]) -> str:
        locations = self._locations[file]
        for length in range(len(within), -1, -1):
            wanted = (*path, *within[:length])
            # protoc knows `option (x).y = 1` by the path of y, but `option (x) = { y: 1 }` by that of x alone.
            spans = [tuple(one.span) for at, one in locations.items() if at[: len(wanted)] == wanted and wanted]
            if wanted in locations:
                return f"{file}:{locations[wanted].span[0] + 1}"
            if spans:
                return f"{file}:{min(spans)[0] + 1}"
        return f"{file}:1"


def _paths(file: FileDescriptorProto) -> Iterator[tuple[str, Path]]:
    prefix = f"{file.package}." if file.package else ""
    for index, message in enumerate(file.message_type):
        yield from _message_paths(message, prefix, (4, index))
    for index, enum in enumerate(file.enum_type):
        yield f"{prefix}{enum.name}", (5, index)
    for index, service in enumerate(file.service):
        yield f"{prefix}{service.name}", (6, index)
        for place, method in enumerate(service.method):
            yield f"{prefix}{service.name}.{method.name}", (6, index, 2, place)


def _message_paths(message: DescriptorProto, prefix: str, path: Path) -> Iterator[tuple[str, Path]]:
    name = f"{prefix}{message.name}"
    yield name, path
    for index, field in enumerate(message.field):
        yield f"{name}.{field.name}", (*path, 2, index)
    for index, nested in enumerate(message.nested_type):
        yield from _message_paths(nested, f"{name}.", (*path, 3, index))
    for index, enum in enumerate(message.enum_type):
        yield f"{name}.{enum.name}", (*path, 4, index)
