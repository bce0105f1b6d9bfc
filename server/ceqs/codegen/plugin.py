"""protoc-gen-ceqs: the protoc plugin.

Its imports register the options of `ceqs/v1/options.proto` before it parses a request: those that are not registered by
then would be lost to unknown fields.
"""

from __future__ import annotations

import sys

from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import EDITION_2023, EDITION_PROTO2
from google.protobuf.descriptor_pool import DescriptorPool

from ceqs.codegen._bases import bases_module
from ceqs.codegen._checks import check
from ceqs.codegen._client import client_module
from ceqs.codegen._module import pb2_module
from ceqs.codegen._package import Package
from ceqs.codegen._sources import Sources
from ceqs.contract import messages, read_contract, replaced_by

__all__ = ["main", "respond"]


def main() -> None:
    """Answer one request of protoc: stdin to stdout."""
    request = CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    sys.stdout.buffer.write(respond(request).SerializeToString())


def respond(request: CodeGeneratorRequest) -> CodeGeneratorResponse:
    """Give the modules of every context in the request, or every problem of its contracts as the error."""
    response = CodeGeneratorResponse(
        supported_features=CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
        | CodeGeneratorResponse.FEATURE_SUPPORTS_EDITIONS,
        minimum_edition=EDITION_PROTO2,
        maximum_edition=EDITION_2023,
    )
    pool = DescriptorPool()
    for file in request.proto_file:
        pool.Add(file)
    by_package: dict[str, list[FileDescriptor]] = {}
    for name in sorted(request.file_to_generate):
        found = pool.FindFileByName(name)
        by_package.setdefault(found.package, []).append(found)
    sources = Sources(request.proto_file)
    declared = (message for files in by_package.values() for file in files for message in messages(file))
    replaced = frozenset(name for message in declared for name in replaced_by(message))
    packages = [Package(files, sources, replaced) for files in by_package.values()]
    if problems := check(packages):
        response.error = "\n".join(problems)
        return response
    telling = {package.name: package.telling for package in packages}
    for files in (package.files for package in packages if package.is_context):
        contract = read_contract(*files)
        beside = pb2_module(files[0].name).split(".")[:-1]
        for suffix, content in (
            ("ceqs", bases_module(contract, files, sources, telling)),
            ("client", client_module(contract, files, sources)),
        ):
            response.file.add(name="/".join([*beside, f"{contract.context}_{suffix}.py"]), content=content)
    return response


if __name__ == "__main__":
    main()
