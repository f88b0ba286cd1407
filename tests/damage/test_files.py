"""Files of SQLite with flipped bits, cut short, or foreign: the right value or an error of ours, and never anything else.

How many is the option `--damage`.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.damage.stored import compare, look, store_run


@pytest.fixture
async def whole(tmp_path: Path) -> bytes:
    """The bytes of a store."""
    await store_run(f"sqlite:///{tmp_path / 'whole.db'}")
    return (tmp_path / "whole.db").read_bytes()


async def test_flipped_bits_are_never_silently_wrong(whole: bytes, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    seed = random.SystemRandom().randrange(2**32)
    rng = random.Random(seed)
    reference = await look(f"sqlite:///{tmp_path / 'whole.db'}")
    count = request.config.getoption("--damage")
    places = [place for place, byte in enumerate(whole) if byte or place % 16 == 0]  # much of a page is empty
    refused = 0
    for number in range(count):
        data = bytearray(whole)
        place, bit = rng.choice(places), rng.randrange(8)
        data[place] ^= 1 << bit
        path = tmp_path / "damaged.db"
        path.write_bytes(data)
        try:
            refused += compare(await look(f"sqlite:///{path}"), reference) > 0
        except Exception as error:
            error.add_note(f"seed {seed}, flip {number}: bit {bit} of byte {place}")
            raise
        finally:
            remove(path)
    assert refused > count / 10


async def test_truncated_files_are_never_silently_wrong(whole: bytes, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    seed = random.SystemRandom().randrange(2**32)
    rng = random.Random(seed)
    reference = await look(f"sqlite:///{tmp_path / 'whole.db'}")
    refused = count = max(10, request.config.getoption("--damage") // 10)
    for _ in range(count):
        size = rng.choice([rng.randrange(len(whole)), 512 * rng.randrange(len(whole) // 512)])
        path = tmp_path / "damaged.db"
        path.write_bytes(whole[:size] + (bytes(len(whole) - size) if rng.random() < 0.3 else b""))
        try:
            refused -= compare(await look(f"sqlite:///{path}"), reference) > 0
        except Exception as error:
            error.add_note(f"seed {seed}: cut to {size} of {len(whole)} bytes")
            raise
        finally:
            remove(path)
    assert refused == 0


def remove(path: Path) -> None:
    for name in (path, Path(f"{path}-wal"), Path(f"{path}-shm"), Path(f"{path}-journal")):
        name.unlink(missing_ok=True)
