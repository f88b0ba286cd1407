"""Digests of rows: one at a time and by the thousand they are the same."""

from __future__ import annotations

import random

from checkpoint_plugin.stored_bytes.digests import row_digest, row_digester


def test_many_rows_have_the_digests_that_each_has() -> None:
    chance = random.Random(5)
    for _ in range(200):
        run_id, node_id = ("".join(chance.choices("ab\ud800é/", k=chance.randrange(5))) for _ in range(2))
        number, body = chance.randrange(1 << 40), chance.randbytes(chance.randrange(300))
        assert row_digester(run_id)(node_id, number, body) == row_digest(run_id, node_id, number, body)


def test_what_moves_from_one_part_to_the_next_is_seen() -> None:
    assert row_digester("r")("a", 1, b"bc") != row_digester("r")("ab", 1, b"c") != row_digester("ra")("b", 1, b"c")
