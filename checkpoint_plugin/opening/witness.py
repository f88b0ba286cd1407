"""The witness: a small file that remembers the newest checkpoint of a run outside the database.

A disk that loses the tail of what it acknowledged leaves an older database that is valid in itself: only what is kept
elsewhere can tell.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Final

from checkpoint_plugin.database.folders import make_folder, sync_folder
from checkpoint_plugin.database.syncing import write_synced
from checkpoint_plugin.errors import StoreDamaged, StoreUnreadable
from checkpoint_plugin.stored_bytes.digests import text_bytes

__all__ = ["Witness"]

NAME_SIZE: Final = 16
LARGEST: Final = 1 << 16
"""Bytes; what is noted has a tenth of that at most."""
NOT_WAITING: Final = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
"""For who writes to a pipe that stands in the place of a file; and as Windows is told that it must not change line ends."""


class Witness:
    """One file a run in a folder, best on another disk than the store.

    Args:
        folder: where; made when the first checkpoint is noted.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)

    def path(self, run_id: str) -> Path:
        """The file of a run: an id may hold anything, a digest of it is a name."""
        return self._folder / f"{hashlib.blake2b(text_bytes(run_id), digest_size=NAME_SIZE).hexdigest()}.json"

    def knows(self, run_id: str) -> bool:
        """Whether there is something to compare a run with; where nobody can look, `check` tells why."""
        try:
            return self.path(run_id).exists()
        except OSError:
            return True

    def note(self, run_id: str, number: int, cut_hash: bytes) -> None:
        """Remember a checkpoint that is durable in the store.

        Raises:
            StoreUnreadable: the file cannot be written.
        """
        path = self.path(run_id)
        data = json.dumps({"run_id": run_id, "number": number, "hash": cut_hash.hex()}).encode()
        try:
            make_folder(self._folder)
            _replace(path, data)
        except OSError as error:
            raise StoreUnreadable(
                f"the witness {path} cannot be written: {error.strerror}. Choose another folder with the option witness."
            ) from error

    def forget(self, run_id: str) -> None:
        """A run was made: what was noted is of another one, which had this id before and was deleted.

        Raises:
            StoreUnreadable: the file cannot be deleted.
        """
        path = self.path(run_id)
        try:
            path.unlink()
            sync_folder(path.parent)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            raise StoreUnreadable(
                f"the witness {path} of an earlier run of this id cannot be deleted: {error.strerror}. Delete it by hand."
            ) from error

    def check(self, run_id: str, number: int, cut_hash: bytes | None) -> None:
        """Compare what the store has with what was noted.

        Args:
            run_id: the run.
            number: of its newest checkpoint, 0 without one.
            cut_hash: of that one.

        Raises:
            StoreDamaged: the store has lost checkpoints, or has another one of the same number.
            StoreUnreadable: the file cannot be read.
        """
        path = self.path(run_id)
        try:
            noted = json.loads(_read(path))
            known, known_hash = int(noted["number"]), bytes.fromhex(noted["hash"])
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise StoreUnreadable(
                f"the witness {path} cannot be read. Restore it, or resume without the option witness."
            ) from error
        if known > number:
            what = f"checkpoint {known} was durable, and the newest that is there is {number}"
            raise StoreDamaged(run_id, what, has_others=number > 0)
        if known == number and cut_hash is not None and known_hash != cut_hash:
            raise StoreDamaged(run_id, "it is not the checkpoint that was written", number)


def _read(path: Path) -> bytes:
    """What is noted in a file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no file: a pipe says nothing, and a device has no end.
    """
    handle = os.open(path, os.O_RDONLY | NOT_WAITING)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ValueError("it is no file")
        with open(handle, "rb", closefd=False) as opened:
            return opened.read(LARGEST)
    finally:
        os.close(handle)


def _replace(path: Path, data: bytes) -> None:
    """Replace a file by one that is whole on the disk, so that a crash leaves the old or the new.

    Whoever writes makes one of its own: a run may have been taken from a worker that has just saved it, in another container,
    where a process may have the same number.
    """
    fresh = path.with_suffix(f".{os.urandom(NAME_SIZE).hex()}.new")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        try:
            write_synced(handle, data)
        finally:
            os.close(handle)
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
