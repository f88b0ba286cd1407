"""Hostile bytes written straight into rows: a restore and a resume import, call, open and connect nothing because of them."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_hostile_rows_do_nothing(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """With `--damage 3000` they are 440."""
    seed, each = random.SystemRandom().randrange(2**32), max(4, pytestconfig.getoption("--damage") // 75)
    command = [sys.executable, "-m", "tests.damage.hostile_rows", str(seed), str(tmp_path), str(each)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"seed {seed}: {done.stderr[-4000:]}"
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["events"] == [], f"seed {seed}"
    assert done.stdout.count("\n") == 1, "a pickle was loaded"
    reads = ("open ", "os.listdir ", "_thread.start_")  # what a resume reads of the system, and the thread of its store
    assert [event for event in told["honest"] if not event.startswith(reads)] == []
    assert told["runs"] == each * len(told["found"])
    for place, found in told["found"].items():
        assert sum(found.values()) == each
        refused = sum(count for came, count in found.items() if came.endswith(("StoreDamaged", "ValueNotReadable")))
        assert refused >= (each // 4 if place in ("state", "collected", "context", "definition") else each), (seed, place)
