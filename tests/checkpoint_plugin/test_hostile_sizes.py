"""A row that lies about the size of a value costs no memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import ormsgpack
import pytest
from sqlalchemy import update

from checkpoint_plugin.blobs.name import BESIDE, make_name, read_name
from checkpoint_plugin.bounds import LARGEST_VALUE
from checkpoint_plugin.codec import MalformedValue
from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.location import locate
from checkpoint_plugin.errors import StoreDamaged
from checkpoint_plugin.models import PAYLOAD
from checkpoint_plugin.policy import MAX_BYTES
from checkpoint_plugin.saving.payloads import PIECES, PayloadReader, PayloadRow, SegmentRow
from checkpoint_plugin.store import RunHistory, Store
from checkpoint_plugin.stored_bytes.compression import RAW, ZSTD, Compressor
from hookspecs import NodeSnapshot
from tests.checkpoint_plugin.test_pruning import cut, definition

UNPACKED = 64 << 20
BOMB = Compressor().compress(bytes(UNPACKED))[1]
MEMORY = 8 << 20


def test_no_policy_allows_larger_values() -> None:
    assert MAX_BYTES == LARGEST_VALUE


@pytest.mark.parametrize("size", [-1, -2, -(2**63), LARGEST_VALUE + 1, 2**63 - 1, 2**64])
@pytest.mark.parametrize("encoding", [RAW, ZSTD, PIECES])
def test_a_size_that_no_value_has_is_refused_before_anything_is_unpacked(encoding: int, size: int) -> None:
    body = ormsgpack.packb([[0, UNPACKED]]) if encoding == PIECES else BOMB
    told = [
        PayloadReader({b"d": PayloadRow(b"d", encoding, size, body, 1, UNPACKED)}, [SegmentRow(1, 0, UNPACKED, ZSTD, BOMB)]),
        PayloadReader({b"d": PayloadRow(b"d", PIECES, 8, ormsgpack.packb([[0, 8]]), 1, 8)}, [SegmentRow(1, 0, size, ZSTD, BOMB)]),
    ]
    tracemalloc.start()
    try:
        for reader in told[: 1 if size < 0 else 2]:  # a part of fewer bytes than are asked for is missing
            with pytest.raises(MalformedValue, match="said to have"):
                reader.data(b"d")
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()


def test_the_name_of_a_file_that_is_larger_than_any_value_is_refused() -> None:
    assert read_name(str(make_name(BESIDE, "r", LARGEST_VALUE)), "r").size == LARGEST_VALUE
    for size in (2 * LARGEST_VALUE, 10**12 - 1):  # with a file of that size, which takes no place on the disk
        with pytest.raises(MalformedValue, match="larger than any value"):
            read_name(str(make_name(BESIDE, "r", size)), "r")


async def test_a_restore_tells_of_it(tmp_path: Path) -> None:
    store = Store(locate(f"sqlite:///{tmp_path}/c.db"), create=True)
    await store.insert_job("r", definition())
    await store.save(RunHistory("r", 1, 1), cut(NodeSnapshot("a", "running", firing=1, state=bytes(1 << 20))), "step")

    def lie(connection: Connection) -> None:
        connection.execute(update(PAYLOAD).values(size=-2, body=BOMB))

    await store.transact(lie)
    with pytest.raises(StoreDamaged, match="said to have -2 bytes"):
        await store.restore(RunHistory("r", 1, 1), None)
    await store.close()
