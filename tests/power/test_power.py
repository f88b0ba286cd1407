"""What a power cut leaves of a SQLite store with the shipped defaults holds everything that was acknowledged."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random

import pytest

from checkpoint_plugin import sqlite
from hookspecs import StoreError
from tests.power.disk import Disk
from tests.power.work import WORK, Recording, check, creating, record, saving

FEW = 8


async def cut_power(recording: Recording, folder: Path, count: int, seed: int) -> None:
    """Cut the power at random moments.

    Raises:
        AssertionError: a promise was broken; tells the seed and the moment.
    """
    random = Random(seed)
    operations = recording.trace.operations
    moments = sorted(random.randint(recording.first, len(operations)) for _ in range(count))
    disk = Disk(recording.trace.root)
    for number, moment in enumerate(moments):
        disk.follow(operations[disk.position : moment])
        luck = Random(f"{seed} {number}")
        root = folder / "after"
        disk.cut(luck).write(recording.trace.root, root)
        try:
            await check(root, recording.acknowledged(moment), recording, luck)
        except Exception as error:
            before = [repr(operation)[:100] for operation in operations[max(moment - FEW, 0) : moment]]
            raise AssertionError(f"seed {seed}, cut {number} at {moment} of {len(operations)}, after {before}") from error
        shutil.rmtree(root)


@pytest.fixture
def before(tmp_path: Path) -> Path:
    folder = tmp_path / "before"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("name", WORK)
async def test_what_was_acknowledged_is_there(name: str, before: Path, pytestconfig: pytest.Config) -> None:
    recording = await record(before, WORK[name])
    count, seed = pytestconfig.getoption("--power-cuts"), pytestconfig.getoption("--power-seed")
    await cut_power(recording, before.parent, count, seed)


@pytest.mark.parametrize("level", [0, 1], ids=["OFF", "NORMAL"])
async def test_a_disk_that_is_not_waited_for_loses_saves(level: int, before: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So the cuts above cut deep enough."""
    monkeypatch.setattr(sqlite, "SAFE", {**sqlite.SAFE, "synchronous": level})
    recording = await record(before, saving)
    with pytest.raises(AssertionError, match=r"seed 0, cut \d+ at") as caught:
        await cut_power(recording, before.parent, 200, 0)
    assert isinstance(caught.value.__cause__, AssertionError | StoreError)


async def test_a_folder_that_is_not_synced_loses_the_store(before: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "make_folder", lambda path: path.mkdir(parents=True))
    recording = await record(before, creating)
    with pytest.raises(AssertionError, match=r"seed 0, cut \d+ at"):
        await cut_power(recording, before.parent, 200, 0)
