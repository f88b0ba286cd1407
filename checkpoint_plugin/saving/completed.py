"""Nodes that have completed, told in blocks: a resume of a long run reads one row for hundreds of them.

A block repeats what rows of nodes say, so it may be missing: then the rows are read. What it says is bound to them by the sum
of their digests, which is a part of the hash of the cut (`digests.add_digests`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import ormsgpack

from checkpoint_plugin.stored_bytes.digests import HASH_SIZE, digest_of, number_bytes, sum_digests, text_bytes
from hookspecs import NodeSnapshot

__all__ = ["NO_BLOCKS", "Blocks", "Tally", "block_digest", "is_block", "is_over", "pack_block", "read_blocks"]

BLOCK: Final = 256
"""Nodes of a block, at least: to write it costs a few microseconds each."""
MOST_OPEN: Final = 1_000
"""Other nodes that a block may name: a restore asks for the rows of all of them in one query."""


@dataclass(slots=True)
class Tally:
    """What the next block of a run will tell; it follows the newest durable checkpoint.

    Args:
        loose: nodes that have completed and stand in no block, with the digests of their rows.
        open: the numbers of the newest rows of all other nodes.
        least: nodes of a block, at least.
    """

    loose: dict[str, bytes] = field(default_factory=dict)
    open: dict[str, int] = field(default_factory=dict)
    least: int = BLOCK

    def block(self, over: Mapping[str, bytes], others: Iterable[str], number: int) -> bytes | None:
        """The block that a save should write; `None` when it is not worth it yet.

        Args:
            over: nodes that complete in it, with the digests of their rows.
            others: the other nodes of it.
            number: of its checkpoint.
        """
        many = len(self.loose) + len(over)
        most = min(many, MOST_OPEN)
        if many < self.least or len(self.open) - len(over) > most:
            return None
        rest = {**self.open, **dict.fromkeys(others, number)}
        rest = {node_id: of for node_id, of in rest.items() if node_id not in over}
        return pack_block({**self.loose, **over}, rest) if len(rest) <= most else None

    def note(self, over: Mapping[str, bytes], others: Iterable[str], number: int, *, told: bool) -> None:
        """A save is durable.

        Args:
            over: as for `block`.
            others: as for `block`.
            number: as for `block`.
            told: whether it wrote a block.
        """
        for node_id in over:
            self.open.pop(node_id, None)
        self.open.update(dict.fromkeys(others, number))
        if told:
            self.loose.clear()
        else:
            self.loose.update(over)


@dataclass(frozen=True, slots=True)
class Blocks:
    """All blocks of a cut.

    Args:
        number: of the checkpoint with which the last was written; rows of later ones are read.
        node_ids: nodes that have completed.
        total: the sum of the digests of their rows.
        open: of the other nodes, the numbers of their newest rows up to then.
    """

    number: int
    node_ids: Sequence[str]
    total: int
    open: Mapping[str, int]


NO_BLOCKS: Final = Blocks(0, (), 0, {})


def is_over(node: NodeSnapshot) -> bool:
    """Whether there is no more to say of a node than that it has completed."""
    if node.status != "completed":
        return False
    holds = node.state is not None or node.taken or node.collected or node.arguments or node.suspension is not None
    return not (holds or node.latest or node.inbox or node.order)


def pack_block(over: Mapping[str, bytes], rest: Mapping[str, int]) -> bytes:
    """The bytes of a block.

    Args:
        over: nodes that have completed since the block before, with the digests of their rows.
        rest: nodes that have not, with the numbers of their newest rows.
    """
    return ormsgpack.packb([list(over), sum_digests(over.values()).to_bytes(HASH_SIZE, "big"), rest])


def block_digest(run_id: str, number: int, body: bytes) -> bytes:
    """What binds a block to its run and checkpoint."""
    return digest_of(text_bytes(run_id), b"completed", number_bytes(number), body)


def is_block(block: Any) -> bool:
    """Whether it lists what `pack_block` lists, each of its type."""
    if type(block) is not list or len(block) != 3:
        return False
    node_ids, total, rest = block
    if type(node_ids) is not list or type(total) is not bytes or len(total) != HASH_SIZE or type(rest) is not dict:
        return False
    kinds = {*map(type, node_ids), *map(type, rest)}
    return kinds <= {str} and set(map(type, rest.values())) <= {int}


def read_blocks(blocks: Sequence[tuple[int, Sequence[Any]]]) -> Blocks:
    """What blocks tell together.

    Args:
        blocks: number and content (`is_block`), in the order of their numbers.
    """
    if not blocks:
        return NO_BLOCKS
    node_ids = [node_id for _, (some, _, _) in blocks for node_id in some]
    number, (_, _, rest) = blocks[-1]
    return Blocks(number, node_ids, sum_digests(total for _, (_, total, _) in blocks), rest)
