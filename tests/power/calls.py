"""Files that Python itself writes through `os`: recorded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.power.trace import Trace

__all__ = ["recorded_calls"]


@contextmanager
def recorded_calls(trace: Trace) -> Iterator[None]:
    """While open, `os.open`, `write`, `ftruncate`, `fsync`, `mkdir`, `replace`, `rename`, `unlink` and `rmdir` tell the trace."""
    files: dict[int, tuple[int | None, Path]] = {}
    """By descriptor: the number of the file, `None` for a folder, and its path."""
    real = {name: getattr(os, name) for name in ("open", "close", "write", "ftruncate", "fsync", "mkdir", "unlink", "replace")}
    remove_folder = os.rmdir

    def absolute(path: Any) -> Path:
        return Path(os.path.abspath(os.fsdecode(path)))

    def followed(path: Any) -> Path | None:
        if isinstance(path, int):
            return None
        found = absolute(path)
        return found if trace.covers(found) or found == trace.root else None

    def on_open(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        found = followed(path)
        new = found is not None and not found.exists()
        handle: int = real["open"](path, flags, mode, dir_fd=dir_fd)
        if found is not None:
            number = None if found.is_dir() else trace.opened(found, new=new)
            files[handle] = number, found
            if number is not None and not new and flags & os.O_TRUNC:
                trace.truncated(number, 0)
        return handle

    def on_close(handle: int) -> None:
        files.pop(handle, None)
        real["close"](handle)

    def on_write(handle: int, data: Any) -> int:
        offset = os.lseek(handle, 0, os.SEEK_CUR) if handle in files else 0
        count: int = real["write"](handle, data)
        if handle in files:
            number, _ = files[handle]
            assert number is not None
            trace.written(number, offset, bytes(memoryview(data)[:count]))
        return count

    def on_truncate(handle: int, size: int) -> None:
        real["ftruncate"](handle, size)
        if handle in files:
            number, _ = files[handle]
            assert number is not None
            trace.truncated(number, size)

    def on_sync(handle: int) -> None:
        before = trace.position
        real["fsync"](handle)
        if handle in files:
            number, path = files[handle]
            if number is None:
                trace.folder_synced(path, before)
            else:
                trace.synced(number, before)

    def on_mkdir(path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        real["mkdir"](path, mode, dir_fd=dir_fd)
        if (found := followed(path)) is not None:
            trace.made(found)

    def on_replace(old: Any, new: Any, **more: Any) -> None:
        real["replace"](old, new, **more)
        if followed(old) is not None:
            trace.renamed(absolute(old), absolute(new))

    def on_unlink(path: Any, *, dir_fd: int | None = None) -> None:
        real["unlink"](path, dir_fd=dir_fd)
        if (found := followed(path)) is not None:
            trace.removed(found)

    def on_rmdir(path: Any, *, dir_fd: int | None = None) -> None:
        remove_folder(path, dir_fd=dir_fd)
        if (found := followed(path)) is not None:
            trace.removed(found)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", on_open)
        patch.setattr(os, "close", on_close)
        patch.setattr(os, "write", on_write)
        patch.setattr(os, "ftruncate", on_truncate)
        patch.setattr(os, "fsync", on_sync)
        patch.setattr(os, "fdatasync", on_sync)
        patch.setattr(os, "mkdir", on_mkdir)
        patch.setattr(os, "replace", on_replace)
        patch.setattr(os, "rename", on_replace)
        patch.setattr(os, "unlink", on_unlink)
        patch.setattr(os, "remove", on_unlink)
        patch.setattr(os, "rmdir", on_rmdir)
        yield
