"""From protos to typed Python: protoc, its stubs and our plugin protoc-gen-ceqs."""

from ceqs.codegen._generate import BadContract, generate
from ceqs.codegen._image import write_image

__all__ = ["BadContract", "generate", "write_image"]
