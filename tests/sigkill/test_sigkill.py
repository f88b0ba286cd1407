"""Runs of the simulation's graphs survive real kills, on real databases, from one hash seed to another."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from checkpoint_plugin.policy import NAME
from tests.sigkill.nursery import Nursery
from tests.sigkill.runs import Tally, survive, usable_seeds

HASH_SEEDS = (1, 2, 3, 4)
SHARES = {"sync": 1, "async": 2, "exit": 4}
"""One of so many of the runs is killed with each durability."""


@pytest.fixture(scope="module")
def nurseries() -> Iterator[list[Nursery]]:
    """Processes that differ in their hash seeds."""
    with ExitStack() as stack:
        yield [stack.enter_context(Nursery(hash_seed)) for hash_seed in HASH_SEEDS]


@pytest.mark.parametrize("durability", SHARES)
def test_killed_runs_end_as_if_nothing_had_happened(
    durability: str, store_url: str, nurseries: list[Nursery], tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """What was called durable is there, whoever waited for it."""
    count = max(pytestconfig.getoption("--killed-runs") // SHARES[durability], 2)
    seeds = usable_seeds(0, count)
    halves = len(nurseries) // 2
    teams = [nurseries[:halves], nurseries[halves:]]  # every run moves between the hash seeds of its team
    tallies = [Tally(), Tally()]

    def work(team: int) -> None:
        for seed in seeds[team :: len(teams)]:
            survive(seed, store_url, tmp_path, teams[team], tallies[team], durability)

    with ThreadPoolExecutor(len(teams)) as pool:
        for done in [pool.submit(work, team) for team in range(len(teams))]:
            done.result()
    assert NAME == "checkpoint"
    assert sum(tally.runs for tally in tallies) == count
    assert sum(tally.kills for tally in tallies) > count
    if durability != "exit":
        assert sum(tally.restored for tally in tallies) > count // 5  # on a busy machine many are killed before their first save
    assert any(tally.gated for tally in tallies) == (durability == "sync")
