"""What was written is waited for as the system asks for it: on macOS `fsync` alone leaves it in the cache of the disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from checkpoint_plugin.blobs.folder import FolderPlace
from checkpoint_plugin.database import syncing
from checkpoint_plugin.database.folders import sync_folder
from checkpoint_plugin.database.sqlite import create_file
from checkpoint_plugin.opening.witness import Witness

FULL = 51
"""`F_FULLFSYNC`."""


class MacOs:
    """Its `fcntl`, which keeps what was synced.

    Args:
        number: of the error that it gives to all; `None` for none.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int | None = None) -> None:
        self.full: list[Path] = []
        self.plain: list[Path] = []
        self._number = number
        monkeypatch.setattr(syncing, "CONTROL", SimpleNamespace(F_FULLFSYNC=FULL, fcntl=self._fcntl))
        monkeypatch.setattr(os, "fsync", lambda handle: self.plain.append(path_of(handle)))

    def _fcntl(self, handle: int, command: int) -> int:
        assert command == FULL
        if self._number is not None:
            raise OSError(self._number, os.strerror(self._number))
        self.full.append(path_of(handle))
        return 0


def path_of(handle: int) -> Path:
    return Path(os.readlink(f"/proc/self/fd/{handle}"))


def test_on_macos_all_that_is_written_goes_to_the_disk_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = MacOs(monkeypatch)
    create_file(tmp_path / "a" / "s.db")
    witness = Witness(tmp_path / "w")
    witness.note("r", 1, b"hash")
    place = FolderPlace(tmp_path / "b")
    place.write("f", "v.4", b"data")
    place.settle("f")
    assert system.plain == []
    assert {path.name for path in system.full} >= {"a", "w", "b", "f", "v.4"}
    assert [path.suffix for path in system.full if path.parent == tmp_path / "w"] == [".new"]


@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.ENOTTY, errno.EINVAL])
def test_a_file_system_without_a_full_sync_is_synced_as_it_can_be(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = MacOs(monkeypatch, number)
    sync_folder(tmp_path)
    assert system.plain == [tmp_path]


def test_a_disk_that_fails_in_a_full_sync_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = MacOs(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        sync_folder(tmp_path)
    assert system.plain == []


def test_a_system_without_fcntl_syncs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = MacOs(monkeypatch)
    monkeypatch.setattr(syncing, "CONTROL", None)
    sync_folder(tmp_path)
    assert system.plain == [tmp_path]
