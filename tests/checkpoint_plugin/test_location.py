"""Which store a url names, and what of it is shown."""

from __future__ import annotations

import asyncio
import getpass
import os
import stat
import threading
import traceback
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.limits import Limits
from checkpoint_plugin.database.location import locate
from checkpoint_plugin.database.opening import open_database
from checkpoint_plugin.errors import StoreMissing, StoreUnreadable, StoreUrlInvalid
from checkpoint_plugin.store import Store
from tests.postgres import execute


def test_the_default_lies_below_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WORKFLOW_CHECKPOINT_URL", raising=False)
    assert locate(None).path == tmp_path / ".workflow" / "checkpoints.db"
    monkeypatch.setenv("WORKFLOW_CHECKPOINT_URL", "sqlite:///other.db")
    assert locate(None).path == tmp_path / "other.db"
    assert locate("sqlite:////x/y.db").path == Path("/x/y.db")


def test_an_empty_url_is_not_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKFLOW_CHECKPOINT_URL", "sqlite:///other.db")
    with pytest.raises(StoreUrlInvalid, match="the url of a store is empty"):
        locate("")
    monkeypatch.setenv("WORKFLOW_CHECKPOINT_URL", "")  # as unset, which is how shells switch a variable off
    assert locate(None).url == "sqlite:///.workflow/checkpoints.db"


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+asyncpg"])
def test_a_password_is_never_shown(scheme: str) -> None:
    found = locate(f"{scheme}://me:geheim@localhost:1/db")
    assert found.url == "postgresql://me:geheim@localhost:1/db"
    assert found.shown == f"{scheme}://localhost:1/db"
    assert "geheim" not in found.shown + repr(found)


@pytest.mark.parametrize(
    "rest",
    [
        "me:geheim@heim@h/db",
        "me:geheim/heim@h/db",
        "me:geheim?heim@h/db",
        "me:geheim#heim@h/db",
        "me:geheim/db",
        "me:geheim",
        "h/db?password=geheim",
        "h/db?password=geheim@heim",
        "me:geheim@h1:1,h2:2/db",
        "h/db;password=geheim",
    ],
)
async def test_nor_is_one_that_was_not_encoded(rest: str) -> None:
    location = locate(f"postgresql://{rest}")
    assert "heim" not in location.shown + repr(location)


@pytest.mark.parametrize(
    "url",
    [
        "me:geheim@h/db",
        "postgresql:/me:geheim@h",
        "postgresql://me:geheim@[::1/db",
        "host=h user=me password=geheim dbname=db",
        "postgresql:db?user=me&password=geheim",
        "me:geheim",
        "mysql://h/db;password=geheim",
    ],
)
def test_nor_in_what_is_refused(url: str) -> None:
    with pytest.raises(StoreUrlInvalid) as caught:
        locate(url)
    assert "heim" not in str(caught.value)


def test_a_name_that_is_no_url_is_told() -> None:
    with pytest.raises(StoreUrlInvalid, match=r"'runs/checkpoints\.db' names no store"):
        locate("runs/checkpoints.db")


async def test_a_url_that_asyncpg_cannot_read_is_told_without_its_parts() -> None:
    store = Store(locate("postgresql://me:geheim/db"), create=False)
    with pytest.raises(StoreUrlInvalid, match="cannot be read") as caught:
        await store.jobs()
    assert "geheim" not in "".join(traceback.format_exception(caught.value))
    await store.close()


@pytest.mark.parametrize("more", ["sslmode=disable", "statement_cache_size=0", "application_name=mine"])
async def test_a_url_may_say_more(postgres_url: str, more: str) -> None:
    store = Store(locate(f"{postgres_url}{'&' if '?' in postgres_url else '?'}{more}"), create=True)
    for _ in range(3):
        assert list(await store.jobs()) == []
    await store.close()


async def test_a_commit_is_on_the_disk_whatever_the_database_says(postgres_url: str) -> None:
    name = postgres_url.partition("?")[0].rpartition("/")[2]
    await execute(postgres_url, f"ALTER DATABASE {name} SET synchronous_commit = off")
    store = Store(locate(postgres_url), create=True)
    found = await store.transact(lambda c: c.execute(select(func.current_setting("synchronous_commit"))).scalar_one())
    await store.close()
    assert found == "on"


async def test_a_database_that_is_not_there_is_named(postgres_url: str) -> None:
    head, _, query = postgres_url.partition("?")
    store = Store(locate(f"{head}_nowhere?{query}"), create=True)
    with pytest.raises(StoreUnreadable, match='_nowhere" does not exist'):
        await store.jobs()
    await store.close()


def test_a_url_may_limit_each_wait() -> None:
    found = locate("sqlite:///x.db?busy_seconds=2.5")
    assert (found.limits.busy_seconds, found.shown, found.path) == (2.5, "sqlite:///x.db", Path("x.db").absolute())
    url = "postgresql://me:geheim@h/db?connect_timeout=1&statement_seconds=2&lock_seconds=3&reconnect_seconds=4&sslmode=disable"
    found = locate(url)
    assert found.limits == Limits(connect_seconds=1, statement_seconds=2, lock_seconds=3, reconnect_seconds=4)
    assert (found.url, found.dsn) == (url, "postgresql://me:geheim@h/db?sslmode=disable")
    assert (found.shown, found.schema, found.pooled) == ("postgresql://h/db", None, False)
    found = locate("postgresql://me:geheim@h/db?connections=16")
    assert (found.limits.connections, found.dsn) == (16, "postgresql://me:geheim@h/db")
    found = locate("postgresql://me:geheim@h/db?schema=runs&pgbouncer=1")
    assert (found.shown, found.schema, found.pooled) == ("postgresql://h/db?schema=runs", "runs", True)
    assert found.dsn == "postgresql://me:geheim@h/db"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("sqlite:///x.db?busy_second=2", "Did you mean 'busy_seconds'"),
        ("sqlite:///x.db?schema=2", "no parameter 'schema'"),
        ("sqlite:///x.db?busy_seconds=", "busy_seconds is a number of seconds above 0"),
        ("sqlite:///x.db?connection=2", "Did you mean 'connections'"),
        ("sqlite:///x.db?connections=0", r"connections is a whole number from 1 to 1000\. Write it like \?connections=8"),
        ("postgresql://me:geheim@h/db?connections=1001", "connections is a whole number"),
        ("postgresql://me:geheim@h/db?connections=geheim", "connections is a whole number"),
        ("postgresql://me:geheim@h/db?connections=%C2%B2", "connections is a whole number"),
        ("postgresql://me:geheim@h/db?connect_seconds=0", "connect_seconds is a number"),
        ("postgresql://me:geheim@h/db?lock_seconds=nan", "lock_seconds is a number"),
        ("postgresql://me:geheim@h/db?reconnect_seconds=1e9", "reconnect_seconds is a number"),
        ("postgresql://me:geheim@h/db?statement_seconds=geheim", "statement_seconds is a number"),
        ("postgresql://me:geheim@h/db?pgbouncer=geheim", "pgbouncer is 1 or 0"),
        ("postgresql://me:geheim@h/db?schema=a%22b", "schema is a name"),
        ("postgresql://me:geheim@h/db?schema=", "schema is a name"),
        ("postgresql://me:geheim@h/db?schema=pg_runs", "schema is a name"),
        ("postgresql://me:geheim@h/db?connections=2&connections=2", "'connections' is given twice. Give it once"),
        ("postgresql://me:geheim@h/db?sslmode=geheim&sslmode=geheim", "'sslmode' is given twice"),
        ("sqlite:///x.db?busy_seconds=1&busy_seconds=2", "'busy_seconds' is given twice"),
    ],
)
def test_a_parameter_that_makes_no_sense_is_told(url: str, told: str) -> None:
    with pytest.raises(StoreUrlInvalid, match=told) as caught:
        locate(url)
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "mysql://u:geheim@h/d",
        "sqlite:",
        "sqlite://",
        "sqlite:///",
        "/x.db",
        "sqlite:///x?mode=memory",
        "sqlite:///:memory:",
        "sqlite:///a\0b",
    ],
)
def test_anything_else_is_refused(url: str) -> None:
    with pytest.raises(StoreUrlInvalid, match="names no store") as caught:
        locate(url)
    assert "geheim" not in str(caught.value)


async def test_an_unreachable_server_is_named_without_its_password() -> None:
    store = Store(locate("postgresql://me:geheim@127.0.0.1:1/db"), create=False)
    with pytest.raises(StoreUnreadable, match=r"127\.0\.0\.1") as caught:
        await store.jobs()
    assert "geheim" not in str(caught.value)
    await store.close()


@pytest.mark.parametrize("error", [KeyError("getpwuid(): uid not found: 4321"), ImportError("No module named 'pwd'")])
async def test_a_process_of_a_number_that_no_account_has_must_name_a_user(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container that is started under any number."""

    def refuse() -> str:
        raise error

    monkeypatch.setattr(getpass, "getuser", refuse)
    monkeypatch.delenv("PGUSER", raising=False)
    store = Store(locate("postgresql://localhost:1/name"), create=False)
    with pytest.raises(StoreUrlInvalid, match="names no user, and the system knows none for this process"):
        await store.jobs()
    await store.close()


async def test_a_root_certificate_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container without a home."""
    monkeypatch.setenv("HOME", str(tmp_path))
    store = Store(locate("postgresql://ann:geheim@localhost:1/name?sslmode=verify-full"), create=False)
    with pytest.raises(StoreUrlInvalid, match=r"root certificate file .*root\.crt\" does not exist") as caught:
        await store.jobs()
    assert "geheim" not in str(caught.value)
    await store.close()


def test_a_current_folder_that_is_gone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    with pytest.raises(StoreUrlInvalid, match="current folder, which was deleted"):
        locate("sqlite:///checkpoints.db")
    assert locate("sqlite:////x/y.db").path == Path("/x/y.db")


async def test_a_commit_to_a_file_is_on_the_disk(tmp_path: Path) -> None:
    store = Store(locate(f"sqlite:///{tmp_path / 'c.db'}"), create=True)

    def pragmas(connection: Connection) -> list[Any]:
        names = ("journal_mode", "synchronous", "fullfsync", "checkpoint_fullfsync", "foreign_keys", "mmap_size")
        return [connection.core.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in names]

    assert await store.transact(pragmas) == ["wal", 2, 1, 1, 1, 0]
    await store.close()


async def test_a_closed_store_leaves_no_thread_and_no_task(store_url: str) -> None:
    before = set(threading.enumerate()), asyncio.all_tasks()
    store = Store(locate(store_url), create=True)
    await store.jobs()
    await store.close()
    threads = {thread for thread in threading.enumerate() if not thread.name.startswith("asyncio_")}  # the loop's own pool
    assert (threads, asyncio.all_tasks()) == before


async def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "folder" / "c.db"
    store = Store(locate(f"sqlite:///{path}"), create=True)
    await store.jobs()
    modes = {stat.S_IMODE(found.stat().st_mode) for found in path.parent.iterdir()}
    assert modes == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    await store.close()


def test_reading_creates_nothing(tmp_path: Path) -> None:
    with pytest.raises(StoreMissing, match="there is no store"):
        open_database(locate(f"sqlite:///{tmp_path / 'no' / 'c.db'}"), create=False)
    assert os.listdir(tmp_path) == []


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    path.write_bytes(b"no database at all" * 100)
    store = Store(locate(f"sqlite:///{path}"), create=False)
    with pytest.raises(StoreUnreadable, match="not a database"):
        await store.jobs()
    await store.close()
    assert path.read_bytes() == b"no database at all" * 100
