"""Folders whose names are on the disk: without that a power cut takes what lies in them, however well it was synced itself."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

from checkpoint_plugin.database.syncing import sync

__all__ = ["make_folder", "sync_folder"]

NOT_SYNCABLE: Final = (errno.EBADF, errno.EINVAL, errno.ENOTSUP)
"""How file systems say that they know no sync of folders."""


def make_folder(path: Path) -> None:
    """Make a folder and those above it where there are none, for their owner only, and have their names on the disk.

    Raises:
        OSError: it cannot be made.
    """
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk; where the system lets nobody wait for that, do not.

    Raises:
        OSError: they cannot be brought there.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:
        return  # one may write into a folder that one may not read, and then this cannot be had: SQLite goes on, too
    try:
        sync(handle)
    except OSError as error:
        if error.errno not in NOT_SYNCABLE:
            raise
    finally:
        os.close(handle)
