"""Where stores are: fresh ones, copies of a filled one, and the bytes that they take on the disk."""

from __future__ import annotations

import asyncio
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.request import NotAvailable

__all__ = ["Places"]

SIZE = """SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') AND c.relkind IN ('r', 'm', 'p')"""


class Places:
    """Makes stores for single measurements.

    Args:
        folder: of SQLite files.
        server: url of PostgreSQL's maintenance database, or `None` where there is no server.
        why_not: why there is none.
    """

    def __init__(self, folder: Path, server: str | None, why_not: str = "") -> None:
        self._folder = folder
        self._server = server
        self._why_not = why_not

    @contextmanager
    def fresh(self, database: str, copy_of: str | None = None) -> Iterator[str]:
        """A store for one measurement.

        Args:
            database: `sqlite`, `postgresql`, or empty for none.
            copy_of: url of a store whose content it begins with; nobody may be connected to it.

        Raises:
            NotAvailable: there is no such database here.
        """
        name = f"b{uuid.uuid4().hex[:12]}"
        if database == "postgresql":
            if self._server is None:
                raise NotAvailable(self._why_not)
            template = f" TEMPLATE {copy_of.partition('?')[0].rpartition('/')[2]}" if copy_of else ""
            self._execute(f"CREATE DATABASE {name}{template}")
            head, _, query = self._server.partition("?")
            try:
                yield f"{head.rpartition('/')[0]}/{name}{'?' + query if query else ''}"
            finally:
                self._execute(f"DROP DATABASE {name} WITH (FORCE)")
            return
        folder = self._folder / name
        if copy_of:
            shutil.copytree(Path(copy_of.removeprefix("sqlite:///")).parent, folder)
            for path in folder.iterdir():  # else the first who syncs the file waits for the disk to take all of the copy
                with path.open("rb+") as file:
                    os.fsync(file.fileno())
        else:
            folder.mkdir()
        try:
            yield f"sqlite:///{folder / 'store.db'}" if database else ""
        finally:
            shutil.rmtree(folder)

    def bytes_of(self, url: str) -> int:
        """What a closed store takes on the disk, its log files included."""
        if url.startswith("postgresql"):
            return int(self._ask(url, SIZE))
        return sum(path.stat().st_size for path in Path(url.removeprefix("sqlite:///")).parent.rglob("*") if path.is_file())

    def settings(self) -> dict[str, str]:
        """What PostgreSQL promises."""
        if self._server is None:
            return {}
        names = ("server_version", "fsync", "synchronous_commit", "full_page_writes", "wal_sync_method")
        return {name: str(self._ask(self._server, f"SHOW {name}")) for name in names}

    def _execute(self, statement: str) -> None:
        assert self._server is not None
        self._ask(self._server, statement)

    def _ask(self, url: str, statement: str) -> Any:
        import asyncpg

        async def ask() -> Any:
            connection = await asyncpg.connect(url, timeout=5)
            try:
                return await connection.fetchval(statement)
            finally:
                await connection.close()

        return asyncio.run(ask())
