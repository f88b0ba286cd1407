"""What a power cut leaves of a SQLite store with the shipped defaults holds everything that was acknowledged."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from random import Random

import pytest

from checkpoint_plugin.blobs.folder import FolderPlace
from checkpoint_plugin.database import sqlite
from hookspecs import StoreError
from tests.power.by_hand import saving_by_hand
from tests.power.check import cut_power
from tests.power.disk import Disk
from tests.power.library import LibraryHidden, find_library
from tests.power.trace import Acknowledged
from tests.power.work import STARTED, WORK, Recording, Work, creating, record, resuming, saving_files, saving_little

MANY = 200
ALL = (*WORK, saving_by_hand)


@pytest.fixture
def before(tmp_path: Path) -> Path:
    """A folder whose files can be recorded."""
    try:
        find_library()
    except LibraryHidden as error:
        if "CI" in os.environ:
            raise
        pytest.skip(str(error))
    folder = tmp_path / "before"
    folder.mkdir()
    return folder


@pytest.fixture
def cuts(pytestconfig: pytest.Config) -> int:
    found: int = pytestconfig.getoption("--power-cuts")
    return found


@pytest.fixture
def seed(pytestconfig: pytest.Config) -> int:
    found: int = pytestconfig.getoption("--power-seed")
    return found


def some_moments(recording: Recording, count: int, seed: int) -> list[int]:
    random = Random(seed)
    return sorted(random.randint(recording.first, recording.trace.position) for _ in range(count))


@pytest.mark.parametrize("work", ALL, ids=lambda work: work.__name__)
async def test_the_whole_trace_gives_the_very_files(work: Work, before: Path) -> None:
    """So nothing that was written has been missed."""
    recording = await record(before, work)
    disk = Disk(recording.trace)
    disk.follow(recording.trace.position)
    image = disk.whole()
    there = [path for path in before.rglob("*") if recording.trace.covers(path)]
    assert image.files == {path: path.read_bytes() for path in there if path.is_file()}
    assert set(image.folders) == {path for path in there if path.is_dir()}


@pytest.mark.parametrize("work", ALL, ids=lambda work: work.__name__)
async def test_what_was_acknowledged_is_there(work: Work, before: Path, cuts: int, seed: int) -> None:
    recording = await record(before, work)
    await cut_power(recording, before.parent, some_moments(recording, cuts, seed), seed)


async def test_a_store_opens_whenever_its_making_was_cut_off(before: Path, seed: int) -> None:
    recording = await record(before, creating)
    last = recording.trace.operations.index(Acknowledged(STARTED, 0))
    await cut_power(recording, before.parent, range(last), seed)


async def test_the_power_goes_again_while_the_run_goes_on(before: Path, cuts: int, seed: int) -> None:
    first = await record(before, saving_little)
    random = Random(seed)
    start = first.trace.operations.index(Acknowledged(STARTED, 0))
    moments = sorted(random.randint(start, first.trace.position) for _ in range(max(cuts // 10, 1)))
    disk = Disk(first.trace)
    for moment in moments:
        disk.follow(moment)
        again = before.parent / "again"
        disk.cut(random).write(first.trace.root, again)
        second = await record(again, resuming, first.acknowledged(moment))
        await cut_power(second, before.parent, some_moments(second, 10, seed), seed)
        shutil.rmtree(again)


@pytest.mark.parametrize("level", [0, 1], ids=["OFF", "NORMAL"])
async def test_a_disk_that_is_not_waited_for_loses_saves(level: int, before: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So the cuts above cut deep enough."""
    monkeypatch.setattr(sqlite, "SAFE", {**sqlite.SAFE, "synchronous": level})
    recording = await record(before, saving_little)
    with pytest.raises(AssertionError, match=r"seed 0, cut \d+ at") as caught:
        await cut_power(recording, before.parent, some_moments(recording, MANY, 0), 0)
    assert isinstance(caught.value.__cause__, AssertionError | StoreError)


async def test_a_folder_that_is_not_synced_loses_the_store(before: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "make_folder", lambda path: path.mkdir(parents=True))
    recording = await record(before, creating)
    recording.first = recording.trace.operations.index(Acknowledged(STARTED, 0)) + 1
    with pytest.raises(AssertionError, match=r"seed 0, cut \d+ at"):
        await cut_power(recording, before.parent, some_moments(recording, MANY, 0), 0)


async def test_a_large_value_that_is_not_synced_is_lost(before: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FolderPlace, "settle", lambda place, folder: None)
    recording = await record(before, saving_files)
    with pytest.raises(AssertionError, match=r"seed 0, cut \d+ at") as caught:
        await cut_power(recording, before.parent, some_moments(recording, MANY, 0), 0)
    assert isinstance(caught.value.__cause__, StoreError)
