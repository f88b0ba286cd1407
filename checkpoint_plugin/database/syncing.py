"""Waiting until what was written is on the disk itself."""

from __future__ import annotations

import errno
import os
from types import ModuleType

try:
    import fcntl
except ImportError:  # Windows
    CONTROL: ModuleType | None = None
else:
    CONTROL = fcntl

__all__ = ["sync", "write_synced"]


def sync(handle: int) -> None:
    """Wait until what was written to a file, or into a folder, survives a power cut.

    Args:
        handle: of the open file or folder.

    Raises:
        OSError: it cannot be brought to the disk, or the file system knows no sync of it.
    """
    full = getattr(CONTROL, "F_FULLFSYNC", None)  # macOS: there `fsync` alone leaves it in the cache of the disk
    if CONTROL is not None and full is not None:
        try:
            CONTROL.fcntl(handle, full)
            return
        except OSError as error:
            if error.errno == errno.EIO:
                raise
            # Otherwise the file system has no such thing, and the other is all that can be had: SQLite goes on so, too.
    os.fsync(handle)


def write_synced(handle: int, data: bytes) -> None:
    """Write the whole, though the system takes less at once, and wait until it is on the disk.

    Args:
        handle: of the open file.
        data: what is written at its position.

    Raises:
        OSError: it cannot be written or brought to the disk.
    """
    left = memoryview(data)
    while left:
        left = left[os.write(handle, left) :]
    sync(handle)
