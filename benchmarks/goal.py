"""What is to be reached, as ratios of figures of one run, and whether it is."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from benchmarks.case import PEERS
from benchmarks.measuring import Found
from benchmarks.payloads import MEBIBYTE

__all__ = ["GOALS", "Goal", "Pick", "Verdict", "is_passed", "judge"]

ANY_PEER = "any peer"


@dataclass(frozen=True, slots=True)
class Pick:
    """A figure of one entry.

    Args:
        case: its name.
        entry: its label; `any peer` is the fastest one.
        metric: its name; for each unit of work where the sizes differ.
    """

    case: str
    entry: str = "ours"
    metric: str = "seconds"


@dataclass(frozen=True, slots=True)
class Goal:
    """A ratio, or where there is nothing to divide by, a value.

    Args:
        what: is divided.
        most: that it may be.
        by: what it is divided by.
        payload: bytes that a unit of work has to store, to divide by.
        relative_to: divide by the ratio of these two as well.
    """

    what: Pick
    most: float
    by: Pick | None = None
    payload: float = 0.0
    relative_to: tuple[Pick, Pick] | None = None

    def __str__(self) -> str:
        text = f"{self.what.case}, {self.what.entry} {self.what.metric}"
        if self.by is not None:
            other = self.by.entry if self.by.case == self.what.case else f"{self.by.case}, {self.by.entry}"
            text += f" / {other}"
        elif self.payload:
            text += " / payload"
        if self.relative_to is not None:
            text += ", relative to the floor"
        return f"{text} ≤ {self.most:g}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a goal came out.

    Args:
        goal: it.
        value: what was measured; `None` where a figure is missing.
    """

    goal: Goal
    value: float | None

    @property
    def reached(self) -> bool:
        """Whether it is."""
        return self.value is not None and self.value <= self.goal.most

    def __str__(self) -> str:
        if self.value is None:
            return f"not measured  {self.goal}"
        return f"{'reached ' if self.reached else 'MISSED  '} {self.value:8.3f}  {self.goal}"


def _floor(case: str, most: float, entry: str = "floor") -> Goal:
    return Goal(Pick(case), most, Pick(case, entry))


def _goals() -> Iterable[Goal]:
    for workload in ("W1", "W2"):
        yield _floor(f"{workload} off", 2.5)
        yield _floor(f"{workload} off", 1.0, ANY_PEER)
    long = "W1 off long"
    yield Goal(Pick(long), 1.3, Pick("W1 off"), relative_to=(Pick(long, "floor"), Pick("W1 off", "floor")))
    for database, floor, peer in (("sqlite", 1.5, 0.6), ("postgresql", 1.6, 0.9)):
        yield _floor(f"W1 sync {database}", floor)
        yield _floor(f"W1 sync {database}", peer, ANY_PEER)
        yield _floor(f"W1 async {database}", 3)
        yield _floor(f"W1 async {database}", 1 / 20, "langgraph")
        yield _floor(f"W2 sync {database}", 2.5)
        yield _floor(f"W2 sync {database}", 1 / 10, "langgraph")
        yield Goal(Pick(f"W2 sync {database}", metric="commits"), 10)
        yield Goal(Pick(f"W3 random {database}", metric="bytes"), 1.05, payload=MEBIBYTE)
        yield Goal(Pick(f"W3 text {database}", metric="bytes"), 0.1, payload=MEBIBYTE)
        for kind in ("random", "text"):
            yield _floor(f"W3 {kind} {database}", 0.6, "langgraph")
        yield _floor(f"W4 warm {database}", 3)
        yield Goal(Pick(f"W6 sync {database}", metric="bytes"), 4, payload=1_024)
        yield Goal(Pick(f"W7 1000 nodes {database}"), 0.050)
        yield Goal(Pick(f"W7 1000 nodes {database}", metric="again"), 0.002)
        yield Goal(Pick(f"W8 pause {database}", metric="pause"), 0.020)
    yield _floor("W4 fresh process sqlite", 1.0, ANY_PEER)
    yield _floor("W5 off streaming", 1 / 1.5, "floor queue")
    yield _floor("W5 off plain", 1.0, "floor queue")
    yield _floor("W5 off plain", 2.0, "floor bodies")
    for kind in ("streaming", "plain"):
        yield Goal(Pick(f"W5 explicit {kind} sqlite"), 1.05, Pick(f"W5 off {kind}"))
        yield Goal(Pick(f"W5 seconds {kind} sqlite"), 1.15, Pick(f"W5 off {kind}"))
    yield Goal(Pick("W9 help present"), 0.35)
    yield Goal(Pick("W9 run present"), 1.1, Pick("W9 run absent"))
    yield Goal(Pick("W9 run enabled"), 1.2)


GOALS = tuple(_goals())


def judge(found: Iterable[Found]) -> list[Verdict]:
    """Every goal of a case that was measured."""
    by_key = {(item.case.name, item.entry.label): item for item in found}
    measured = {case for case, _ in by_key}
    return [Verdict(goal, _value(goal, by_key)) for goal in GOALS if goal.what.case in measured]


def is_passed(verdicts: Iterable[Verdict], found: Iterable[Found]) -> bool:
    """Whether a check is passed: no goal is missed, and neither ours nor a floor broke, which would leave goals unmeasured."""
    missed = any(verdict.value is not None and not verdict.reached for verdict in verdicts)
    return not missed and not any(item.failed and item.entry.participant not in PEERS for item in found)


def _value(goal: Goal, found: Mapping[tuple[str, str], Found]) -> float | None:
    values = _values(goal.what, found)
    if goal.by is not None:
        values = _divide(values, _values(goal.by, found))
    if goal.relative_to is not None:
        values = _divide(values, _divide(*(_values(pick, found) for pick in goal.relative_to)))
    if goal.payload and values:
        stored = goal.payload * found[goal.what.case, goal.what.entry].size
        values = [value / stored for value in values]
    return statistics.median(values) if values else None


def _divide(above: list[float], below: list[float]) -> list[float]:
    """Round by round: what slowed a round slowed both."""
    return [a / b for a, b in zip(above, below, strict=False)]


def _values(pick: Pick, found: Mapping[tuple[str, str], Found]) -> list[float]:
    if pick.entry == ANY_PEER:
        part = [peer for peer in PEERS if (pick.case, peer) in found]
        peers = [_values(Pick(pick.case, peer, pick.metric), found) for peer in part]
        # One without a figure may be the fastest.
        return min(peers, key=statistics.median, default=[]) if all(peers) else []
    item = found.get((pick.case, pick.entry))
    if item is None or item.problem or pick.metric not in item.values:
        return []
    per_unit = item.size if item.case.figures[0].each and pick.metric == "seconds" else 1
    return [value / per_unit for value in item.values[pick.metric]]
