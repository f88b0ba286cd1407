"""The event log, on both databases."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import threading
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from checkpoint_plugin import EventLogger
from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.location import locate
from checkpoint_plugin.errors import StoreDamaged, StoreMissing, StoreUnreadable, ValueNotStorable, WriterStopped
from checkpoint_plugin.events import log as events
from checkpoint_plugin.models import EVENT, EVENT_HEAD
from checkpoint_plugin.runs import batching
from checkpoint_plugin.store import Store
from hookspecs import TaggedValueError
from tests.checkpoint_plugin.event_writer import write


async def test_events_come_back_in_order_and_by_question(store_url: str) -> None:
    before = datetime.now(UTC)
    log = EventLogger("r", url=store_url)
    await log.start()
    await log.start()
    await log.log("created")
    await log.log("started", "a", {"try": (1, 2)})
    await log.log("started", node_id="b")
    await log.log("completed", "a")
    found = await log.events()
    assert [(e.seq, e.kind, e.node_id, e.payload) for e in found] == [
        (0, "created", None, {}),
        (1, "started", "a", {"try": (1, 2)}),
        (2, "started", "b", {}),
        (3, "completed", "a", {}),
    ]
    assert all(before <= e.time <= datetime.now(UTC) for e in found)
    assert [e.seq for e in await log.events(kind="started")] == [1, 2]
    assert [e.seq for e in await log.events(kind=["created", "completed"])] == [0, 3]
    assert [e.seq for e in await log.events(node_id="a")] == [1, 3]
    assert [e.seq for e in await log.events(after=1)] == [2, 3]
    assert [e.seq for e in await log.events(kind="started", node_id="b", after=0, limit=1)] == [2]
    assert await log.events(after=10**20) == []
    for unstorable in ("a\0", "a\udcff"):
        assert await log.events(node_id=unstorable) == await log.events(kind=unstorable) == []
        assert [e.seq for e in await log.events(kind=[unstorable, "created"])] == [0]
    assert [e.seq for e in await log.events(after=-(10**20), limit=10**20)] == [0, 1, 2, 3]
    await log.stop()
    await log.stop()
    assert await EventLogger("other", store_url).events() == []


def test_one_text_is_no_list_of_kinds() -> None:
    with pytest.raises(TypeError, match=r"blocking is a list of kinds, not the text 'paid'\. Give blocking=\['paid'\]"):
        EventLogger("r", blocking="paid")


@pytest.mark.parametrize("asked", [{"kind": [1]}, {"kind": [None]}, {"node_id": 5}], ids=["kind", "none", "node"])
async def test_events_are_asked_for_by_texts(tmp_path: Path, asked: dict[str, Any]) -> None:
    async with EventLogger("r", f"sqlite:///{tmp_path}/c.db") as log:
        await log.log("created")
        with pytest.raises(TypeError, match=r"and (1|None|5) is none\. Give kinds and a node's id as texts"):
            await log.events(**asked)


async def test_a_number_that_is_taken_is_damage_at_once(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No second try would mend it, and the log tries for a minute what a second try may."""
    store = Store(locate(store_url), create=True)
    async with EventLogger("r", store=store) as log:
        await log.log("created")
    await store.transact(lambda connection: connection.execute(update(EVENT_HEAD).values(next_seq=0)))

    async def wait(seconds: float) -> None:
        raise AssertionError(f"it is tried again in {seconds} s")

    monkeypatch.setattr(asyncio, "sleep", wait)
    log = EventLogger("r", store=store)
    await log.start()
    with pytest.raises(StoreDamaged, match="run 'r' is damaged: its log has an event 0 or later"):
        await log.log("created")
    with pytest.raises(WriterStopped):
        await log.stop()
    monkeypatch.undo()
    await store.close()


@pytest.mark.parametrize("damaged", ["{", "[1]", '{"$type": "unheard of"}'])
async def test_a_payload_that_was_changed_is_damage(store_url: str, damaged: str) -> None:
    store = Store(locate(store_url), create=True)
    async with EventLogger("r", store=store) as log:
        await log.log("started", "a", {"try": 1})
    await store.transact(lambda connection: connection.execute(update(EVENT).values(payload_json=damaged)))
    with pytest.raises(StoreDamaged, match="run 'r' is damaged: the payload of event 0"):
        await EventLogger("r", store=store).events()
    await store.close()


async def test_a_stop_makes_every_event_durable_and_ends_the_log(store_url: str) -> None:
    log = EventLogger("r", store_url)
    with pytest.raises(WriterStopped):
        await log.log("note")
    await log.start()
    for _ in range(321):
        await log.log("note")
    await log.stop()
    with pytest.raises(WriterStopped, match="takes nothing more"):
        await log.log("note")
    assert [e.seq for e in await log.events()] == list(range(321))
    await log.start()
    await log.log("note")
    await log.stop()
    assert [e.seq for e in await log.events(after=319)] == [320, 321]


async def test_a_stop_that_is_cancelled_is_over_when_it_tells_so(store_url: str) -> None:
    """Its task went on without a store, and kept a thread for ever."""
    log = EventLogger("r", store_url)
    await log.start()
    await log.log("note")
    stop = asyncio.create_task(log.stop())
    await asyncio.sleep(0)
    stop.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stop
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert "workflow-checkpoint" not in {thread.name for thread in threading.enumerate()}
    assert [e.kind for e in await EventLogger("r", store_url).events()] == ["note"]


@pytest.mark.parametrize(("kind", "node_id", "waits"), [("created", None, True), ("failed", "a", True), ("note", None, False)])
async def test_important_kinds_are_durable_when_log_returns(
    store_url: str, monkeypatch: pytest.MonkeyPatch, kind: str, node_id: str | None, waits: bool
) -> None:
    monkeypatch.setattr(events, "BATCH_INTERVAL", 1000.0)
    log = EventLogger("r", store_url)
    await log.start()
    await log.log("note", "first")
    await log.log(kind, node_id)
    try:
        seen = len(await EventLogger("r", store_url).events())
    except StoreMissing:  # not even the tables are there yet
        seen = 0
    assert seen == (2 if waits else 0)
    await log.stop()
    assert len(await EventLogger("r", store_url).events()) == 2


async def test_five_writers_leave_no_gap(store_url: str) -> None:
    """Three connections of this process and two other processes."""
    first = EventLogger("r", store_url)
    await first.start()
    await first.stop()
    command = [sys.executable, "-m", "tests.checkpoint_plugin.event_writer", store_url, "r"]
    processes = [await asyncio.create_subprocess_exec(*command, f"p{n}", "1000") for n in range(2)]
    await asyncio.gather(*(write(store_url, "r", f"t{n}", 1000) for n in range(3)))
    assert [await process.wait() for process in processes] == [0, 0]
    found = await first.events()
    assert [e.seq for e in found] == list(range(5000))
    assert Counter(e.node_id for e in found) == {"p0": 1000, "p1": 1000, "t0": 1000, "t1": 1000, "t2": 1000}
    for name in ("p0", "t2"):
        assert [e.payload["place"] for e in found if e.node_id == name] == list(range(1000))


class Forgetful(Store):
    """Commits, and then says that it could not be reached."""

    failures = 0

    async def transact(self, work, *, write=True, before=None):  # type: ignore[no-untyped-def]
        result = await super().transact(work, write=write, before=before)
        if write and self.failures:
            self.failures -= 1
            raise StoreUnreadable("the answer was lost")
        return result


async def test_a_commit_whose_answer_was_lost_is_not_made_twice(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "FIRST_PAUSE", 0.001)
    store = Forgetful(locate(store_url), create=True)
    store.failures = 2
    async with EventLogger("r", store=store) as log:
        await log.log("note", "a")
        await log.log("created", payload={"x": 1})
        assert [(e.seq, e.kind) for e in await log.events()] == [(0, "note"), (1, "created")]
        await log.log("completed")
        assert len(await log.events()) == 3
    await store.close()


class Refusing(Store):
    """Rolls back, again and again."""

    failures = 0

    async def transact(self, work, *, write=True, before=None):  # type: ignore[no-untyped-def]
        def refuse(connection: Connection) -> None:
            work(connection)
            raise StoreUnreadable("it was rolled back")

        if write and self.failures:
            self.failures -= 1
            return await super().transact(refuse, write=write, before=before)
        return await super().transact(work, write=write, before=before)


async def test_what_was_rolled_back_gives_its_numbers_back(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "FIRST_PAUSE", 0.001)
    store = Refusing(locate(store_url), create=True)
    async with EventLogger("r", store=store) as log:
        await log.log("created")
        store.failures = 3
        await log.log("completed")
        assert [(e.seq, e.kind) for e in await log.events()] == [(0, "created"), (1, "completed")]
        store.failures = 10**6
        await log.log("note", payload={"lost": True})
        with pytest.raises(WriterStopped, match="1 write of the event log of run 'r' is not durable"):
            await log.stop(0.05)
    store.failures = 0
    assert len(await log.events()) == 2
    await store.close()


async def test_what_cannot_be_stored_is_refused_at_once(store_url: str) -> None:
    async with EventLogger("r", store_url) as log:
        with pytest.raises(TaggedValueError):
            await log.log("note", payload={"x": object()})
        for kind, node_id in (("", None), ("a\0", None), ("note", "\udcff")):
            with pytest.raises(ValueNotStorable):
                await log.log(kind, node_id)
        assert await log.events() == []
    with pytest.raises(ValueNotStorable):
        EventLogger("")


async def test_an_old_sqlite_is_asked_for_what_it_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RETURNING came with 3.35; systems that are kept for long have 3.26."""
    asked: list[str] = []
    connect = sqlite3.connect

    def heard(*args: Any, **more: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **more)
        connection.set_trace_callback(asked.append)
        return connection

    monkeypatch.setattr(sqlite3, "connect", heard)
    async with EventLogger("r", f"sqlite:///{tmp_path}/events.db") as log:
        for _ in range(2):
            await log.log("note")
            await log.flush()
        assert [e.seq for e in await log.events()] == [0, 1]
    assert any("event_head" in statement for statement in asked)
    assert not [statement for statement in asked if "RETURNING" in statement]


async def test_odd_ids_do_not_meet(store_url: str) -> None:
    for run_id in ("a%", "a_", "a", "a'; DROP TABLE event; --"):
        async with EventLogger(run_id, store_url) as log:
            await log.log("note", node_id=run_id)
    for run_id in ("a%", "a_", "a"):
        assert [e.node_id for e in await EventLogger(run_id, store_url).events()] == [run_id]
