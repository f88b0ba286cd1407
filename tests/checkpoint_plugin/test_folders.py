"""New folders and the names in them are brought to the disk, or the error is told."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from checkpoint_plugin.database.folders import make_folder, sync_folder
from checkpoint_plugin.database.sqlite import create_file
from checkpoint_plugin.errors import StoreUnreadable


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    found: list[Path] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        found.append(Path(os.readlink(f"/proc/self/fd/{handle}")))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    return found


def refuse(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)


def test_each_new_folder_is_for_its_owner_and_its_name_on_the_disk(tmp_path: Path, synced: list[Path]) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert synced == [tmp_path, tmp_path / "a"]
    assert [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "a", tmp_path / "a" / "b")] == [0o700, 0o700]


def test_a_new_store_is_on_the_disk_with_its_folder(tmp_path: Path, synced: list[Path]) -> None:
    create_file(tmp_path / "a" / "s.db")
    assert synced == [tmp_path, tmp_path / "a"]
    create_file(tmp_path / "a" / "s.db")
    assert len(synced) == 2


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EBADF, errno.ENOTSUP])
def test_a_disk_that_knows_no_sync_of_folders_is_used(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(number, monkeypatch)
    create_file(tmp_path / "a" / "s.db")
    assert (tmp_path / "a" / "s.db").is_file()


def test_a_folder_that_may_not_be_read_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: object) -> int:
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(os, "open", refused)
    sync_folder(tmp_path)


def test_a_disk_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(errno.EIO, monkeypatch)
    with pytest.raises(StoreUnreadable, match=r"s\.db cannot be created: Input/output error\. Choose another place"):
        create_file(tmp_path / "a" / "s.db")
