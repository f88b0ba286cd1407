"""Large values as files of a folder, each on the disk, with its folder, before a row mentions it."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from checkpoint_plugin.blobs.name import is_file, is_folder
from checkpoint_plugin.blobs.place import BlobFile
from checkpoint_plugin.codec import MalformedValue
from checkpoint_plugin.database.folders import make_folder, sync_folder
from checkpoint_plugin.database.syncing import write_synced
from checkpoint_plugin.errors import BlobsUnusable

__all__ = ["FolderPlace"]

PLAIN_FILE: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
"""No link; and as Windows is told that it must not change line ends."""
NOT_WAITING: Final = getattr(os, "O_NONBLOCK", 0)
"""For who writes to a pipe that stands in the place of a file."""
TRIES: Final = 5


class FolderPlace:
    """See `place.BlobPlace`. Folders and files are for their owner only.

    Args:
        root: the folder; made when the first file is written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, folder: str, file: str, data: bytes) -> None:
        path = self.root / folder / file
        with _telling(path, "written"):
            handle = self._create(path)
            try:
                write_synced(handle, data)
            except BaseException:
                with suppress(OSError):
                    path.unlink()
                raise
            finally:
                os.close(handle)

    def settle(self, folder: str) -> None:
        with _telling(self.root / folder, "written"):
            # The two above as well: a sweep may have taken the folder away when it was empty, and another run made it anew.
            for path in (self.root / folder, self.root, self.root.parent):
                with suppress(FileNotFoundError):  # all of it was swept: then the save is refused, and written again
                    sync_folder(path)

    def read(self, folder: str, file: str, size: int) -> bytes | None:
        path = self.root / folder / file
        with _telling(path, "read"):
            try:
                handle = os.open(path, os.O_RDONLY | NOT_WAITING | PLAIN_FILE)
            except FileNotFoundError:
                return None
            try:
                found = os.fstat(handle)
                if not stat.S_ISREG(found.st_mode) or found.st_size != size:
                    raise MalformedValue(f"its file {path} has {found.st_size} of {size} bytes")
                with open(handle, "rb", closefd=False) as opened:
                    return opened.read(size)
            finally:
                os.close(handle)

    def remove(self, files: Iterable[tuple[str, str]]) -> None:
        folders = set()
        for folder, file in files:
            path = self.root / folder / file
            if not self._is_ours(folder):
                continue
            folders.add(path.parent)
            with _telling(path, "deleted"):
                path.unlink(missing_ok=True)
        for emptied in folders:
            with suppress(OSError):  # most are not empty
                emptied.rmdir()

    def files(self, folders: Collection[str] | None) -> list[BlobFile]:
        with _telling(self.root, "read"):
            names = list(self._folders()) if folders is None else folders
            return [found for name in names for found in self._files_of(name)]

    def age(self, found: BlobFile) -> float | None:
        path = self.root / found.folder / found.file
        with _telling(path, "read"):
            try:
                return time.time() - path.lstat().st_mtime
            except FileNotFoundError:
                return None

    def _create(self, path: Path) -> int:
        for tried in range(TRIES):
            try:
                return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | PLAIN_FILE, 0o600)
            except FileNotFoundError:  # the first of its run; or a sweep was faster, and took the folder away
                if tried == TRIES - 1:
                    raise
                make_folder(path.parent)
        raise AssertionError("unreachable")

    def _folders(self) -> Iterator[str]:
        try:
            with os.scandir(self.root) as entries:
                yield from (entry.name for entry in entries if is_folder(entry.name) and entry.is_dir(follow_symlinks=False))
        except FileNotFoundError:
            return

    def _is_ours(self, folder: str) -> bool:
        """Whether it is no link: behind one lie files of somebody else, and what is swept or pruned here is not theirs."""
        return not (self.root / folder).is_symlink()

    def _files_of(self, folder: str) -> Iterator[BlobFile]:
        if not self._is_ours(folder):
            return
        try:
            with os.scandir(self.root / folder) as entries:
                for entry in entries:
                    if is_file(entry.name):
                        with suppress(FileNotFoundError):  # deleted meanwhile
                            yield BlobFile(folder, entry.name, entry.stat(follow_symlinks=False).st_size)
        except FileNotFoundError:
            return


@contextmanager
def _telling(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BlobsUnusable(
            f"{path}, where large values lie, cannot be {what}: {error.strerror or error}. "
            "Make room and give the right to it, or choose another place with the option blobs."
        ) from error
