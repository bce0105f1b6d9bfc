"""Benchmarks: every measure beside the floor it stands on, in the same run.

    make bench ARGS='[--only hot] [--store sqlite] [--runs 3] [--seconds 2] [--events N] [--quick] [--json]'

Prints a table and writes tests/bench/results/latest.json: one object per measure with its median value, the floor's,
and the median, least and greatest of the runs' ratios. Servers and load generator share the machine: what counts are
the ratios.

`__main__` (options, table) -> `measures` (what is measured) -> `runner` (pairs, in turns) -> `target` (the servers) and
`load` (the load generator, on `wire`), in processes of their own. `proto` and `meters` are the context that is loaded.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table
from tests.bench.measures import FULL, GENERATORS, QUICK, Measure, measures
from tests.bench.runner import STORES, Result, bench

RESULTS = Path(__file__).parent / "results" / "latest.json"
WIDTH = 140
"""Of the table, where the output goes to no terminal."""


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(
        prog="make bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", metavar="NAME", help="measures whose names contain this; repeatable")
    parser.add_argument("--runs", type=int, help="how often each pair is measured (default 3)")
    parser.add_argument("--seconds", type=float, help="how long each load lasts (default 2)")
    parser.add_argument(
        "--events", type=int, help="how long the history is that is read, relayed and caught up with (default 100,000)"
    )
    parser.add_argument("--store", choices=(*STORES, "both"), default="both")
    parser.add_argument("--quick", action="store_true", help="small and once: shows that it works, not how fast it is")
    parser.add_argument("--json", action="store_true", help="print the results as JSON instead of the table")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where to write them as JSON")
    options = parser.parse_args()
    scale = QUICK if options.quick else FULL
    scale = replace(scale, events=options.events or scale.events)
    chosen = _chosen(measures(scale, options.seconds or scale.seconds), options.only)
    stores = STORES if options.store == "both" else (options.store,)
    results = asyncio.run(bench(chosen, stores, options.runs or scale.runs))
    text = json.dumps([asdict(result) for result in results], indent=2)
    options.results.parent.mkdir(exist_ok=True)
    options.results.write_text(text + "\n")
    if options.json:
        print(text)
    else:
        _print(results, options.results)


def _chosen(known: Sequence[Measure], only: list[str] | None) -> list[Measure]:
    chosen = [m for m in known if not only or any(part.lower() in m.name.lower() for part in only)]
    if not chosen:
        sys.exit(f"No measure is called so. There are: {'; '.join(m.name for m in known)}.")
    return chosen


def _print(results: Sequence[Result], written: Path) -> None:
    table = Table(title="Each measure beside its floor")
    for column in ("store", "measure", "value", "floor", "ratio (min to max)", "reach"):
        table.add_column(column, no_wrap=True)
    for r in results:
        ratio = f"{r.ratio:.2f} ({r.min:.2f} to {r.max:.2f})"
        colour = {True: "green", False: "red", None: "default"}[r.reached]
        table.add_row(r.store, r.name, _shown(r.value, r.unit), _shown(r.floor), f"[{colour}]{ratio}", r.reach)
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    console.print(table)
    for note in (f"{r.store}, {r.name}: {r.note}." for r in results if r.note):
        console.print(note, soft_wrap=True)
    for generator in dict.fromkeys(r.generator for r in results):
        console.print(f"Load generator {generator}: {GENERATORS[generator]}.", soft_wrap=True)
    console.print(f"Written to {written}.", soft_wrap=True)


def _shown(value: float, unit: str = "") -> str:
    return f"{value:,.0f} {unit}" if value >= 100 else f"{1000 * value:.3g} ms"


if __name__ == "__main__":
    main()
