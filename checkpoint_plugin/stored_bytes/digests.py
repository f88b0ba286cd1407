"""What binds stored bytes to their place, and the rows of a cut together."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Final

__all__ = [
    "HASH_SIZE",
    "MODULUS",
    "add_digests",
    "cut_hash_of",
    "digest_of",
    "number_bytes",
    "row_digest",
    "row_digester",
    "segment_digest",
    "sum_digests",
    "text_bytes",
]

HASH_SIZE: Final = 32
MODULUS: Final = 1 << (8 * HASH_SIZE)
LARGE: Final = 65_536
"""Bytes that are not copied to be hashed together with what stands before them."""


def text_bytes(text: str) -> bytes:
    """Any text as bytes, lone surrogates too."""
    return text.encode("utf-8", "surrogatepass")


def number_bytes(number: int) -> bytes:
    """A number as eight bytes."""
    return number.to_bytes(8, "big", signed=True)


def digest_of(*parts: bytes) -> bytes:
    """A digest of byte strings, each with its length, so that no two sequences are alike (BLAKE2b, RFC 7693)."""
    framed = [piece for part in parts for piece in (len(part).to_bytes(8, "big"), part)]
    if len(parts[-1]) < LARGE:
        return hashlib.blake2b(b"".join(framed), digest_size=HASH_SIZE).digest()
    digest = hashlib.blake2b(digest_size=HASH_SIZE)
    for piece in framed:  # which copies nothing
        digest.update(piece)
    return digest.digest()


def row_digest(run_id: str, node_id: str, number: int, body: bytes) -> bytes:
    """What binds a node's row to its run, node and checkpoint."""
    return digest_of(text_bytes(run_id), text_bytes(node_id), number.to_bytes(8, "big"), body)


def row_digester(run_id: str) -> Callable[[str, int, bytes], bytes]:
    """`row_digest` for the many rows of one run: called with node, number and body."""
    run = text_bytes(run_id)
    start, eight = len(run).to_bytes(8, "big") + run, (8).to_bytes(8, "big")

    def digest(node_id: str, number: int, body: bytes) -> bytes:
        node = text_bytes(node_id)
        sizes = len(node).to_bytes(8, "big"), len(body).to_bytes(8, "big")
        framed = b"".join((start, sizes[0], node, eight, number.to_bytes(8, "big"), sizes[1], body))
        return hashlib.blake2b(framed, digest_size=HASH_SIZE).digest()

    return digest


def segment_digest(run_id: str, node_id: str, log: int, first: int, body: bytes) -> bytes:
    """What binds a segment of an output to its run, node, log and place."""
    if not log:
        return row_digest(run_id, node_id, first, body)
    return digest_of(text_bytes(run_id), text_bytes(node_id), first.to_bytes(8, "big"), body, log.to_bytes(8, "big"))


def sum_digests(digests: Iterable[bytes]) -> int:
    """The hash of rows: the sum of their digests."""
    return sum(int.from_bytes(digest, "big") for digest in digests) % MODULUS


def add_digests(total: int, *, added: bytes, removed: bytes | None = None) -> int:
    """A cut's hash after a row was added or replaced: a sum of digests, so it costs what changed.

    It is the additive hash of Bellare and Micciancio ("A New Paradigm for Collision-Free Hashing", 1997): it shows what
    faults do to rows; against somebody who forges rows on purpose only a key helps.
    """
    taken = 0 if removed is None else int.from_bytes(removed, "big")
    return (total + int.from_bytes(added, "big") - taken) % MODULUS


def cut_hash_of(total: int) -> bytes:
    """The hash of a cut as its checkpoint stores it.

    Args:
        total: the sum of the digests of its rows.
    """
    return total.to_bytes(HASH_SIZE, "big")
