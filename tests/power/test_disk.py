"""The disk of the power cuts keeps what was synced, and of the rest whatever it likes."""

from __future__ import annotations

from pathlib import Path
from random import Random

from tests.power.disk import SECTOR, Disk
from tests.power.trace import Trace

MANY = 300


def outcomes(trace: Trace) -> list[dict[str, bytes]]:
    """The files that many power cuts leave, by name."""
    disk = Disk(trace)
    disk.follow(trace.position)
    images = [disk.cut(Random(seed)) for seed in range(MANY)]
    return [{str(path.relative_to(trace.root)): data for path, data in image.files.items()} for image in images]


def test_what_was_synced_stays(tmp_path: Path) -> None:
    trace = Trace(tmp_path)
    file = trace.opened(trace.root / "a", new=True)
    trace.written(file, 0, b"one")
    trace.synced(file, trace.position)
    trace.folder_synced(trace.root, trace.position)
    trace.acknowledge("done")
    assert outcomes(trace) == [{"a": b"one"}] * MANY


def test_a_name_that_was_not_synced_may_be_missing_and_a_file_be_empty(tmp_path: Path) -> None:
    trace = Trace(tmp_path)
    file = trace.opened(trace.root / "a", new=True)
    trace.written(file, 0, b"one")
    found = outcomes(trace)
    assert {} in found
    assert {"a": b""} in found
    assert {"a": b"one"} in found


def test_a_sync_holds_only_what_came_before_it_began(tmp_path: Path) -> None:
    trace = Trace(tmp_path)
    file = trace.opened(trace.root / "a", new=True)
    trace.folder_synced(trace.root, trace.position)
    trace.written(file, 0, b"one")
    begun = trace.position
    trace.written(file, 0, b"two")
    trace.synced(file, begun)
    assert {"a": b"one"} in outcomes(trace)
    assert all(found["a"] in (b"one", b"two") for found in outcomes(trace))


def test_a_write_may_be_there_in_some_of_its_sectors_and_in_any_order(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0" * 3 * SECTOR)
    trace = Trace(tmp_path)
    file = trace.opened(trace.root / "a", new=False)
    trace.written(file, 0, b"1" * 3 * SECTOR)
    trace.written(file, SECTOR, b"2" * SECTOR)
    found = {"".join(chr(image["a"][SECTOR * sector]) for sector in range(3)) for image in outcomes(trace)}
    assert {"000", "111", "121", "020", "001"} <= found
    assert all(len(set(image["a"][at : at + SECTOR])) == 1 for image in outcomes(trace) for at in range(0, 3 * SECTOR, SECTOR))


def test_a_rename_is_there_or_not(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    trace = Trace(tmp_path)
    fresh = trace.opened(trace.root / "b", new=True)
    trace.written(fresh, 0, b"new")
    trace.synced(fresh, trace.position)
    trace.folder_synced(trace.root, trace.position)
    trace.renamed(trace.root / "b", trace.root / "a")
    found = outcomes(trace)
    assert all(image in ({"a": b"old", "b": b"new"}, {"a": b"new"}) for image in found)
    assert len({len(image) for image in found}) == 2


def test_without_its_folder_nothing_is_there(tmp_path: Path) -> None:
    trace = Trace(tmp_path)
    folder = trace.root / "folder"
    trace.made(folder)
    file = trace.opened(folder / "a", new=True)
    trace.written(file, 0, b"one")
    trace.synced(file, trace.position)
    trace.folder_synced(folder, trace.position)
    found = outcomes(trace)
    assert {} in found
    assert {"folder/a": b"one"} in found
    trace.folder_synced(trace.root, trace.position)
    assert outcomes(trace) == [{"folder/a": b"one"}] * MANY


def test_a_file_that_was_cut_short_or_deleted_may_come_back(tmp_path: Path) -> None:
    for name in ("short", "gone"):
        (tmp_path / name).write_bytes(b"data")
    trace = Trace(tmp_path)
    trace.truncated(trace.opened(trace.root / "short", new=False), 1)
    trace.removed(trace.root / "gone")
    found = outcomes(trace)
    assert {"short": b"data", "gone": b"data"} in found
    assert {"short": b"d"} in found
