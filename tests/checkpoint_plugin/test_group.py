"""What is written at the same time shares a transaction: who is refused in it, and what concerns all."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.location import locate
from checkpoint_plugin.errors import StoreBusy, StoreFull, StoreUnreadable
from checkpoint_plugin.models import JOB
from checkpoint_plugin.saving.group import GroupWriter
from checkpoint_plugin.store import RunHistory, Store
from checkpoint_plugin.tables.holder import Holder
from checkpoint_plugin.tables.lease import Lease
from hookspecs import Snapshot
from tests.checkpoint_plugin.test_store import definition


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    store = Store(locate(store_url), create=True)
    await store.insert_job("r", definition(), Holder.here())
    yield store
    await store.close()


@dataclass
class Tells:
    """Writes a word into the run's row, and then raises, perhaps."""

    word: str
    error: Exception | None = None
    run_id: str = "r"

    def encode(self) -> None: ...

    def write(self, connection: Connection) -> str:
        connection.execute(update(JOB).values(error_message=JOB.c.error_message + self.word))
        if self.error is not None:
            raise self.error
        return self.word


async def shared(store: Store, error: Exception) -> tuple[list[object], str]:
    """Write three words that share a transaction, the second of which raises; what came of each, and what is stored then."""
    await store.transact(lambda connection: connection.execute(update(JOB).values(error_message="")))
    alone, *together = Tells("alone "), Tells("a"), Tells("b", error), Tells("c")
    told = await asyncio.gather(*map(store.write, (alone, *together)), return_exceptions=True)
    row = await store.transact(lambda connection: connection.execute(select(JOB.c.error_message)).one(), write=False)
    assert told[0] == "alone "
    return list(told[1:]), row.error_message


async def test_one_that_is_refused_undoes_itself_alone(store: Store) -> None:
    error = ValueError("refused")
    assert await shared(store, error) == (["a", error, "c"], "alone ac")


async def test_what_undoes_the_transaction_is_told_to_all_who_share_it(store: Store) -> None:
    """A database that finds its disk full may have undone what it had before: nobody is told that it is written."""
    told, stored = await shared(store, OSError(errno.ENOSPC, "the disk is full"))
    assert all(isinstance(each, Exception) for each in told)
    assert stored == "alone "


@dataclass
class Fills:
    """Writes so many bytes."""

    size: int
    run_id: str = "r"

    def encode(self) -> None: ...

    def write(self, connection: Connection) -> int:
        connection.execute(update(JOB).values(error_message="x" * self.size))
        return self.size


async def test_who_fills_the_disk_fails_alone(tmp_path: Path) -> None:
    """That undoes the whole transaction; the others find room."""
    store = Store(locate(f"sqlite:///{tmp_path / 'c.db'}"), create=True)
    await store.insert_job("r", definition(), Holder.here())
    pages = await store.transact(lambda connection: connection.core.exec_driver_sql("PRAGMA page_count").scalar_one())
    await store.transact(lambda connection: connection.core.exec_driver_sql(f"PRAGMA max_page_count={pages + 10}").all())
    first, *together = await asyncio.gather(*(store.write(Fills(size)) for size in (1, 2, 1_000_000, 3)), return_exceptions=True)
    assert first == 1
    assert [each if isinstance(each, int) else type(each) for each in together] == [2, StoreFull, 3]
    await store.close()


async def test_who_ends_the_transaction_fails_alone_and_nobody_writes_outside_of_one(tmp_path: Path) -> None:
    """As want of memory may, an error that tells only of one write undoes those that were before it."""
    store = Store(locate(f"sqlite:///{tmp_path / 'c.db'}?busy_seconds=0.1"), create=True)
    await store.insert_job("r", definition(), Holder.here())
    ends = "CREATE TEMP TRIGGER ends UPDATE ON job WHEN NEW.error_message LIKE '%b' BEGIN SELECT RAISE(ROLLBACK, 'over'); END"
    await store.transact(lambda connection: connection.driver.execute(ends))
    (a, b, c), stored = await shared(store, ValueError("never reached"))
    assert (a, type(b), c, stored) == ("a", StoreUnreadable, "c", "alone ac")
    await store.close()


class Failing:
    """A database whose transactions fail as it is told, one after the other."""

    groups_saves = True

    def __init__(self, *errors: Exception | None) -> None:
        self.left = list(errors)

    async def transact(self, work: object, *, write: bool = True, before: object = None) -> list[str]:
        await asyncio.sleep(0)
        error = self.left.pop(0)
        if error is not None:
            raise error
        return ["written"]


async def together(database: Any) -> list[object]:
    """What came of three writes that waited for another one."""
    writer = GroupWriter(database)
    told = await asyncio.gather(*(writer.write(Tells(word)) for word in ("alone", *"abc")), return_exceptions=True)
    assert told[0] == "written"
    assert database.left == []
    database.left.append(None)
    assert await asyncio.wait_for(writer.write(Tells("later")), 4) == "written"
    return list(told[1:])


async def test_what_may_have_been_written_is_not_written_again() -> None:
    moved = StoreUnreadable("the file was moved")
    moved.undone = False
    assert await together(Failing(None, moved)) == [moved] * 3


async def test_of_those_who_are_written_one_by_one_nobody_waits_behind_another_who_was_kept_from_it() -> None:
    busy = StoreBusy("held by another program")
    assert await together(Failing(None, StoreFull("no room"), None, busy)) == ["written", busy, busy]


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("workflow-checkpoint")]


async def test_who_closes_a_store_waits_for_all_that_was_handed_over(store: Store) -> None:
    """The first is written by itself, and while it is nobody writes the others yet."""
    writes = [asyncio.create_task(store.write(Tells(word))) for word in "abc"]
    await asyncio.sleep(0)
    await store.close()
    assert [write.done() and write.result() for write in writes] == ["a", "b", "c"]
    assert threads() == []


async def test_a_close_that_is_cancelled_closes_all_the_same(store: Store) -> None:
    await store.renew(Lease("r", Holder.here(), 1, 0, datetime.now(UTC)), 30)  # by a connection of its own
    writes = [asyncio.create_task(store.write(Tells(word))) for word in "abc"]
    await asyncio.sleep(0)
    closing = asyncio.create_task(store.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert [write.done() and write.result() for write in writes] == ["a", "b", "c"]
    assert threads() == []


async def test_who_closes_a_store_waits_for_the_cuts_of_all_runs(store: Store) -> None:
    await store.insert_job("s", definition(), Holder.here())
    cuts = [Snapshot(run_id, 1, "running", (), datetime.now(UTC)) for run_id in "rs"]
    saves = [asyncio.create_task(store.save(RunHistory(cut.run_id, 1, 1), cut, "1")) for cut in cuts]
    for _ in range(3):  # they are on their way
        await asyncio.sleep(0)
    await store.close()
    assert [save.done() and save.result().number for save in saves] == [1, 1]
    assert threads() == []
