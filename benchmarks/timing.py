"""Timing two ways of the same work in turn, so that a machine whose speed drifts treats both alike."""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass

__all__ = ["Comparison", "compare"]

Work = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Medians of both ways, and the ratio round by round.

    Args:
        name: of the work.
        unit: what one unit is.
        ours: median microseconds a unit.
        floor: the same of the hand-written way.
        ratio: median of ours / floor.
        least, most: the smallest and largest ratio of a round.
        rounds: counted ones, after one warm-up.
    """

    name: str
    unit: str
    ours: float
    floor: float
    ratio: float
    least: float
    most: float
    rounds: int

    def as_json(self) -> dict[str, object]:
        """For a file."""
        return asdict(self)

    def __str__(self) -> str:
        figures = f"{self.ours:10.2f} {self.floor:10.2f} µs/{self.unit:5} {self.ratio:6.2f}"
        return f"{self.name:40} {figures}  ({self.least:.2f} to {self.most:.2f})"


def compare(name: str, unit: str, units: int, ours: Work, floor: Work, rounds: int) -> Comparison:
    """Run both in turn, after a warm-up, and check that they give the same.

    Args:
        name: of the work.
        unit: what is counted.
        units: how many of them one run does.
        ours, floor: the two ways; each gives its result.
        rounds: how often each is counted.

    Raises:
        AssertionError: the results differ.
    """
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        results = []
        for way, work in enumerate((ours, floor)):
            gc.collect()
            started = time.perf_counter()
            results.append(asyncio.run(_await(work)))
            if number:
                times[way].append((time.perf_counter() - started) / units * 1e6)
        if results[0] != results[1]:
            raise AssertionError(f"{name}: the two ways differ: {str(results[0])[:80]} and {str(results[1])[:80]}")
    ratios = [a / b for a, b in zip(*times, strict=True)]
    middle = statistics.median
    return Comparison(name, unit, middle(times[0]), middle(times[1]), middle(ratios), min(ratios), max(ratios), rounds)


async def _await(work: Work) -> object:
    return await work()
