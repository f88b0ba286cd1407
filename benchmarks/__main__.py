"""Ours, the peers and the same work written by hand, measured side by side."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sqlite3
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.case import PEERS, Case, cases
from benchmarks.goal import is_passed, judge
from benchmarks.measuring import Found, Measuring
from benchmarks.picture import draw
from benchmarks.place import Places
from benchmarks.request import Request
from benchmarks.server import durable_server
from benchmarks.table import rows

__all__ = ["main"]


def main() -> None:
    """Measure, print, write; with `--check` the exit code is 1 where a goal is missed, or ours or a floor broke."""
    chosen = _read_arguments()
    peers = () if chosen.peers == "none" else PEERS if chosen.peers == "all" else tuple(chosen.peers.split(","))
    selected = [_with(case, peers) for case in cases(chosen.scale) if _is_wanted(case, chosen.only)]
    if not selected:
        raise SystemExit(f"There is no case {chosen.only}. Name a workload, W1 to W9, or the beginning of a case.")
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder, durable_server() as (server, why_not):
        places = Places(Path(folder), server, f"no PostgreSQL: {why_not}")
        with Measuring(places, chosen.rounds, chosen.log or Path(os.devnull), _say) as measuring:
            settings = _settings(measuring, places, selected)
            print(json.dumps(settings, indent=2), flush=True)
            results: list[list[Found]] = []
            for case in selected:
                results.append(measuring.measure(case))
                print("\n".join(rows(results[-1])), flush=True)
    everyone = [item for found in results for item in found]
    verdicts = judge(everyone)
    if chosen.json is not None:
        document = {
            "settings": settings,
            "results": [item.as_json() for item in everyone],
            "goals": [{"goal": str(verdict.goal), "value": verdict.value, "reached": verdict.reached} for verdict in verdicts],
        }
        chosen.json.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    if chosen.svg is not None:
        chosen.svg.write_text(draw(results))
    if chosen.check:
        print("\n".join(["", "Goals:", *map(str, verdicts)]))
        sys.exit(not is_passed(verdicts, everyone))


def _read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", metavar="CASE", help="a workload (W1), or the beginning of a case (W1 sync)")
    parser.add_argument("--peers", default="all", metavar="NAMES", help="all, none, or names with commas")
    parser.add_argument("--rounds", type=int, default=5, help="that are counted (default 5, after one that is not)")
    parser.add_argument("--scale", type=float, default=1.0, help="of the sizes; the goals speak of 1")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw them there")
    parser.add_argument("--log", type=Path, metavar="FILE", help="what those who take part print goes there")
    parser.add_argument(
        "--check", action="store_true", help="compare with the goals; exit with 1 where one is missed, or ours broke"
    )
    return parser.parse_args()


def _is_wanted(case: Case, only: list[str] | None) -> bool:
    return only is None or any(case.name == name or case.name.startswith(f"{name} ") for name in only)


def _with(case: Case, peers: tuple[str, ...]) -> Case:
    entries = tuple(entry for entry in case.entries if entry.participant not in PEERS or entry.participant in peers)
    return Case(case.workload, case.variant, case.size, case.database, entries, case.figures, case.filled, case.fresh)


def _settings(measuring: Measuring, places: Places, selected: list[Case]) -> dict[str, Any]:
    names = sorted({entry.participant for case in selected for entry in case.entries})
    return {
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "sqlite": f"{sqlite3.sqlite_version}; ours and the floor: WAL, synchronous=FULL; a peer: as it opens its database",
        "postgresql": places.settings(),
        "versions": {name: measuring.participant(name).ask(Request("", "", 0, action="versions")) for name in names},
    }


def _say(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
