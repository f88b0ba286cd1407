"""What was read of a node that holds much, so that its next row tells no more than what changed since."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import ormsgpack

from checkpoint_plugin.restoring.joined import INBOX, LATEST, ORDER, TAKEN
from checkpoint_plugin.restoring.row_shape import ARGUMENTS, STATE, WAITS, mentioned_in_refs
from checkpoint_plugin.saving.holding import BESIDE, MANY, Holding, held_by
from checkpoint_plugin.saving.rows import FIELDS, Ref
from checkpoint_plugin.tables.suspensions import mentioned_in
from hookspecs import NodeSnapshot

__all__ = ["Weight", "held_again"]

ERROR: Final = FIELDS.index("error")


class Weight:
    """How much a restore reads in the rows of a node that continue one another, as `Holding.read` counts it.

    Args:
        row: the oldest, which tells all.
    """

    def __init__(self, row: Sequence[Any]) -> None:
        self._size = len(row[TAKEN]) + len(row[LATEST] or ()) + sum(1 + len(refs) for _, refs, _ in row[INBOX])
        self._payloads: set[bytes] = set()
        self._newest: set[bytes] = set()
        self._take(row)

    def add(self, row: Sequence[Any]) -> None:
        """Take the row that continues the last one."""
        gone, took = row[TAKEN]
        came = sum(1 + len(refs) for _, _, refs, _ in row[INBOX])
        self._size += max(1, len(took) + came + row[ORDER][0] + len(row[LATEST] or ()) + (gone > 0))
        self._take(row)

    @property
    def read(self) -> int | None:
        """The sum; `None` where earlier rows keep payloads beside the items, of which nobody has read how large they are."""
        return self._size if self._payloads <= self._newest else None

    def _take(self, row: Sequence[Any]) -> None:
        waits = row[WAITS] if len(row) > WAITS else None
        self._size += len(ormsgpack.packb((row[STATE], row[ARGUMENTS], waits, row[ERROR]))) // BESIDE
        refs = [row[STATE], *(ref for _, ref in row[ARGUMENTS] or ())]
        if waits is not None:
            refs += (ref for _, ref in mentioned_in(waits))
        self._newest = set(mentioned_in_refs(refs))
        self._payloads |= self._newest


def held_again(node: NodeSnapshot, row: Sequence[Any], number: int, weight: Weight | None) -> Holding | None:
    """What a node holds, as of the row that it was read from.

    Args:
        node: as it was read; its values are the very objects.
        row: all that its rows tell.
        number: of its newest row.
        weight: of these rows; `None` where there is one.

    Returns:
        `None` where its next row has to tell all.
    """
    if held_by(node) < MANY:
        return None
    read = (Weight(row) if weight is None else weight).read
    if read is None:
        return None
    taken = [[edge, _reference(ref)] for edge, ref in row[TAKEN]]
    latest = {edge: _reference(ref) for edge, ref in row[LATEST] or ()}
    inbox = [[*map(_reference, refs)] for _, refs, _ in row[INBOX]]
    held = Holding.of(node, taken, latest, inbox, read)
    held.number = number
    return held


def _reference(ref: Any) -> Ref:
    """A reference that was read, as a save has it."""
    return (ref[0],) if type(ref) is list else ref
