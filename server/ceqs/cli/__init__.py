"""The command line `ceqs`."""

from ceqs.cli._entry import main

__all__ = ["main"]
