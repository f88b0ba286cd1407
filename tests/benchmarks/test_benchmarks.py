"""Both ways of every benchmark give the same, at a small size; a difference is an error of the benchmark itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import checkpoint_plugin
from benchmarks.chain import run_chain
from benchmarks.saved import run_saved
from benchmarks.stream import run_stream
from benchmarks.timing import compare

ROOT = Path(__file__).parents[2]


def test_each_compares_equal_work() -> None:
    assert checkpoint_plugin.__all__
    for found, units in ((run_chain(20, 1), "node"), (run_stream(200, 1), "item"), (run_saved(3, 1), "node")):
        assert found.rounds == 1
        assert found.unit == units
        assert found.ratio > 0
        assert str(found).startswith(found.name)


async def one() -> int:
    return 1


async def two() -> int:
    return 2


def test_different_results_are_refused() -> None:
    with pytest.raises(AssertionError, match="the two ways differ"):
        compare("x", "unit", 1, one, two, 1)


def test_the_command_writes_its_figures(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks", "--only", "chain", "--rounds", "1", "--json", str(path)]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    assert "chain of 1000 nodes" in found.stdout
    assert json.loads(path.read_text())["results"][0]["unit"] == "node"
