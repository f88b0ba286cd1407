"""SQLite: one connection, in one thread of its own."""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, TypeVar
from weakref import WeakSet

from checkpoint_plugin.database.connection import Connection, SqliteTransaction
from checkpoint_plugin.database.folders import make_folder, sync_folder
from checkpoint_plugin.database.location import Location
from checkpoint_plugin.database.refusal import (
    driver_error,
    is_of_a_row,
    is_of_an_argument,
    not_reached,
    of_sqlalchemy,
    unreadable,
)
from checkpoint_plugin.database.transaction import Save, Step
from checkpoint_plugin.database.unbroken import Unbroken
from checkpoint_plugin.database.worker import Worker
from checkpoint_plugin.errors import StoreBusy, StoreUnreadable

if TYPE_CHECKING:
    from sqlalchemy import Engine

__all__ = ["SqliteDatabase", "create_file", "is_there"]

T = TypeVar("T")
BESIDE_SECONDS = 1.0
UNHURRIED_SECONDS = 600.0
"""As long as an upgrade by another process may take."""
RETRY_SECONDS = 0.005
PAGES_TO_CHECKPOINT = 1_000
"""After so many pages in the log a commit moves them into the database."""
LOG_BYTES: Final = 16 << 20
"""To so many bytes the log is cut when it begins anew: a reader that stays keeps all that is written meanwhile in it."""
PAGES_TO_GIVE_BACK: Final = 1_000
SAFE: Final = {"synchronous": 2, "fullfsync": 1, "checkpoint_fullfsync": 1, "foreign_keys": 1, "mmap_size": 0}
"""On macOS `synchronous` alone leaves a commit in the cache of the disk; elsewhere the two after it change nothing."""
MEMORY: Final = 2
"""Of `temp_store`."""
TEMPORARY_FOLDERS: Final = ("/var/tmp", "/usr/tmp", "/tmp", ".")
"""Where SQLite looks for a place for temporary files, behind two variables of the environment."""
OPTIONAL: Final = {"mmap_size": 0}
"""What a library may be built without, which is as good."""


class SqliteDatabase:
    """One connection in one thread; a transaction costs one hop. WAL and synchronous=FULL: a commit survives power loss.

    Until the first transaction that writes the file is open for reading only. SQLite before 3.51.3 can damage a database when
    two connections move the log into it at once, so who only reads never does, not even when it is the last to leave.

    Args:
        location: of the file.
        busy_seconds: how long a transaction waits for those of others; default: as the location says.
        checkpoints: move the log into the database; off for a second connection of a process that has one that does.
    """

    groups_saves: ClassVar[bool] = True

    def __init__(self, location: Location, busy_seconds: float | None = None, *, checkpoints: bool = True) -> None:
        assert location.path is not None
        self._location = location
        self._busy = location.limits.busy_seconds if busy_seconds is None else busy_seconds
        self._checkpoints = checkpoints
        self._path = location.path
        self._name = os.fspath(location.path)
        self._worker = Worker("workflow-checkpoint")
        self._raw: sqlite3.Connection | None = None
        self._may_write = False
        self._closed = False
        self._engine: Engine | None = None
        self._place: tuple[int, int] | None = None
        _KNOWN.add(self)

    async def transact(
        self, work: Callable[[Connection], T], *, write: bool = True, before: Callable[[], object] | None = None
    ) -> T:
        return await self.compute(lambda: self._run(work, write, before))

    async def save(self, save: Save) -> bool:
        if save.is_light:
            save.encode()
            return await self.take(save)
        return await self._call(partial(self._save, save))

    async def take(self, step: Step[T]) -> T:
        return await self._call(partial(self._take, step))

    def _save(self, save: Save) -> bool:
        save.encode()
        return self._take(save)

    def _take(self, step: Step[T]) -> T:
        try:
            raw = self._opened(write=True)
            return self._whole(raw, True, lambda: step.write_sqlite(raw))
        except _refusals() as error:
            raise unreadable(self._location, error) from error

    async def give_back(self) -> None:
        def work() -> None:
            try:
                connection = self._opened(write=True)
                free = _free_pages(connection)
                while free:
                    # As a script: the driver takes one step of a statement without rows, which gives back one page. Some at
                    # a time: who saves meanwhile waits for these, and not for all.
                    connection.executescript(f"PRAGMA incremental_vacuum({PAGES_TO_GIVE_BACK})")
                    before, free = free, _free_pages(connection)
                    if free >= before:  # a file that was made without auto_vacuum
                        break
                self._empty_log(connection)
            except _refusals() as error:
                raise unreadable(self._location, error) from error

        await self.compute(work)

    async def rest(self) -> None:
        def work() -> None:
            if self._raw is None or not self._may_write or not self.stands():  # no other file has a part in this log
                return
            try:
                self._empty_log(self._opened(write=True))
            except _refusals() as error:
                raise unreadable(self._location, error) from error

        await self.compute(work)

    def _empty_log(self, connection: sqlite3.Connection) -> None:
        # Without waiting for readers: all who write, and who hold a run, would wait with it.
        connection.execute("PRAGMA busy_timeout=0")
        try:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            connection.execute(f"PRAGMA busy_timeout={round(1_000 * self._busy)}")

    async def compute(self, work: Callable[[], T]) -> T:
        return await Unbroken(self._call(work))

    async def _call(self, work: Callable[[], T]) -> T:
        try:
            return await self._worker.call(work)
        finally:
            if self._closed:  # meanwhile, or before: this has opened it again
                await self._end()

    def _run(self, work: Callable[[Connection], T], write: bool, before: Callable[[], object] | None) -> T:
        if before is not None:
            before()
        try:
            try:
                return self._try(work, write)
            except _refusals() as error:
                if write or getattr(driver_error(error), "sqlite_errorcode", None) != sqlite3.SQLITE_READONLY_ROLLBACK:
                    raise
            self._roll_back()
            return self._try(work, write)
        except _refusals() as error:
            raise unreadable(self._location, error) from error
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            if not is_of_a_row(error):
                raise
            if is_of_an_argument(error):
                raise unreadable(self._location, error) from error
            raise StoreUnreadable(
                f"a row of the store at {self._location.shown} is damaged ({type(error).__name__}: {str(error)[:200]}); nothing "
                "was changed. See which with `workflow db check`."
            ) from error

    def _try(self, work: Callable[[Connection], T], write: bool) -> T:
        raw = self._opened(write)
        with closing(SqliteTransaction(raw, self._engine_over)) as connection:
            return self._whole(raw, write, lambda: work(connection))

    def _whole(self, raw: sqlite3.Connection, write: bool, work: Callable[[], T]) -> T:
        """Do something in a transaction, which is committed when it returns."""
        # A writer takes its lock from the start: a read lock that becomes a write lock fails at once where two do it.
        raw.execute("BEGIN IMMEDIATE" if write else "BEGIN")
        try:
            found = work()
            raw.execute("COMMIT")  # a full disk may show only here
        except BaseException:
            if raw.in_transaction:  # some errors have ended it already
                raw.execute("ROLLBACK")
            raise
        if write:
            self._check_place()
        return found

    def _engine_over(self) -> Engine:
        """SQLAlchemy over the open connection."""
        if self._engine is None:
            from checkpoint_plugin.database.sqlite_engine import make_sqlite_engine  # takes longer than most transactions

            assert self._raw is not None
            self._engine = make_sqlite_engine(self._raw)
        return self._engine

    def _roll_back(self) -> None:
        """Undo what a crash left half done while the file was made, before it had a log: who only reads may not."""
        connection = self._open(write=True)
        try:
            connection.execute("PRAGMA schema_version").fetchall()
        finally:
            connection.close()

    def _opened(self, write: bool) -> sqlite3.Connection:
        """The database, open; the first that writes opens it again."""
        if self._raw is not None and (self._may_write or not write):
            return self._raw
        self._dispose()
        self._place = _place(self._name)
        if self._place in _INHERITED:
            raise StoreUnreadable(
                f"the store at {self._location.shown} was open in the process of which this one is a fork, and SQLite takes the "
                "locks of that one for its own; nothing was read or written. Start this process anew instead (`spawn`, not "
                "`fork`), or close the store before."
            )
        try:
            raw = self._open(write)
            try:
                if write:
                    self._use_wal(raw)
            except BaseException:
                raw.close()
                raise
        except BaseException:
            self._place = None
            raise
        self._raw, self._may_write, self._place = raw, write, _place(self._name)
        return raw

    def _check_place(self) -> None:
        """SQLite goes on writing to a file that was moved or deleted: what is acknowledged would be found by nobody."""
        if self._place != _place(self._name):
            error = StoreUnreadable(
                f"the store at {self._location.shown} was moved or deleted while it was written, and what was saved last is not "
                "there. Put the file and its -wal back, and resume the run."
            )
            error.undone = False
            raise error

    def _dispose(self) -> None:
        raw, self._raw, self._engine, self._place = self._raw, None, None, None
        if raw is not None:
            raw.close()

    def _open(self, write: bool) -> sqlite3.Connection:
        # Never rwc: a file that vanished is an error, not an empty database.
        connection = sqlite3.connect(
            f"{self._path.as_uri()}?mode={'rw' if write else 'ro'}",
            uri=True,
            timeout=self._busy,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.text_factory = _read_text
        try:
            pages = PAGES_TO_CHECKPOINT if write and self._checkpoints else 0
            self._set(connection, {**SAFE, "wal_autocheckpoint": pages, "journal_size_limit": LOG_BYTES})
            if not _has_temporary_folder():
                self._set(connection, {"temp_store": MEMORY})
        except BaseException:
            connection.close()
            raise
        return connection

    def _use_wal(self, raw: sqlite3.Connection) -> None:
        # Not when opened: it writes to the file, and who only reads, or is refused, leaves the file as it was.
        if raw.execute("PRAGMA page_count").fetchone() == (0,):
            raw.execute("PRAGMA auto_vacuum=2")  # incremental; only an empty database takes it
        deadline = time.monotonic() + self._busy
        while not self._has_wal(raw):
            if time.monotonic() > deadline:
                raise StoreBusy(f"the store at {self._location.shown} is held by another program. Close it there.")
            time.sleep(RETRY_SECONDS)

    def _has_wal(self, connection: sqlite3.Connection) -> bool:
        # Of several that do this to a new file, SQLite refuses all but one at once, without its busy timeout.
        try:
            self._set(connection, {"journal_mode": "wal"})
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:  # the rest tells the kind of busy
                raise
            return False
        return True

    def _set(self, connection: sqlite3.Connection, wanted: Mapping[str, object]) -> None:
        """Set pragmas and read them back."""
        for pragma, value in wanted.items():
            connection.execute(f"PRAGMA {pragma}={value}")
            (found,) = connection.execute(f"PRAGMA {pragma}").fetchone() or (OPTIONAL.get(pragma),)
            if found != value:
                raise StoreUnreadable(
                    f"the store at {self._location.shown} does not keep {pragma}={value} (it is {found}): saves there would not "
                    "survive power loss. Put it on a local disk."
                )

    def beside(self) -> SqliteDatabase:
        return SqliteDatabase(self._location, BESIDE_SECONDS, checkpoints=False)  # a thread and a connection of its own

    def stands(self) -> bool:
        return self._raw is None or self._place == _place(self._name)

    def told(self, error: Exception) -> Exception:
        return unreadable(self._location, error) if isinstance(error, _refusals()) else error

    def unhurried(self) -> SqliteDatabase:
        return SqliteDatabase(self._location, UNHURRIED_SECONDS, checkpoints=False)

    async def close(self) -> None:
        self._closed = True  # who is under way closes again what it opens
        await Unbroken(self._end())

    async def _end(self) -> None:
        try:
            await self._worker.call(self._dispose)
        finally:
            self._worker.close()  # it has nothing left to do: this waits for no work


def _refusals() -> tuple[type[BaseException], ...]:
    """What a refusal comes as; the second is one whose message quotes bytes of a damaged schema."""
    return sqlite3.Error, UnicodeDecodeError, *of_sqlalchemy("SQLAlchemyError")


_KNOWN: Final[WeakSet[SqliteDatabase]] = WeakSet()
_INHERITED: Final[set[tuple[int, int]]] = set()
"""Files that were open when this process was forked. SQLite counts their locks once a process, and a fork has none of them: where
the parent closes the file it deletes the log into which the fork writes."""


def _note_fork() -> None:
    _INHERITED.update(database._place for database in _KNOWN if database._place is not None)


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing is forked
    os.register_at_fork(after_in_child=_note_fork)


def _has_temporary_folder() -> bool:
    """Whether SQLite finds a place for what a large statement needs to be undone, or sorted. A container may have none."""
    folders = (os.environ.get("SQLITE_TMPDIR"), os.environ.get("TMPDIR"), *TEMPORARY_FOLDERS)
    return os.name == "nt" or any(folder and os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK) for folder in folders)


def _read_text(data: bytes) -> str:
    """A text, also one that a bit has made none: else nothing could be read that is read with it."""
    return data.decode("utf-8", "backslashreplace")


def _free_pages(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA freelist_count").fetchone()[0])


def _place(path: str) -> tuple[int, int] | None:
    """What tells one file from another that has taken its name; `None` where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def is_there(path: Path) -> bool:
    """Whether there is such a file.

    Raises:
        StoreUnreadable: it cannot be looked for.
    """
    try:
        return path.is_file()
    except OSError as error:
        raise not_reached(path, error, "read") from error


def create_file(path: Path) -> None:
    """Make the file and its folder where there are none, for their owner only.

    Raises:
        StoreUnreadable: they cannot be made.
    """
    try:
        if path.is_file():
            return
        make_folder(path.parent)
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except FileExistsError:
            if path.is_file():  # a thread was faster: to close it here would take the locks from its connection
                return
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            if not path.is_file():  # a pipe, for which SQLite would wait, or a device
                raise OSError(errno.EINVAL, "it is no file") from None
        sync_folder(path.parent)
    except OSError as error:
        raise not_reached(path, error, "created") from error
