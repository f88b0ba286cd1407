"""What a node's row must look like: bytes that are whole by their digest may still be another program's, or a forger's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Final, get_args

from checkpoint_plugin.restoring.joined import INBOX, LATEST, ORDER, TAKEN, told_by
from checkpoint_plugin.saving.rows import FIELDS, THEMSELVES
from hookspecs import NodeStatus

__all__ = ["ARGUMENTS", "STATE", "WAITS", "are_refs", "is_bare", "is_change", "is_row", "mentioned_in_refs"]

NONE: Final = type(None)
STATUSES: Final = frozenset(get_args(NodeStatus))
FEWEST: Final = 16
"""The fields that every layout has."""
KINDS: Final[dict[str, frozenset[type]]] = {
    "status": frozenset({str}),
    "attempt": frozenset({int}),
    "firing": frozenset({int}),
    "commits": frozenset({int}),
    "state": frozenset({NONE, bytes, list}),
    "arguments": frozenset({NONE, list}),
    "taken": frozenset({list}),
    "emitted": frozenset({int}),
    "latest": frozenset({NONE, list}),
    "inbox": frozenset({list}),
    "order": frozenset({list}),
    "collected": frozenset({int}),
    "source": frozenset({NONE, str}),
    "error": frozenset({NONE, bytes}),
    "started_at": frozenset({NONE, float, int}),
    "ended_at": frozenset({NONE, float, int}),
    "suspension": frozenset({NONE, list}),
}
BY_PLACE: Final = tuple(KINDS[name] for name in FIELDS)
STATE: Final = FIELDS.index("state")
ARGUMENTS: Final = FIELDS.index("arguments")
WAITS: Final = FIELDS.index("suspension")
NAMED: Final = (ARGUMENTS, TAKEN, LATEST)


def is_row(row: Any) -> bool:
    """Whether it lists what `rows.RowWriter` lists, each of its type."""
    if type(row) is not list or not _are_kinds(tuple(map(type, row))) or row[0] not in STATUSES:
        return False
    return is_bare(row) or (
        _is_ref(row[STATE])
        and all(not row[place] or all(map(_is_named, row[place])) for place in NAMED)
        and all(map(_is_edge, row[INBOX]))
        and _are(str, row[ORDER])
        and (len(row) <= WAITS or row[WAITS] is None or _is_suspension(row[WAITS]))
    )


def is_change(found: Any) -> bool:
    """Whether it lists what `holding.pack_link` and `holding.follow` list of a row that tells only what changed."""
    if type(found) is not list or len(found) != 3:
        return False
    number, digest, row = found
    if type(number) is not int or type(digest) is not bytes or type(row) is not list or not _are_kinds(tuple(map(type, row))):
        return False
    taken, inbox, order = row[TAKEN], row[INBOX], row[ORDER]
    if not _is_move(taken) or not _is_move(order) or not _are(int, order[1]):
        return False
    return all(map(_is_changed_edge, inbox)) and is_row(told_by(row))


def is_bare(row: Sequence[Any]) -> bool:
    """Whether a row whose fields are of their types holds no value and nothing waits in it, as with nodes that have completed."""
    return (
        row[STATE] is row[ARGUMENTS] is row[LATEST] is None
        and not (row[INBOX] or row[TAKEN] or row[ORDER])
        and (len(row) <= WAITS or row[WAITS] is None)
    )


def are_refs(refs: Any) -> bool:
    """Whether it is a list of references to values."""
    return type(refs) is list and all(map(_is_ref, refs))


def mentioned_in_refs(refs: Iterable[Any]) -> Iterable[bytes]:
    """The digests of the payloads among references."""
    for ref in refs:
        if type(ref) is list:
            yield ref[0]


@lru_cache(4_096)
def _are_kinds(kinds: tuple[type, ...]) -> bool:
    """Whether these are the types of the fields; a run has thousands of rows and few combinations of types."""
    return FEWEST <= len(kinds) <= len(FIELDS) and all(map(frozenset.__contains__, BY_PLACE, kinds))


def _is_ref(ref: Any) -> bool:
    if type(ref) is bytes or type(ref) in THEMSELVES:
        return True
    return type(ref) is list and len(ref) == 1 and type(ref[0]) is bytes


def _is_named(pair: Any) -> bool:
    return type(pair) is list and len(pair) == 2 and type(pair[0]) is str and _is_ref(pair[1])


def _is_edge(edge: Any) -> bool:
    return type(edge) is list and len(edge) == 3 and type(edge[0]) is str and are_refs(edge[1]) and type(edge[2]) is bool


def _is_move(found: Any) -> bool:
    """Whether it lists how many are gone, and what came."""
    return len(found) == 2 and type(found[0]) is int and type(found[1]) is list


def _is_changed_edge(edge: Any) -> bool:
    return type(edge) is list and len(edge) == 4 and type(edge[0]) is type(edge[1]) is int


def _is_suspension(found: Any) -> bool:
    """As `suspensions.pack_suspension` made it."""
    if type(found) is not list or len(found) != 8:
        return False
    reason, since, state, metadata, wake_at, answered, answer, earlier = found
    times = type(since) in (float, int) and type(wake_at) in (NONE, float, int)
    return times and type(reason) is bytes and type(answered) is bool and all(map(_is_ref, (state, metadata, answer, earlier)))


def _are(kind: type, values: Sequence[Any]) -> bool:
    return all(type(value) is kind for value in values)
