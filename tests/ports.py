"""Ports for servers that tests start, and start again."""

from __future__ import annotations

import itertools
import random
import socket

FIRST, COUNT = 20_000, 12_000
"""The ports that tests use. Below those that the system gives to whoever asks for any: of these, another test has one
before its server is there, or while it starts again."""

_turns = itertools.count(random.randrange(COUNT))  # processes that test side by side are far apart


def free_port() -> int:
    """Give a port of 127.0.0.1 that nobody listens on, another one each time."""
    while True:
        port = FIRST + next(_turns) % COUNT
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            continue


def free_address() -> str:
    """Give such a port as `host:port`."""
    return f"127.0.0.1:{free_port()}"
