"""Options of the simulation on pytest's command line."""

from __future__ import annotations

import pytest

__all__ = ["pytest_addoption", "pytest_generate_tests"]

CHUNK = 100


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("simulation")
    group.addoption("--seeds", type=int, default=2_000, help="how many seeds the simulation runs (default 2000)")
    group.addoption("--seed", type=int, default=None, help="run this seed of the simulation alone")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Spread the seeds over chunks, so that several workers can share them."""
    if "seeds" not in metafunc.fixturenames:
        return
    one = metafunc.config.getoption("--seed")
    count = metafunc.config.getoption("--seeds")
    if one is not None:
        chunks = [range(one, one + 1)]
    else:
        chunks = [range(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
    metafunc.parametrize("seeds", chunks, ids=[f"{chunk.start}-{chunk.stop - 1}" for chunk in chunks])
