"""`python -m benchmarks [--only NAME] [--rounds N] [--json FILE]`: ratios of one run, the ways in turn."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from benchmarks.chain import run_chain
from benchmarks.saved import run_saved
from benchmarks.stream import run_stream
from benchmarks.timing import Comparison

BENCHMARKS: dict[str, Callable[[int], Comparison]] = {
    "chain": lambda rounds: run_chain(1_000, rounds),
    "long-chain": lambda rounds: run_chain(10_000, rounds),
    "stream": lambda rounds: run_stream(100_000, rounds),
    "saved": lambda rounds: run_saved(200, rounds),
}


def main() -> None:
    """Run them, print a row each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="The runner beside the same work written by hand.")
    parser.add_argument("--only", choices=BENCHMARKS, action="append", help="run only this one; may be repeated")
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds of each way (default 5)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    chosen = parser.parse_args()
    versions = {"python": platform.python_version(), "workflow-runner": version("workflow-runner")}
    print(f"{'':40} {'ours':>10} {'by hand':>10}           ratio  (least to most of {chosen.rounds} rounds)")
    found = []
    for name in chosen.only or BENCHMARKS:
        found.append(BENCHMARKS[name](chosen.rounds))
        print(found[-1], flush=True)
    if chosen.json is not None:
        chosen.json.write_text(json.dumps({"versions": versions, "results": [row.as_json() for row in found]}, indent=2) + "\n")


if __name__ == "__main__":
    main()
