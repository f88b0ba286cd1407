"""Thousands of seeded worlds: whatever crashes, and whenever, the run ends as if nothing had happened."""

from __future__ import annotations

import pytest

from tests.simulation.shapes import SHAPES
from tests.simulation.simulate import Tally, simulate


def test_every_seed_ends_as_if_nothing_had_happened(seeds: range) -> None:
    tally = Tally()
    for seed in seeds:
        simulate(seed, tally)
    if len(seeds) >= 50:
        # They prove something only if much went wrong: the seeds are fixed, so these numbers repeat.
        assert tally.crashes > len(seeds) // 4
        assert tally.replays > len(seeds) // 10
        assert tally.restores > len(seeds) // 4
        assert tally.saves > len(seeds)
        assert tally.stops
        assert tally.ghosts
        assert tally.failures
        assert tally.retries
        assert tally.unknown
        assert tally.replayed + tally.given
        assert tally.suspended
        assert tally.answered
        assert tally.woken
        assert tally.laned
        assert len(tally.shapes) > len(SHAPES) * 3 // 4


def test_a_seed_repeats_exactly() -> None:
    first, second = (simulate(seed := 7), simulate(seed))
    assert first == second


def test_a_stall_is_resolved_by_growth(request: pytest.FixtureRequest) -> None:
    tally = Tally()
    seed = 0
    while not tally.grown and seed < 500:
        simulate(seed, tally)
        seed += 1
    assert tally.grown
