"""What a node that holds much held in its newest row, and what has changed since: its next row tells no more than that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from operator import is_
from typing import Any, Final, NamedTuple

import ormsgpack

from hookspecs import EdgeSnapshot, NodeSnapshot, Prefix, Taken

__all__ = [
    "BESIDE",
    "INBOX",
    "LATEST",
    "MANY",
    "TAKEN",
    "Changes",
    "Holding",
    "Refs",
    "Told",
    "find_changes",
    "follow",
    "held_by",
    "pack_link",
]

MANY: Final = 32
"""Items and edges from which on a node holds much."""
BESIDE: Final = 32
"""Bytes of what else a row tells, like a state, that count as much as an item; so many has the reference of a large one."""
TAKEN: Final = "taken from edge[{!r}]"
LATEST: Final = "latest of edge[{!r}]"
INBOX: Final = "inbox of edge {1!r}[{0}]"
"""How errors tell where a value stands."""
LEAVES: Final = frozenset({str, bytes, int, float, complex, bool, type(None)})
"""Types whose values nobody can change."""


Same = Callable[[Any, Any], bool]
"""Whether a value is still the one that a reference was made of."""


@dataclass(slots=True)
class Holding:
    """What a node holds as of one of its rows, and how rows refer to it. The values are the very objects.

    Args:
        taken: of its snapshot, as are the next three.
        latest: likewise.
        inbox: likewise.
        order: likewise.
        taken_refs: a reference for each of `taken`.
        latest_refs: for each of `latest`, by edge.
        inbox_refs: for each item of each edge of `inbox`.
        read: items and edges that a restore reads, in this row and in those that it continues, and what else these tell.
        number: of the row, once it is written.
    """

    taken: Sequence[Taken]
    latest: Mapping[str, Any] | None
    inbox: tuple[EdgeSnapshot, ...]
    order: tuple[str, ...]
    taken_refs: Sequence[Any]
    latest_refs: Mapping[str, Any]
    inbox_refs: Sequence[Sequence[Any]]
    read: int = 0
    number: int = 0

    @classmethod
    def of(cls, node: NodeSnapshot, taken: Sequence[Any], latest: Mapping[str, Any], inbox: Sequence[Any], read: int) -> Holding:
        """What a node holds now.

        Args:
            node: as it is now; who made it may change what is not frozen.
            taken: references, as of the next two.
            latest: likewise.
            inbox: likewise.
            read: as above.
        """
        items = node.taken if type(node.taken) is Prefix else tuple(node.taken)
        values = None if node.latest is None else dict(node.latest)
        return cls(items, values, node.inbox, node.order, taken, latest, inbox, read)

    @classmethod
    def whole(
        cls, node: NodeSnapshot, many: int, taken: Sequence[Any], latest: Sequence[Any] | None, inbox: Sequence[Any]
    ) -> Holding:
        """As a row tells it that tells all.

        Args:
            node: as it is now.
            many: what it holds.
            taken: what the row says of it, as of the next two.
            latest: likewise.
            inbox: likewise.
        """
        return cls.of(node, taken, dict(latest or ()), [refs for _, refs, _ in inbox], many)

    def is_continued(self, changes: Changes, many: int) -> bool:
        """Whether a row that tells these changes is worth it.

        A restore never reads more than about twice of what there is. So what has gone is soon mentioned no more, and all that is
        ever written is a small multiple of all that ever changed. A row that is continued stays, and so does what else it tells:
        a state of which no checkpoint is left, say. Where that is more than the items, they are told again.

        Args:
            changes: since this row.
            many: what the node holds now.
        """
        return self.read + changes.size <= 2 * many + MANY


class Refs(NamedTuple):
    """What gives the references under which the values of one node stand in its row.

    Args:
        one: of a value, with its place for the store and for people.
        several: of items of one edge, likewise.
        again: of a value that an earlier row told, by its reference there, with its place.
    """

    one: Callable[..., Any]
    several: Callable[..., Sequence[Any]]
    again: Callable[[Any, tuple[str, ...]], Any]


class Told(NamedTuple):
    """What a row says of what its node holds.

    Args:
        parts: in the places of `taken`, `latest`, `inbox` and `order`.
        continues: they tell only what changed since the row before. Then `taken` is how many are gone from its front, and those
            that came; `latest` the edges whose value is another; of `inbox` each edge that is not as it was, by its place, with
            how many are gone, those that came, and whether it has ended; `order` how many of its last are told again, because
            they are in another order now, and the places of the edges of these and of all that came.
    """

    parts: tuple[Sequence[Any], Sequence[Any] | None, Sequence[Any], Sequence[Any]]
    continues: bool


@dataclass(frozen=True, slots=True)
class Changes:
    """What changed between two moments of a node.

    Args:
        taken_gone: so many of the first of `taken` are gone.
        took: so many of the last of it are new.
        latest: edges of which the latest value is another.
        edges: those of the inbox that are not as they were: place, how many of their first items are gone, and how many are new.
        again: so many of the last of `order`, of what is left, are told again: they are in another order now.
        arrived: places in the inbox of the edges of these, and of all items that are new, in the order of their arrival.
        size: items and edges that must be told; at least 1, for the row itself.
    """

    taken_gone: int
    took: int
    latest: Sequence[str]
    edges: Sequence[tuple[int, int, int]]
    again: int
    arrived: Sequence[int]
    size: int


def pack_link(number: int, digest: bytes) -> bytes:
    """What stands before a row that tells only what changed: with it, MessagePack has a list of three.

    Args:
        number: of the row that it continues.
        digest: of that row.
    """
    return b"\x93" + ormsgpack.packb(number) + ormsgpack.packb(digest)


def held_by(node: NodeSnapshot) -> int:
    """How many items and edges a node holds."""
    inbox = node.inbox
    many = len(node.taken) + len(inbox)
    for edge in inbox:
        many += len(edge.items)
    return many if node.latest is None else many + len(node.latest)


def follow(before: Holding, changes: Changes, node: NodeSnapshot, many: int, refs: Refs) -> tuple[Holding, Told]:
    """What a node holds now, and what its row says of it.

    Args:
        before: as of its newest row.
        changes: since then.
        node: as it is now.
        many: as `held_by` counts it.
        refs: gives references.
    """
    continues = before.is_continued(changes, many)
    if not continues:
        before = _told_again(before, changes, refs)
    one, several = refs.one, refs.several
    took = [[edge, one(item, ("edge", edge), TAKEN, edge)] for edge, item in node.taken[len(node.taken) - changes.took :]]
    latest, all_latest = before.latest_refs, node.latest or {}
    if changes.latest:
        latest = {**latest, **{edge: one(all_latest[edge], ("edge", edge), LATEST, edge) for edge in changes.latest}}
    inbox, came = list(before.inbox_refs), []
    for place, gone, many_new in changes.edges:
        there, kept = node.inbox[place], inbox[place][gone:]
        first = len(kept)
        new = several(there.items[first:], ("edge", there.edge_id), INBOX, first, there.edge_id) if many_new else ()
        inbox[place] = [*kept, *new] if kept else new
        came.append([place, gone, new, there.ended])
    taken = [*before.taken_refs[changes.taken_gone :], *took]
    if continues:
        held = Holding.of(node, taken, latest, inbox, before.read + changes.size)
        of_latest = None if node.latest is None else [[edge, latest[edge]] for edge in changes.latest]
        return held, Told(([changes.taken_gone, took], of_latest, came, [changes.again, changes.arrived]), continues)
    whole = [[there.edge_id, items, there.ended] for there, items in zip(node.inbox, inbox, strict=True)]
    told = Told((taken, None if node.latest is None else [*map(list, latest.items())], whole, node.order), continues)
    return Holding.whole(node, many, *told.parts[:3]), told


def _told_again(before: Holding, changes: Changes, refs: Refs) -> Holding:
    """What was held before, with references for a row that tells all of it that is left; those of what is gone are of no use."""
    first, changed = changes.taken_gone, frozenset(changes.latest)
    taken = [None] * first + [[edge, refs.again(ref, ("edge", edge))] for edge, ref in before.taken_refs[first:]]
    latest = {e: ref if e in changed else refs.again(ref, ("edge", e)) for e, ref in before.latest_refs.items()}
    gone = {place: many for place, many, _ in changes.edges}
    inbox = []
    for place, (edge, items) in enumerate(zip(before.inbox, before.inbox_refs, strict=True)):
        first = gone.get(place, 0)
        inbox.append([*items[:first], *(refs.again(ref, ("edge", edge.edge_id)) for ref in items[first:])])
    return replace(before, taken_refs=taken, latest_refs=latest, inbox_refs=inbox)


def find_changes(before: Holding, node: NodeSnapshot, same: Same) -> Changes | None:
    """What of a node has changed; `None` where only telling all of it anew can tell.

    Items are compared by identity: whatever is found makes of what was what is, also where one object came several times. A node
    may give the same object again, with another content, when the one that it gave before was taken: so one that can be changed
    is looked at, but on an edge of which the very snapshot is as it was.

    Args:
        before: as of its newest row.
        node: as it is now.
        same: whether a value is still the one of a reference.
    """
    if len(before.inbox) != len(node.inbox) or (before.latest is not None and node.latest is None):
        return None
    taken_gone = _gone(before.taken, node.taken)
    took = size = len(node.taken) - len(before.taken) + taken_gone
    edges: list[tuple[int, int, int]] = []
    gone_by_edge: dict[str, int] = {}
    for place, (old, new) in enumerate(zip(before.inbox, node.inbox, strict=True)):
        if new is old:
            continue
        if old.edge_id != new.edge_id:
            return None
        items, were = new.items, old.items
        gone = 0 if items is were or not were else _gone(were, items)
        if gone < len(were) and not _are_same(items[: len(were) - gone], before.inbox_refs[place][gone:], same):
            gone = len(were)
        came = len(items) - len(were) + gone
        if gone or came or old.ended is not new.ended:
            edges.append((place, gone, came))
            size += 1 + came
            if gone:
                gone_by_edge[new.edge_id] = gone
    latest = _new_latest(before, node.latest, same)
    order = _new_order(before, node, gone_by_edge)
    if latest is None or order is None:
        return None
    again, arrived = order
    return Changes(taken_gone, took, latest, edges, again, arrived, max(1, size + again + len(latest) + (taken_gone > 0)))


def _gone(old: Sequence[Any], new: Sequence[Any]) -> int:
    """How many of the first items of a queue are gone: the others are the first of what it is now."""
    if type(old) is type(new) is Prefix and old.source is new.source and len(old) <= len(new):
        return 0
    many = len(old)
    if not old or not new:
        return many
    old, new = old[max(0, len(old) - len(new)) :], new[:]
    start = next((at for at, item in enumerate(old) if item is new[0]), len(old))
    old = old[start:]
    left = len(old) if all(map(is_, old, new)) else _overlap(old, new)
    return many - left


def _overlap(old: Sequence[Any], new: Sequence[Any]) -> int:
    """How many of the last of `old` are the first of `new`, which is not shorter.

    The same few objects may be everywhere in both, so that one begins in the other at thousands of places: each item is looked
    at about twice, as Knuth, Morris and Pratt do it.
    """
    shorter, found = [0] * len(old), 0  # of each beginning of `new`: the next shorter one that it ends with
    for at in range(1, len(old)):
        while found and new[at] is not new[found]:
            found = shorter[found - 1]
        found += new[at] is new[found]
        shorter[at] = found
    found = 0
    for item in old:
        while found and item is not new[found]:
            found = shorter[found - 1]
        found += item is new[found]
    return found


def _are_same(items: Sequence[Any], refs: Sequence[Any], same: Same) -> bool:
    """Whether objects that were there before are still what they were."""
    return LEAVES.issuperset(map(type, items)) or all(map(same, items, refs))


def _new_latest(before: Holding, new: Mapping[str, Any] | None, same: Same) -> Sequence[str] | None:
    """The edges of which the latest value is another; `None` where their order is."""
    old, refs = before.latest, before.latest_refs
    if not new:
        return () if not old else None
    if not old:
        return list(new)
    if list(old) != list(islice(new, len(old))):
        return None
    kept = {edge for edge, value in old.items() if new[edge] is value and _are_same((value,), (refs[edge],), same)}
    return [edge for edge in new if edge not in kept]


def _new_order(before: Holding, node: NodeSnapshot, gone: dict[str, int]) -> tuple[int, Sequence[int]] | None:
    """How many of the last arrivals are told again, and the places of the edges of these and of the new ones.

    What is held while a save is under way stands in the order of the edges, and goes on in another one. `None` where the order
    does not tell of all items.
    """
    old, new = before.order, node.order
    if gone and old:
        left = Counter(gone)
        first = 0  # most go in the order in which they came
        while first < len(old) and left[old[first]]:
            left[old[first]] -= 1
            first += 1
        old = old[first:]
        if any(left.values()):
            kept: list[str] = []
            for edge in old:
                if left[edge]:
                    left[edge] -= 1
                else:
                    kept.append(edge)
            if any(left.values()):
                return None
            old = tuple(kept)
    elif gone and new:
        return None
    same = len(old)
    if new[:same] != old:
        same = next((at for at, (one, two) in enumerate(zip(old, new, strict=False)) if one != two), min(same, len(new)))
    if same == len(new):
        return len(old) - same, ()
    places = {edge.edge_id: place for place, edge in enumerate(node.inbox)}
    arrived = [places.get(edge, -1) for edge in new[same:]]
    return None if -1 in arrived else (len(old) - same, arrived)
