"""`python -m tests.torture`: see campaign.py."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    # PostgreSQL is started by a fork, long before which clients have called: what forks here executes at once.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    from tests.torture.campaign import main

    sys.exit(main())
