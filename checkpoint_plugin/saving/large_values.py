"""Large values that a cut has again: a step that goes on has the same argument in each, and encoding it takes long."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from operator import is_
from typing import Any, Final, NamedTuple

__all__ = ["LARGE", "LargeValue", "LargeValues"]

LARGE: Final = 65_536
"""Bytes from which on a value is known again in the next save, instead of being encoded once more."""
PART: Final = 256
"""Bytes that a part of it has at least, on average: smaller ones are sooner encoded than looked at."""
IMMUTABLE: Final = frozenset({str, bytes})
LEAVES: Final = frozenset({str, bytes, int, float, bool, type(None)})
LISTS: Final = frozenset({list, tuple})
REMEMBERED: Final = IMMUTABLE | LISTS | {dict}
END: Final = object()
"""Behind what is in a list or mapping."""


class LargeValue(NamedTuple):
    """A value of a cut.

    Args:
        node_id: the node whose row tells it.
        value: the object, whose id is nobody else's as long as it is kept.
        size: bytes of its encoding.
        parts: what a list or mapping was made of just before it was encoded; `None` where nobody looked.
        ref: how rows refer to it.
    """

    node_id: str
    value: Any
    size: int
    parts: Sequence[Any] | None
    ref: Any


class LargeValues:
    """Those of the cut that is encoded, and of those before, as the newest rows of nodes tell them.

    A text is what it was. A list or mapping may have been changed by whoever has it: it is what it was where it is made of the
    very same parts. That is looked at from the second time on that it is encoded, and always before: what is changed meanwhile
    is another value the next time.

    Args:
        before: those of the cuts before, by id.
    """

    def __init__(self, before: Mapping[int, LargeValue]) -> None:
        self.node_id = ""
        """The node that is encoded."""
        self.now: dict[int, LargeValue] = {}
        """By id."""
        self._before = before
        self._parts: dict[int, Sequence[Any] | None] = {}

    def find(self, value: Any) -> Any:
        """The reference of a value that is what it was when it was last encoded; else `None`."""
        before = self._before.get(id(value))
        if before is None or before.value is not value:
            return None
        if type(value) not in IMMUTABLE:
            parts = _parts(value, before.size // PART)
            if not _are_same(parts, before.parts):
                self._parts[id(value)] = parts
                return None
        self.now[id(value)] = before._replace(node_id=self.node_id)
        return before.ref

    def note(self, value: Any, size: int, ref: Any) -> None:
        """Remember one that was encoded.

        Args:
            value: any; those of other types are not remembered.
            size: bytes of its encoding, more than `LARGE`.
            ref: how rows refer to it.
        """
        if type(value) in REMEMBERED:
            self.now[id(value)] = LargeValue(self.node_id, value, size, self._parts.get(id(value)), ref)


def _are_same(parts: Sequence[Any] | None, before: Sequence[Any] | None) -> bool:
    return parts is not None and before is not None and len(parts) == len(before) and all(map(is_, parts, before))


def _parts(value: Any, most: int) -> Sequence[Any] | None:
    """What a value is made of: its leaves, and around those of a list or mapping its type and `END`.

    Args:
        value: any.
        most: parts that are worth a look.

    Returns:
        The parts in order; `None` where there are more, or other ones, or where it is changed at this moment.
    """
    found: list[Any] = []
    within: list[Iterator[Any]] = [iter((value,))]
    try:
        while within:
            for part in within[-1]:
                kind = type(part)
                if kind in LEAVES:
                    found.append(part)
                elif kind in LISTS or kind is dict:
                    found.append(kind)
                    within.append(chain.from_iterable(part.items()) if kind is dict else iter(part))
                    break
                else:
                    return None
                if len(found) > most:
                    return None
            else:
                within.pop()
                found.append(END)
            if len(found) > most:
                return None
    except RuntimeError:  # by the thread of its owner
        return None
    return found
