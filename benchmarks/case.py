"""What is compared with what: a case is one kind of work, and the entries are who does it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

__all__ = ["PEERS", "Case", "Entry", "Figure", "cases"]

PEERS = ("langgraph", "dbos", "burr", "kedro", "pydantic-graph", "prefect")
PREFECT_TASKS = 100


@dataclass(frozen=True, slots=True)
class Entry:
    """One who takes part.

    Args:
        label: in the report.
        participant: of `worker.MODULES`.
        extra: for the participant.
        most: units that it is given at most; it is compared by the cost of one.
    """

    label: str
    participant: str
    extra: dict[str, Any] = field(default_factory=dict)
    most: int | None = None


@dataclass(frozen=True, slots=True)
class Figure:
    """What is shown of a metric.

    Args:
        metric: its name.
        unit: of what is shown.
        scale: from the metric to that unit.
        each: divided by the number of units.
    """

    metric: str
    unit: str
    scale: float = 1.0
    each: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """One row of comparisons.

    Args:
        workload: `W1` to `W9`.
        variant: of it; its first word is the mode.
        size: units of work.
        database: `sqlite`, `postgresql`, or empty.
        entries: who does it.
        figures: what is shown; the first is the main one.
        filled: whether a store is filled once, and each measurement gets a copy.
        fresh: whether each measurement is the whole life of a process.
    """

    workload: str
    variant: str
    size: int
    database: str
    entries: tuple[Entry, ...]
    figures: tuple[Figure, ...]
    filled: bool = False
    fresh: bool = False

    @property
    def name(self) -> str:
        """Unique among the cases."""
        return f"{self.workload} {self.variant}"


OURS = Entry("ours", "ours")
FLOOR = Entry("floor", "floor")
NODE = Figure("seconds", "µs/node", 1e6, each=True)
ITEM = Figure("seconds", "µs/item", 1e6, each=True)
STEP = Figure("seconds", "µs/step", 1e6, each=True)
WHOLE = Figure("seconds", "ms", 1e3)
COMMITS = Figure("commits", "commits")
BYTES = Figure("bytes", "MB", 1e-6)
DATABASES = ("sqlite", "postgresql")


def cases(scale: float = 1.0) -> Iterator[Case]:
    """All of them.

    Args:
        scale: of their sizes; 1 is what the goals speak of.
    """

    def sized(number: int) -> int:
        return max(2, round(number * scale))

    yield from _graphs("W1", sized(1_000), ("kedro", "burr", "pydantic-graph", "langgraph"))
    yield Case("W1", "off long", sized(10_000), "", (OURS, FLOOR), (NODE,))
    yield from _graphs("W2", sized(500), ("kedro", "pydantic-graph", "langgraph"))
    for database in DATABASES:
        for kind in ("random", "text"):
            peers = _named(("langgraph", "dbos", *(("burr",) if kind == "text" else ())))
            yield Case("W3", f"{kind} {database}", sized(50), database, (OURS, FLOOR, *peers), (WHOLE, BYTES))
    for database in DATABASES:
        for kind in ("warm", "fresh process"):
            entries = (OURS, FLOOR, *_named(("langgraph", "dbos", "burr") if database == "sqlite" else ()))
            fresh = kind != "warm"
            shown = entries if fresh else entries[:2]
            yield Case("W4", f"{kind} {database}", sized(10_000), database, shown, (WHOLE,), filled=True, fresh=fresh)
    items = sized(100_000)
    by_hand = tuple(Entry(f"floor {way}", "floor", {"way": way}) for way in ("queue", "deque", "bodies"))
    for kind in ("streaming", "plain"):
        yield Case("W5", f"off {kind}", items, "", (OURS, *by_hand), (ITEM,))
        yield Case("W5", f"explicit {kind} sqlite", items, "sqlite", (OURS,), (ITEM,))
        yield Case("W5", f"seconds {kind} sqlite", items, "sqlite", (OURS,), (ITEM,))
    for database in DATABASES:
        peers = _named(("langgraph", "burr"))
        yield Case("W6", f"sync {database}", sized(500), database, (OURS, FLOOR, *peers), (STEP, BYTES))
    figures = (Figure("seconds", "ms first", 1e3), Figure("again", "ms again", 1e3), Figure("restore", "ms restore", 1e3))
    for database in DATABASES:
        for nodes in (10, 100, 1_000):
            yield Case("W7", f"{nodes} nodes {database}", sized(nodes), database, (OURS, FLOOR), figures)
    for database in DATABASES:
        yield Case("W8", f"pause {database}", sized(5_000), database, (OURS,), (Figure("pause", "ms pause", 1e3), WHOLE))
    for variant in ("help absent", "help present", "run absent", "run present", "run enabled"):
        yield Case("W9", variant, 1, "", (OURS,), (WHOLE,))


def _graphs(workload: str, size: int, off: tuple[str, ...]) -> Iterator[Case]:
    yield Case(workload, "off", size, "", (OURS, FLOOR, *_named(off)), (NODE,))
    chain = workload == "W1"
    for database in DATABASES:
        peers: dict[str, tuple[str, ...]] = {
            "sync": ("langgraph", "dbos", *(("burr",) if chain else ())),
            "async": ("langgraph",),
            "exit": ("langgraph",),
        }
        for mode, named in peers.items():
            entries = [OURS, FLOOR, *_named(named)]
            if chain and mode == "sync" and database == "sqlite":
                entries.append(Entry("prefect", "prefect", most=PREFECT_TASKS))
            figures = (NODE, COMMITS) if mode == "sync" else (NODE,)
            yield Case(workload, f"{mode} {database}", size, database, tuple(entries), figures)


def _named(participants: Iterable[str]) -> tuple[Entry, ...]:
    return tuple(Entry(name, name) for name in participants)
