"""The simulation can fail: a runner that lacks a rule is found out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import hookspecs
from tests.simulation.cases import Case, Member
from tests.simulation.mutants import MUTANTS, Mutant, plant
from tests.simulation.simulate import Simulation, SimulationFailed, Tally

SEEDS = 1_000
REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"rule {mutant.rule}: {mutant.name}")
def test_a_runner_without_the_rule_is_found_out(mutant: Mutant, tmp_path: Path) -> None:
    plant(mutant, tmp_path)
    path = os.pathsep.join([str(tmp_path), str(REPOSITORY), str(Path(hookspecs.__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation.hunt", str(SEEDS)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert Path(found["package"]).is_relative_to(tmp_path)
    assert found["seed"] is not None, f"{SEEDS} seeds and nobody missed the rule"


@pytest.mark.parametrize("policy", ["times", "every_firing"])
def test_rule_4_a_node_that_changes_an_item_is_found_out(policy: str) -> None:
    case = Case(seed=0, shape="rule 4", policy="times" if policy == "times" else "every_firing", interval=0.1, slow_saves=0.0)
    case.members = [
        Member("numbers", "count_up", {"n": 8, "form": "list"}),
        Member("vandal", "change_item", {}, {"items": [("numbers", "output")]}),
    ]
    with pytest.raises(SimulationFailed, match=r"node vandal\b.*: items and states are values"):
        Simulation(case, Tally()).run()
