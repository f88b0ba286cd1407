"""The order in which items came over the edges of one node."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workflow_runner.edge import Edge

__all__ = ["ArrivalOrder"]


class ArrivalOrder(deque["Edge"]):
    """The edge of each item that waits, in the order of their arrival; the first is always one that counts.

    Of an item that is taken out of turn the arrival stays, behind thousands of others perhaps, and is `passed` over when its turn
    comes. Where one more makes more than half of them such, they are cleared away.
    """

    def __init__(self) -> None:
        super().__init__()
        self.passed: dict[Edge, int] = {}
        self._stale = 0

    def __iter__(self) -> Iterator[Edge]:
        passed = self.passed.copy()
        for edge in super().__iter__():
            if passed and passed.get(edge):
                passed[edge] -= 1
            else:
                yield edge

    def take(self, edge: Edge) -> None:
        """The first item of an edge is taken."""
        if self[0] is edge:
            self.popleft()
            if self.passed:
                self._pass()
            return
        self.passed[edge] = self.passed.get(edge, 0) + 1
        self._stale += 1
        if 2 * self._stale > len(self):
            self.tidy()

    def _pass(self) -> None:
        """Let the first be one that counts."""
        while self and (count := self.passed.pop(self[0], 0)):
            if count > 1:
                self.passed[self[0]] = count - 1
            self._stale -= 1
            self.popleft()

    def tidy(self) -> None:
        """Keep only what counts."""
        left = list(self)
        self.clear()
        self.extend(left)

    def clear(self) -> None:
        super().clear()
        self.passed.clear()
        self._stale = 0
