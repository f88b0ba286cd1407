"""Digests of rows: one at a time and by the thousand they are the same."""

from __future__ import annotations

import hashlib
import random

import pytest

from checkpoint_plugin.stored_bytes.digests import digest_of, row_digest, row_digester


def test_many_rows_have_the_digests_that_each_has() -> None:
    chance = random.Random(5)
    for _ in range(200):
        run_id, node_id = ("".join(chance.choices("ab\ud800é/", k=chance.randrange(5))) for _ in range(2))
        number, body = chance.randrange(1 << 40), chance.randbytes(chance.randrange(300))
        assert row_digester(run_id)(node_id, number, body) == row_digest(run_id, node_id, number, body)


def test_what_moves_from_one_part_to_the_next_is_seen() -> None:
    assert row_digester("r")("a", 1, b"bc") != row_digester("r")("ab", 1, b"c") != row_digester("ra")("b", 1, b"c")


@pytest.mark.parametrize("sizes", [(0,), (3,), (65_535,), (65_536,), (200_000,), (3, 65_536), (65_536, 3), (70_000, 0, 70_000)])
def test_a_digest_is_that_of_all_parts_each_with_its_length_however_long_they_are(sizes: tuple[int, ...]) -> None:
    parts = [bytes([65 + place]) * size for place, size in enumerate(sizes)]
    framed = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    assert digest_of(*parts) == hashlib.blake2b(framed, digest_size=32).digest()
