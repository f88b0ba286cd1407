"""What an output node collected, as segments, and how much of it each checkpoint finds."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field

__all__ = ["Chain"]


@dataclass(slots=True)
class Chain:
    """The segments of one log of an output, in order.

    Args:
        firsts: where each begins.
        counts: how many items it says it holds.
        held: how many it holds.
        numbers: of the checkpoints that wrote them.
        whole: whether it is what was written.
    """

    firsts: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    held: list[int] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    whole: list[bool] = field(default_factory=list)
    ends: list[int] | None = None

    def add(self, first: int, count: int, held: int, number: int, whole: bool) -> None:
        """The next segment."""
        for values, value in ((self.firsts, first), (self.counts, count), (self.held, held), (self.numbers, number)):
            values.append(value)
        self.whole.append(whole)

    def items(self, number: int) -> int | None:
        """How many items a checkpoint finds; `None` when it finds a gap or a damaged segment."""
        if self.ends is None:
            self._sum()
        assert self.ends is not None
        if self.ends:
            place = bisect_right(self.numbers, number)
            return self.ends[place - 1] if place else 0
        found = end = 0
        for first, count, held, written, whole in zip(self.firsts, self.counts, self.held, self.numbers, self.whole, strict=True):
            if written <= number:
                if not whole or first != end:
                    return None
                end, found = first + count, found + held
        return found

    def _sum(self) -> None:
        """Where nothing is wrong, which is nearly always, the sums are made once."""
        ends, end = [], 0
        for first, count, held in zip(self.firsts, self.counts, self.held, strict=True):
            if first != end or count != held:
                break
            end = first + count
            ends.append(end)
        ordered = all(self.whole) and self.numbers == sorted(self.numbers)
        self.ends = ends if ordered and len(ends) == len(self.firsts) else []
