"""Rows that continue one another, as one: what the oldest tells of all that its node held, and what each later one changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import Any, Final

from checkpoint_plugin.codec import MalformedValue
from checkpoint_plugin.saving.rows import FIELDS

__all__ = ["INBOX", "LATEST", "ORDER", "TAKEN", "Joined", "told_by"]

TAKEN: Final = FIELDS.index("taken")
LATEST: Final = FIELDS.index("latest")
INBOX: Final = FIELDS.index("inbox")
ORDER: Final = FIELDS.index("order")


class Joined:
    """What a node holds, row by row; what is gone is left out only when all of it is asked for.

    Args:
        row: one that tells all.
    """

    def __init__(self, row: Sequence[Any]) -> None:
        self._row = row
        self._taken = _Queue(row[TAKEN])
        self._latest = None if row[LATEST] is None else dict(row[LATEST])
        self._inbox = [_Queue(refs) for _, refs, _ in row[INBOX]]
        self._edges = [(edge, ended) for edge, _, ended in row[INBOX]]
        self._queues = {edge: queue for (edge, _), queue in zip(self._edges, self._inbox, strict=True)}
        self._order = list(row[ORDER])
        self._arrivals: Counter[str] | None = None
        """How often each edge stands in `_order`, once somebody has to know."""

    def add(self, row: Sequence[Any]) -> None:
        """Take the changes that the next row tells, of the shape that `row_shape.is_change` knows.

        Raises:
            MalformedValue: they are not changes of what is here.
        """
        if self._arrivals is None:
            self._arrivals = Counter(self._order)
        self._row = row
        self._taken.move(*row[TAKEN])
        if row[LATEST] is not None:
            if self._latest is None:
                self._latest = {}
            self._latest.update(row[LATEST])
        elif self._latest is not None:
            raise MalformedValue("it has no latest values, and the row that it continues has some")
        for place, gone, refs, ended in row[INBOX]:
            queue, edge = self._inbox[self._checked(place)], self._edges[place][0]
            queue.move(gone, refs)
            self._edges[place] = edge, ended
            if self._order and queue.gone > self._arrivals[edge]:
                raise MalformedValue("the order of its items does not have all that are gone")
        again, places = row[ORDER]
        self._take_back(again, self._arrivals)
        came = [self._edges[self._checked(place)][0] for place in places]
        self._order += came
        self._arrivals.update(came)

    def row(self) -> list[Any]:
        """All of it as one row that tells all."""
        row = list(self._row)
        row[TAKEN] = self._taken.left()
        row[LATEST] = None if self._latest is None else [*map(list, self._latest.items())]
        row[INBOX] = [[edge, queue.left(), ended] for (edge, ended), queue in zip(self._edges, self._inbox, strict=True)]
        row[ORDER] = self._left_of_order()
        return row

    def _checked(self, place: int) -> int:
        if not 0 <= place < len(self._edges):
            raise MalformedValue(f"it tells of edge {place} of {len(self._edges)}")
        return place

    def _take_back(self, many: int, arrivals: Counter[str]) -> None:
        """The last arrivals of what is there are told again; those of what is gone stay, and are left out in the end."""
        passed = []
        while many:
            if many < 0 or not self._order:
                raise MalformedValue(f"{many} more arrivals are told again than there are")
            edge = self._order.pop()
            if edge in self._queues and arrivals[edge] <= self._queues[edge].gone:
                passed.append(edge)
            else:
                arrivals[edge] -= 1
                many -= 1
        self._order += reversed(passed)

    def _left_of_order(self) -> list[str]:
        gone = {edge: queue.gone for (edge, _), queue in zip(self._edges, self._inbox, strict=True) if queue.gone}
        if not gone:
            return self._order
        left = []
        for edge in self._order:
            if gone.get(edge):
                gone[edge] -= 1
            else:
                left.append(edge)
        return left


class _Queue:
    """References of items, of which the first `gone` are no longer there."""

    def __init__(self, refs: Sequence[Any]) -> None:
        self._refs = list(refs)
        self.gone = 0

    def move(self, gone: int, refs: Sequence[Any]) -> None:
        """Some go from the front, and some come behind."""
        if not 0 <= gone <= len(self._refs) - self.gone:
            raise MalformedValue(f"{gone} of {len(self._refs) - self.gone} items are to be gone")
        self.gone += gone
        self._refs += refs

    def left(self) -> list[Any]:
        """Those that are there."""
        return list(islice(self._refs, self.gone, None))


def told_by(row: Sequence[Any]) -> list[Any]:
    """What a row of changes tells by itself, as a row that tells all: it holds no more than what came."""
    told = list(row)
    told[TAKEN] = row[TAKEN][1]
    told[INBOX] = [["", refs, ended] for _, _, refs, ended in row[INBOX]]
    told[ORDER] = []
    return told
