"""protoc-gen-ceqs: the protoc plugin."""

from __future__ import annotations

import sys
from collections.abc import Iterable

# Before the request is parsed: options that are not registered by then are lost to unknown fields.
from ceqs.v1 import options_pb2  # isort: skip

from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pool import DescriptorPool

from ceqs.codegen._bases import bases_module
from ceqs.codegen._checks import check
from ceqs.codegen._client import client_module
from ceqs.codegen._sources import Sources
from ceqs.contract import messages, read_contract, services

__all__ = ["main", "respond"]


def main() -> None:
    """Answer one request of protoc: stdin to stdout."""
    request = CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    sys.stdout.buffer.write(respond(request).SerializeToString())


def respond(request: CodeGeneratorRequest) -> CodeGeneratorResponse:
    """Give the modules of every context in the request, or every problem of its contracts as the error."""
    response = CodeGeneratorResponse(supported_features=CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL)
    pool = DescriptorPool()
    for file in request.proto_file:
        pool.Add(file)
    packages: dict[str, list[FileDescriptor]] = {}
    for name in sorted(request.file_to_generate):
        found = pool.FindFileByName(name)
        packages.setdefault(found.package, []).append(found)
    contexts = [files for files in packages.values() if _declares(files)]
    sources = Sources(request.proto_file)
    if problems := check(contexts, sources):
        response.error = "\n".join(problems)
        return response
    for files in contexts:
        contract = read_contract(*files)
        directory = files[0].name.rpartition("/")[0]
        for suffix, module in (("ceqs", bases_module), ("client", client_module)):
            path = f"{contract.context}_{suffix}.py"
            content = module(contract, files, sources)
            response.file.add(name=f"{directory}/{path}" if directory else path, content=content)
    return response


def _declares(files: Iterable[FileDescriptor]) -> bool:
    """Whether any message, field or rpc of the package carries one of our options."""
    return any(
        message.GetOptions().HasExtension(options_pb2.state)
        or message.GetOptions().HasExtension(options_pb2.event)
        or any(field.GetOptions().HasExtension(options_pb2.field) for field in message.fields)
        for file in files
        for message in messages(file)
    ) or any(
        method.GetOptions().HasExtension(options_pb2.command) or method.GetOptions().HasExtension(options_pb2.query)
        for file in files
        for service in services(file)
        for method in service.methods
    )


if __name__ == "__main__":
    main()
