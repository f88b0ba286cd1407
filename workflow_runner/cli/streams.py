"""Standard streams: that nobody reads them, what their encoding lacks, or that a device is full, decides nothing about what a
command does; nor does a node that closes them."""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["UNWRITTEN", "printing_aside", "settle", "standard_streams"]

UNWRITTEN: Final = 74
"""The exit code where all was well but standard output, which could not be written."""
STANDARD_ERROR: Final = 2
UNREAD: Final = frozenset({errno.EPIPE, errno.ECONNRESET, errno.EBADF})
"""Errors of a stream that nobody reads: the other end is closed, or it is itself."""


class Outlet(io.FileIO):
    """Where a standard stream leads. After an error the rest is dropped: who prints is not told, a node's body for example.

    Args:
        number: of the file, which stays open.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number, "w", closefd=False)
        self.error: OSError | None = None
        device = stat.S_ISCHR(os.fstat(number).st_mode)
        self._unread = UNREAD | {errno.EIO} if device else UNREAD  # EIO: the terminal is gone
        self._dropped = False

    def write(self, data: ReadableBuffer, /) -> int:
        """Write, or drop."""
        if not self._dropped:
            try:
                return super().write(data)
            except OSError as error:
                self._dropped = True
                self.error = error if error.errno not in self._unread else None
        return memoryview(data).nbytes

    def close(self) -> None:
        """Nothing is open."""


class Buffer(io.BufferedWriter):
    """What a standard stream has not written yet. It stays open for all that is printed after who closes it."""

    def close(self) -> None:
        """Write."""
        self.flush()


class Text(io.TextIOWrapper):
    """A standard stream. It stays open, too: a node may say `with sys.stdout:`, or put its own in the place of this one."""

    def close(self) -> None:
        """Write."""
        self.flush()


@contextmanager
def standard_streams() -> Iterator[None]:
    """As long as the context lasts, errors of the process's own streams reach nobody; streams that are closed lead nowhere.

    What the encoding of a stream lacks is escaped, as Python does it on standard error only.
    """
    # In this order each gets the number that belongs to it, which otherwise the next file would get: a database, for example.
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, _open_nothing())
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(_guarded, before)
    try:
        yield
    finally:
        _flush()
        sys.stdout, sys.stderr = before


@contextmanager
def printing_aside() -> Iterator[None]:
    """As long as the context lasts, all that is printed goes to standard error: by bodies, and by programs that they start."""
    outlet = _outlet(sys.stdout)
    with redirect_stdout(sys.stderr):
        if not isinstance(outlet, Outlet):  # that of a test, which no program that is started can reach
            yield
            return
        number = outlet.fileno()
        kept = os.dup(number)
        os.dup2(STANDARD_ERROR, number)
        try:
            yield
        finally:
            os.dup2(kept, number)
            os.close(kept)


def settle(code: int) -> int:
    """Write what is not written yet, and tell of standard output that could not be.

    Args:
        code: how the command ended.

    Returns:
        The exit code: the same, or `UNWRITTEN` in the place of 0.
    """
    _flush()
    outlet = _outlet(sys.stdout)
    if not isinstance(outlet, Outlet) or outlet.error is None:
        return code
    told = outlet.error.strerror or outlet.error
    print(f"Error: standard output could not be written: {told}. Make room, or lead it elsewhere.", file=sys.stderr, flush=True)
    return code or UNWRITTEN


def _open_nothing() -> TextIO:
    outlet = io.FileIO(os.open(os.devnull, os.O_RDWR), "r+", closefd=False)
    return io.TextIOWrapper(outlet, encoding="utf-8", errors="backslashreplace", write_through=True)


def _guarded(stream: TextIO) -> TextIO:
    outlet = _outlet(stream)
    if not isinstance(stream, io.TextIOWrapper) or type(outlet) is not io.FileIO:
        return stream  # not one that Python opened: that of a test, or of a console of Windows
    stream.flush()
    guard = Outlet(outlet.fileno())
    return Text(
        guard if outlet is stream.buffer else Buffer(guard),  # the first with `python -u`
        encoding=stream.encoding,
        errors="backslashreplace",
        newline=os.linesep,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _outlet(stream: TextIO | None) -> object:
    """What a text stream writes to in the end."""
    buffer = getattr(stream, "buffer", None)
    return getattr(buffer, "raw", buffer)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with suppress(OSError, ValueError):  # that of a caller, or one that a node has closed
                stream.flush()
