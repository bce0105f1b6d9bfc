"""Where the command `ceqs` begins."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line; say what to install where the base install is all there is."""
    # gRPC's core writes lines of its own to stderr, beside the one that says what is wrong.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        from ceqs.cli._logging import quieten
        from ceqs.cli._main import app
    except ModuleNotFoundError as error:
        sys.stderr.write(f"error: {error.name} is not installed; ceqs needs: pip install 'ceqs[server,embedded]'\n")
        sys.exit(2)
    quieten()
    app()
