"""`python -m ceqs.codegen`: generate Python from a directory of protos."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ceqs.codegen import BadContract, generate, write_image
from ceqs.errors import Misconfigured


def main() -> int:
    """Generate, or write a descriptor image for `buf lint`; problems go to stderr, exit code 1 (contract) or 2."""
    parser = argparse.ArgumentParser(prog="python -m ceqs.codegen", description=__doc__)
    parser.add_argument("--proto", type=Path, default=Path("proto"), help="the directory of the protos (proto)")
    parser.add_argument(
        "--out", type=Path, default=Path("generated/python"), help="where the code goes (generated/python)"
    )
    parser.add_argument("--image", type=Path, help="write a descriptor image for `buf lint` instead of code")
    arguments = parser.parse_args()
    try:
        if arguments.image:
            write_image(arguments.proto, arguments.image)
        else:
            generate(arguments.proto, arguments.out)
    except Misconfigured as error:
        sys.stderr.write(f"{error}\n")
        return 1 if isinstance(error, BadContract) else 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
