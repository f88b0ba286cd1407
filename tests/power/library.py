"""The SQLite library that the standard library's sqlite3 uses, by its C interface: its default file system, recorded.

A copy of the default VFS becomes the default. It differs in the two functions that open and delete files; a file that it opens
keeps its own methods but for those that write, truncate and sync, which tell the trace when they have succeeded. A sync that
is not a full one is none, as on macOS.
"""

from __future__ import annotations

import _sqlite3
import ctypes
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import CFUNCTYPE, POINTER, Structure, c_char_p, c_int, c_int64, c_void_p
from pathlib import Path
from typing import Any, Final

from tests.power.trace import Trace

__all__ = ["LibraryHidden", "find_library", "recorded_library"]

OK: Final = 0
VERSION: Final = 3
"""Of the two structures below; newer ones only have more at their ends, which a copy would lack."""
SYNC_FULL: Final = 0x3
"""How a sync is asked for that macOS, too, brings to the disk itself, and not only to its cache."""
OPEN_CREATE: Final = 0x4
JOURNALS: Final = 0x800 | 0x4000 | 0x80000
"""A main journal, a super-journal, a log: of these a first sync also syncs the folder, if they were opened to be created."""

Close = CFUNCTYPE(c_int, c_void_p)
Write = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
Truncate = CFUNCTYPE(c_int, c_void_p, c_int64)
Sync = CFUNCTYPE(c_int, c_void_p, c_int)
Open = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, POINTER(c_int))
Delete = CFUNCTYPE(c_int, c_void_p, c_char_p, c_int)


class LibraryHidden(Exception):
    """Raised where this Python's SQLite cannot be reached through ctypes."""


class Methods(Structure):
    """`sqlite3_io_methods`, version 3."""

    _fields_ = [
        ("version", c_int),
        ("close", c_void_p),
        ("read", c_void_p),
        ("write", c_void_p),
        ("truncate", c_void_p),
        ("sync", c_void_p),
        ("others", c_void_p * 13),
    ]


class File(Structure):
    """`sqlite3_file`: what follows belongs to the VFS."""

    _fields_ = [("methods", POINTER(Methods))]


class Vfs(Structure):
    """`sqlite3_vfs`, version 3."""

    _fields_ = [
        ("version", c_int),
        ("file_size", c_int),
        ("max_path", c_int),
        ("next", c_void_p),
        ("name", c_char_p),
        ("data", c_void_p),
        ("open", c_void_p),
        ("delete", c_void_p),
        ("others", c_void_p * 14),
    ]


def find_library() -> Any:
    """The library, through ctypes.

    Raises:
        LibraryHidden: this Python's SQLite cannot be reached.
    """
    # The extension module depends on the library, or holds it; so do the libraries that are loaded already, or Python itself.
    for place in (getattr(_sqlite3, "__file__", None), None):
        found = ctypes.CDLL(place)
        if hasattr(found, "sqlite3_vfs_find"):
            version = ctypes.cast(found.sqlite3_libversion, CFUNCTYPE(c_char_p))()
            if version.decode() != sqlite3.sqlite_version:
                continue  # another one that something else has loaded
            found.sqlite3_vfs_find.restype = POINTER(Vfs)
            found.sqlite3_vfs_find.argtypes = [c_char_p]
            found.sqlite3_vfs_register.argtypes = [POINTER(Vfs), c_int]
            found.sqlite3_vfs_unregister.argtypes = [POINTER(Vfs)]
            return found
    raise LibraryHidden("this Python has SQLite built in without its C interface. Use one that links libsqlite3.")


def _address(function: Any) -> int | None:
    return ctypes.cast(function, c_void_p).value


class Recorder:
    """Callbacks for one trace; kept alive as long as SQLite may call them.

    Args:
        original: the VFS that does the work.
        trace: what is told.
    """

    def __init__(self, original: Vfs, trace: Trace) -> None:
        assert original.version == VERSION, f"a VFS of version {original.version}"
        self._trace = trace
        self._open_original = Open(original.open)
        self._delete_original = Delete(original.delete)
        self._kept: dict[int, tuple[Methods, list[Any]]] = {}
        self._files: dict[int, tuple[int, Path, bool]] = {}
        """By the address of an open file: its number, its path, whether its next sync also syncs its folder."""
        self._errors: list[BaseException] = []
        self._callbacks = [Open(self._guarded(self._open)), Delete(self._guarded(self._delete))]
        self.vfs = Vfs.from_buffer_copy(original)
        self.vfs.name = b"recorded"
        self.vfs.next = None
        self.vfs.open, self.vfs.delete = map(_address, self._callbacks)

    def check(self) -> None:
        """Raise what went wrong inside a callback, where nothing can be raised."""
        if self._errors:
            raise self._errors[0]

    def _guarded(self, callback: Callable[..., int]) -> Callable[..., int]:
        def guarded(*arguments: Any) -> int:
            try:
                return callback(*arguments)
            except BaseException as error:  # kept for check(): through C nothing can be raised
                self._errors.append(error)
                return 1

        return guarded

    def _open(self, vfs: int, name: int | None, file: int, flags: int, flags_out: Any) -> int:
        path = None if name is None else Path(os.fsdecode(ctypes.string_at(name)))
        followed = path is not None and self._trace.covers(path)
        new = followed and path is not None and not path.exists()
        code: int = self._open_original(vfs, name, file, flags, flags_out)
        if code == OK and followed and path is not None:
            number = self._trace.opened(path, new=new)
            self._files[file] = number, path, bool(flags & OPEN_CREATE and flags & JOURNALS)
            opened = File.from_address(file)
            opened.methods = ctypes.pointer(self._methods(opened.methods))
        return code

    def _methods(self, found: Any) -> Methods:
        """The same methods, but those that change something; one copy for each that the VFS has."""
        original: Methods = found.contents
        assert original.version == VERSION, f"methods of version {original.version}"
        key = ctypes.addressof(original)
        if key not in self._kept:
            close, write, truncate, sync = (
                Close(original.close),
                Write(original.write),
                Truncate(original.truncate),
                Sync(original.sync),
            )

            def on_close(file: int) -> int:
                self._files.pop(file, None)
                code: int = close(file)
                return code

            def on_write(file: int, data: int, count: int, offset: int) -> int:
                code: int = write(file, data, count, offset)
                if code == OK:
                    self._trace.written(self._files[file][0], offset, ctypes.string_at(data, count))
                return code

            def on_truncate(file: int, size: int) -> int:
                code: int = truncate(file, size)
                if code == OK:
                    self._trace.truncated(self._files[file][0], size)
                return code

            def on_sync(file: int, flags: int) -> int:
                before = self._trace.position
                code: int = sync(file, flags)
                if code == OK and flags & SYNC_FULL == SYNC_FULL:
                    number, path, with_folder = self._files[file]
                    self._trace.synced(number, before)
                    if with_folder:
                        self._trace.folder_synced(path.parent, before)
                        self._files[file] = number, path, False
                return code

            ours = Methods.from_buffer_copy(original)
            callbacks = [
                Close(self._guarded(on_close)),
                Write(self._guarded(on_write)),
                Truncate(self._guarded(on_truncate)),
                Sync(self._guarded(on_sync)),
            ]
            ours.close, ours.write, ours.truncate, ours.sync = map(_address, callbacks)
            self._kept[key] = ours, callbacks
        return self._kept[key][0]

    def _delete(self, vfs: int, name: bytes, sync_folder: int) -> int:
        path = Path(os.fsdecode(name))
        before = self._trace.position
        there = path.exists()
        code: int = self._delete_original(vfs, name, sync_folder)
        if code == OK and there and self._trace.covers(path):
            self._trace.removed(path)
            if sync_folder:
                self._trace.folder_synced(path.parent, before + 1)
        return code


@contextmanager
def recorded_library(trace: Trace) -> Iterator[None]:
    """While open, databases that sqlite3 opens tell the trace; they must be closed before it ends.

    Raises:
        LibraryHidden: this Python's SQLite cannot be reached.
    """
    library = find_library()
    original = library.sqlite3_vfs_find(None)
    recorder = Recorder(original.contents, trace)
    assert library.sqlite3_vfs_register(ctypes.byref(recorder.vfs), 1) == OK
    try:
        yield
    finally:
        assert library.sqlite3_vfs_unregister(ctypes.byref(recorder.vfs)) == OK
        assert library.sqlite3_vfs_register(original, 1) == OK
    recorder.check()
    assert not recorder._files, "a database is still open"
