"""What to tell when a database refuses: what it says, and what to do about it."""

from __future__ import annotations

import errno
import os
import sqlite3
import sys
from pathlib import Path
from typing import Final

from checkpoint_plugin.database import sqlite_rows
from checkpoint_plugin.database.location import Location
from checkpoint_plugin.database.sqlite_values import ValueRefused
from checkpoint_plugin.errors import StoreBusy, StoreFull, StoreReadOnly, StoreUnreadable, ValueNotStorable

__all__ = [
    "concerns_all",
    "driver_error",
    "is_of_a_row",
    "is_of_an_argument",
    "not_reached",
    "of_sqlalchemy",
    "told_by",
    "unreadable",
]

FULL: Final = (errno.ENOSPC, errno.EDQUOT)
FORBIDDEN: Final = (errno.EACCES, errno.EPERM, errno.EROFS)
MOVED: Final = 1032
"""SQLITE_READONLY_DBMOVED, which the standard library has no name for before Python 3.11.4."""
DISK_FULL: Final = "53100"
LOCK_NOT_AVAILABLE: Final = "55P03"
QUERY_CANCELED: Final = "57014"
GAVE_WAY: Final = ("40001", "40P01")
"""To a concurrent update, to what a standby replays, or in a circle of locks: all of it was undone."""
FORBIDDEN_STATES: Final = ("25006", "42501")
OF_A_VALUE: Final = ("22000", "22003", "22021", "54000")
"""What asyncpg gives to a value that it cannot send, a number out of range, NUL in a text, and one too long for an index."""
NOT_BOUND: Final = "Error binding parameter"
MAY_NOT_MAKE: Final = ("permission denied for database", "permission denied for schema")


def of_sqlalchemy(*names: str) -> tuple[type[BaseException], ...]:
    """Errors of SQLAlchemy, by their names; none as long as nothing has imported it, for then nothing has raised one."""
    module = sys.modules.get("sqlalchemy.exc")
    return tuple(getattr(module, name) for name in names if hasattr(module, name))


def unreadable(location: Location, error: BaseException) -> StoreUnreadable | ValueNotStorable:
    """What to tell: the first line of what the database says, and never more of the url than may be shown.

    Args:
        location: of the store.
        error: what the driver raised.
    """
    cause = driver_error(error)
    text = told_by(cause)
    what = f"the store at {location.shown}"
    if is_of_an_argument(error):
        return ValueNotStorable(f"a value that was given to {what}", f"{text.rstrip('.')}. Give another one.")
    code = getattr(cause, "sqlite_errorcode", None)
    told: StoreUnreadable | None = None
    if isinstance(error, of_sqlalchemy("TimeoutError")):
        told = StoreBusy(
            f"{what} is used by so much at once that none of its connections was free. Give it more: ?connections=16."
        )
    elif isinstance(code, int):
        told = _sqlite(what, text, code, location)
    elif isinstance(state := getattr(cause, "sqlstate", None), str):
        told = _postgresql(what, text, state)
    return told or StoreUnreadable(f"{what} cannot be used: {text}. Check that it is there and can be written.")


def concerns_all(error: Exception) -> bool:
    """Whether an error in one of several writes of a transaction undoes the others, too: the connection, the disk."""
    if getattr(error, "connection_invalidated", False):
        return True
    return isinstance(error, (OSError, sqlite3.OperationalError, *of_sqlalchemy("OperationalError", "PendingRollbackError")))


def is_of_an_argument(error: BaseException) -> bool:
    """Whether a database, or its driver, did not take a value that it was given: whatever is stored is as it was."""
    if isinstance(error, (UnicodeEncodeError, ValueRefused)):
        return True
    if isinstance(error, OverflowError):  # SQLAlchemy gave it to the driver; else a time was made of what a row holds
        return _raised_in(error).startswith("sqlalchemy.")
    if isinstance(error, of_sqlalchemy("StatementError")) and not isinstance(error, of_sqlalchemy("DBAPIError")):
        original = getattr(error, "orig", None)  # of a value on its way to the driver
        return not isinstance(original, of_sqlalchemy("SQLAlchemyError"))
    cause = driver_error(error)
    if isinstance(cause, sqlite3.Error):
        return str(cause).startswith(NOT_BOUND)
    return getattr(cause, "sqlstate", None) in OF_A_VALUE


def is_of_a_row(error: Exception) -> bool:
    """Whether an error was raised where a value is made of what a row holds: SQLite keeps anything in any column."""
    name = _raised_in(error)
    return name == sqlite_rows.__name__ or name.partition(".")[0] in ("sqlalchemy", "sqlmodel")


def _raised_in(error: BaseException) -> str:
    """The module that raised an error."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else str(trace.tb_frame.f_globals.get("__name__"))


def driver_error(error: BaseException) -> BaseException:
    """What the driver raised, without the wrappings of SQLAlchemy."""
    original = getattr(error, "orig", None)
    if isinstance(error, of_sqlalchemy("DBAPIError")) and isinstance(original, BaseException):
        return original.__cause__ or original
    return error


def told_by(error: BaseException) -> str:
    """The first line of what an error says, or else its kind."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def not_reached(path: Path, error: OSError, done: str) -> StoreUnreadable:
    """What to tell when a file cannot be made, or looked for.

    Args:
        path: of the file.
        error: what the system said.
        done: what was to be done with it.
    """
    what = f"the store {path} cannot be {done}: {error.strerror}."
    if error.errno in FULL:
        return StoreFull(f"{what} Make room on the disk, or choose another place with its url.")
    if error.errno in FORBIDDEN:
        return StoreReadOnly(f"{what} Give this user the right to write there, or choose another place with its url.")
    return StoreUnreadable(f"{what} Choose another place with its url.")


def _sqlite(what: str, text: str, code: int, location: Location) -> StoreUnreadable | None:
    if code == MOVED:
        return StoreUnreadable(f"{what} cannot be used: its file was moved or deleted. Put it back, and resume the run.")
    match code & 0xFF:  # the rest tells the kind
        case sqlite3.SQLITE_FULL:
            return StoreFull(f"{what} cannot be written: {text}; nothing was. Make room on its disk, and resume the run.")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return _read_only(what, text, location.path, _not_writable(location.path))
        case sqlite3.SQLITE_CANTOPEN if wrong := _not_writable(location.path):  # else it may be the number of open files
            return _read_only(what, text, location.path, wrong)
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StoreBusy(f"{what} is held by another program ({text}). Let that finish, or wait longer with ?busy_seconds=.")
        case sqlite3.SQLITE_IOERR if code == sqlite3.SQLITE_IOERR_SHMSIZE:
            return StoreFull(
                f"{what} cannot be used: there is no room for its -shm file ({text}); nothing was written. Make room on its "
                "disk, and resume the run."
            )
        case sqlite3.SQLITE_IOERR:
            return StoreUnreadable(f"{what} cannot be used: {text}. Look for the disk's faults in the log of the system.")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return StoreUnreadable(f"{what} cannot be used: {text}. Restore the file from a copy, or name another.")
    return None


def _not_writable(path: Path | None) -> list[str]:
    """The file or its folder, where this user may not write them."""
    if path is None or not os.path.isfile(path):  # `Path.is_file` raises where this user may not enter the folder
        return []
    return [str(name) for name in (path, path.parent) if not os.access(name, os.W_OK)]


def _read_only(what: str, text: str, path: Path | None, wrong: list[str]) -> StoreReadOnly:
    which = " and ".join(wrong) or f"{path} or its folder"
    return StoreReadOnly(
        f"{what} cannot be used: {text}: this user has no right to write {which}, and the log beside the file needs both. "
        "Give it that right, or work on a copy."
    )


def _postgresql(what: str, text: str, state: str) -> StoreUnreadable | None:
    if state == DISK_FULL:
        return StoreFull(f"{what} cannot be written: {text}; nothing was. Make room on the disk of the server.")
    if state == LOCK_NOT_AVAILABLE:
        return StoreBusy(
            f"{what} did not give a lock in time ({text}). See who holds it in pg_locks, or wait longer with ?lock_seconds=."
        )
    if state == QUERY_CANCELED:
        return StoreBusy(
            f"{what} did not answer in time ({text}). See what its server does, or wait longer with ?statement_seconds=."
        )
    if state in GAVE_WAY:
        return StoreBusy(f"{what} was used by others at the same time, again and again ({text}). Try again when they are done.")
    if state in FORBIDDEN_STATES and text.startswith(MAY_NOT_MAKE):
        return StoreReadOnly(
            f"{what} has no tables, and this role may not make them: {text}. Let a role that may run a workflow there once, or "
            "grant this one CREATE until then."
        )
    if state in FORBIDDEN_STATES:
        return StoreReadOnly(f"{what} cannot be used: {text}. Grant the role SELECT, INSERT, UPDATE and DELETE on the tables.")
    return None
