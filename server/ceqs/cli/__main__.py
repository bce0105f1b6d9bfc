"""`python -m ceqs.cli` is `ceqs`."""

from ceqs.cli import main

main()
