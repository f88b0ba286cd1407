"""The batched writer of node states, on both databases."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from checkpoint_plugin import UNSET, CheckpointManager, JobRepository, RunNodeState, StateManager
from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.location import locate
from checkpoint_plugin.errors import StoreUnreachable, StoreUnreadable, ValueNotStorable, WriterStopped
from checkpoint_plugin.models import RUN_NODE_STATE
from checkpoint_plugin.runs import batching
from checkpoint_plugin.store import Store
from checkpoint_plugin.tables.holder import Holder
from hookspecs import LeaseLost, RunNotFound, TaggedValueError

LONG = 1000.0


class NoTime(datetime):
    """As the "not a time" of pandas, which equals nothing."""

    def __ne__(self, other: object) -> bool:
        return True


class Counted(Store):
    """Counts the transactions of its writer; fails, or waits, as it is told."""

    written = 0
    failures = 0
    refuse: Exception | None = None
    open: asyncio.Event

    async def write(self, write):  # type: ignore[no-untyped-def]
        if not hasattr(self, "open"):
            self.open = asyncio.Event()
            self.open.set()
        await self.open.wait()
        if self.refuse is not None:
            raise self.refuse
        result = await super().write(write)
        if self.failures:  # committed, and nobody heard of it
            self.failures -= 1
            raise StoreUnreachable("the answer was lost")
        self.written += 1
        return result


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "FIRST_PAUSE", 0.001)


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Counted]:
    store = Counted(locate(store_url), create=True)
    yield store
    await store.close()


async def state(store: Store, node_id: str) -> RunNodeState | None:
    return await JobRepository(store=store).node_state("r", node_id)


async def durable(store: Store, count: int) -> None:
    """Wait until so many nodes have a row."""

    def work(connection: Connection) -> int:
        return len(connection.execute(select(RUN_NODE_STATE.c.node_id)).all())

    async with asyncio.timeout(20):
        while await store.transact(work, write=False) < count:
            pass


async def test_an_update_is_written_when_its_time_has_come(store: Counted) -> None:
    manager = StateManager("r", batch_size=100, batch_interval=0.02, store=store)
    await manager.start()
    await manager.update_node_state("a", status="running", attempt=2)
    await durable(store, 1)
    found = await state(store, "a")
    assert found is not None
    assert (found.status, found.attempt, found.started_at is not None, found.completed_at) == ("running", 2, True, None)
    await manager.stop()


async def test_a_batch_may_be_of_any_size(postgres_url: str) -> None:
    many = 33_000  # more than PostgreSQL takes arguments of a statement
    async with StateManager("r", batch_size=many, batch_interval=LONG, url=postgres_url, max_waiting=many) as manager:
        for number in range(many):
            await manager.update_node_state(f"n{number}", attempt=number)
        await manager.flush()
        assert manager.stats.batches_written == 1
        found = await manager.get_node_state(f"n{many - 1}")
    assert found is not None and found.attempt == many - 1


async def test_a_full_batch_is_written_at_once(store: Counted) -> None:
    manager = StateManager("r", batch_size=3, batch_interval=LONG, store=store)
    await manager.start()
    for name in "abcd":
        await manager.update_node_state(name, status="scheduled")
    await durable(store, 3)
    async with asyncio.timeout(20):
        while not manager.stats.batches_written:  # the rows are there a moment before the writer hears of it
            await durable(store, 3)
    assert await state(store, "d") is None
    assert (manager.stats.updates_queued, manager.stats.updates_processed, manager.stats.batches_written) == (4, 3, 1)
    await manager.stop()
    assert await state(store, "d") is not None
    assert dict(manager.stats) == {"updates_queued": 4, "updates_processed": 4, "batches_written": 2, "errors": 0}
    assert manager.get_stats()["updates_queued"] == manager.stats["updates_queued"] == 4
    with pytest.raises(KeyError):
        manager.stats["other"]


async def test_updates_of_one_node_become_one(store: Counted) -> None:
    manager = StateManager("r", batch_size=3, batch_interval=LONG, store=store)
    await manager.start()
    for attempt in range(1, 51):
        await manager.update_node_state("a", status="running", attempt=attempt)
    await manager.update_node_state("a", status="completed", outputs={"out": (1, 2)})
    await manager.stop(timeout=20)
    found = await state(store, "a")
    assert found is not None
    assert (found.status, found.attempt, found.outputs) == ("completed", 50, {"out": (1, 2)})
    assert found.started_at is not None and found.completed_at is not None
    assert (store.written, manager.stats.updates_processed, manager.stats.batches_written) == (1, 51, 1)


async def test_what_is_not_given_stays_and_none_clears(store: Counted) -> None:
    manager = StateManager("r", batch_interval=LONG, store=store)
    await manager.start()
    when = datetime(2026, 1, 2, tzinfo=UTC)
    await manager.update_node_state(
        "a",
        "suspended",
        attempt=3,
        outputs={"part": 1},
        error="E",
        resume_state={"page": (3,)},
        suspension_reason="waits",
        retryable=False,
        suspended_at=when,
    )
    await manager.flush()
    found = await state(store, "a")
    assert found is not None
    assert (found.resume_state, found.suspended_at, found.last_error, found.retryable) == ({"page": (3,)}, when, "E", False)
    await manager.update_node_state("a", status="running", error=UNSET)
    await manager.update_node_state("a", resume_state=None, last_error=None, suspension_reason=None, suspended_at=None)
    await manager.flush()
    found = await state(store, "a")
    assert found is not None
    assert (found.status, found.attempt, found.outputs, found.retryable) == ("running", 3, {"part": 1}, False)
    assert (found.resume_state_json, found.last_error, found.suspension_reason, found.suspended_at) == (None,) * 4
    await manager.update_node_state("a", outputs=None)
    await manager.stop()
    found = await state(store, "a")
    assert found is not None
    assert found.outputs_json is None


async def test_what_is_read_holds_what_waits(store: Counted) -> None:
    manager = StateManager("r", batch_interval=LONG, store=store)
    assert await manager.get_node_state("a") is None
    await manager.start()
    await manager.update_node_state("a", status="running")
    await manager.flush()
    await manager.update_node_state("a", attempt=4)
    await manager.update_node_state("b", status="failed", error=ValueError("no"))
    first, second = await manager.get_node_state("a"), await manager.get_node_state("b")
    assert first is not None and second is not None
    assert (first.status, first.attempt) == ("running", 4)
    assert (second.status, second.last_error) == ("failed", "ValueError: no")
    assert await state(store, "b") is None
    await manager.stop()
    assert (await state(store, "a")) == await manager.get_node_state("a")


async def test_a_second_start_and_a_second_stop_are_harmless(store_url: str) -> None:
    manager = StateManager("r", url=store_url)
    await manager.start()
    await manager.start()
    await manager.update_node_state("a", status="running")
    await manager.stop()
    await manager.stop()
    assert manager.stats.updates_processed == 1
    assert [s.node_id for s in await JobRepository(store_url).node_states("r")] == ["a"]


async def test_a_stop_that_is_cancelled_is_over_when_it_tells_so(store: Counted) -> None:
    manager = StateManager("r", store=store)
    await manager.start()
    store.open = asyncio.Event()
    await manager.update_node_state("a", status="running")
    stop = asyncio.create_task(manager.stop())
    await asyncio.sleep(0)
    stop.cancel()
    asyncio.get_running_loop().call_later(0.01, store.open.set)
    with pytest.raises(asyncio.CancelledError):
        await stop
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert manager.stats.updates_processed == 1
    assert await state(store, "a") is not None


async def test_an_update_after_the_end_is_an_error(store: Counted) -> None:
    manager = StateManager("r", store=store)
    await manager.start()
    await manager.stop()
    with pytest.raises(WriterStopped, match="takes nothing more"):
        await manager.update_node_state("a", status="running")
    assert manager.stats.updates_queued == 0
    await manager.start()
    await manager.update_node_state("a", status="running")
    await manager.stop()
    assert await state(store, "a") is not None


async def test_what_came_before_the_start_is_written_after_it(store: Counted) -> None:
    manager = StateManager("r", store=store)
    await manager.update_node_state("a", status="running")
    assert manager.stats.updates_queued == 1
    await manager.start()
    await manager.stop()
    assert await state(store, "a") is not None


async def test_a_batch_that_failed_is_tried_again(store: Counted) -> None:
    manager = StateManager("r", batch_size=2, store=store)
    store.failures = 3
    async with manager:
        for name in "ab":
            await manager.update_node_state(name, status="running")
        await manager.flush()
        assert manager.stats == {"updates_queued": 2, "updates_processed": 2, "batches_written": 1, "errors": 3}
    assert len(await JobRepository(store=store).node_states("r", "running")) == 2


async def test_a_stop_says_what_it_could_not_write(store: Counted) -> None:
    manager = StateManager("r", batch_size=2, batch_interval=LONG, store=store)
    await manager.start()
    store.refuse = StoreUnreadable("away")
    for name in "abc":
        await manager.update_node_state(name, status="running")
    with pytest.raises(WriterStopped, match="3 writes of the state writer of run 'r' are not durable") as raised:
        await manager.stop(timeout=0.05)
    assert [node_id for node_id, _ in raised.value.unwritten] == ["a", "b", "c"]
    assert raised.value.unwritten[0][1]["status"] == "running"
    assert manager.stats.errors > 0


class Interrupted(Counted):
    """Of its first write the answer is lost, and somebody else writes before it is written again."""

    landed = True

    async def write(self, write):  # type: ignore[no-untyped-def]
        if not self.written:
            self.written = 1
            if self.landed:
                await Store.write(self, write)
            else:
                with suppress(ZeroDivisionError):
                    await self.transact(lambda connection: (write.write(connection), 1 / 0))
            other = StateManager("r", store=self)
            async with other:
                await other.update_node_state("a", status="completed", error="theirs")
            raise StoreUnreachable("the answer was lost")
        return await Store.write(self, write)


@pytest.mark.parametrize("landed", [True, False])
async def test_what_is_written_again_leaves_what_others_wrote_since(store_url: str, landed: bool) -> None:
    store = Interrupted(locate(store_url), create=True)
    store.landed = landed
    async with StateManager("r", store=store) as manager:
        await manager.update_node_state("a", status="running", attempt=3, error="ours", outputs={"out": 1})
        await manager.update_node_state("b", status="running")
    found, other = await state(store, "a"), await state(store, "b")
    await store.close()
    assert found is not None and other is not None
    assert (found.status, found.attempt, found.last_error, found.outputs) == ("completed", 3, "theirs", {"out": 1})
    assert found.started_at is not None and found.completed_at is not None
    assert other.status == "running"


async def test_who_lost_the_run_writes_nothing_and_hears_of_it(store: Counted) -> None:
    manager = StateManager("r", batch_size=1, store=store)
    await manager.start()
    await manager.update_node_state("a", status="running")
    await manager.flush()
    await store.begin_attempt("r", 2, Holder("another"))
    await manager.update_node_state("a", status="completed")
    with pytest.raises(LeaseLost):
        await manager.flush()
    with pytest.raises(LeaseLost):
        await manager.update_node_state("b", status="running")
    with pytest.raises(WriterStopped, match=r"1 write of the state writer of run 'r' is not durable: .*another worker") as raised:
        await manager.stop()
    assert isinstance(raised.value.__cause__, LeaseLost)
    found = await state(store, "a")
    assert found is not None
    assert found.status == "running"


async def test_who_lost_the_run_may_begin_anew(store: Counted) -> None:
    manager = StateManager("r", batch_size=1, store=store)
    await manager.start()
    await store.begin_attempt("r", 2, Holder("another"))
    await manager.update_node_state("a", status="running")
    with pytest.raises(WriterStopped) as raised:
        await manager.stop()
    await manager.start()
    for node_id, fields in raised.value.unwritten:
        await manager.update_node_state(node_id, status=fields["status"])
    await manager.stop()
    found = await state(store, "a")
    assert found is not None
    assert found.status == "running"


async def test_a_caller_waits_for_room_and_not_beyond_the_bound(store: Counted) -> None:
    manager = StateManager("r", batch_size=1, store=store, max_waiting=2, wait_seconds=0.05)
    await manager.start()
    await manager.update_node_state("z", status="running")
    await manager.flush()
    store.open.clear()
    await manager.update_node_state("a", status="running")
    await asyncio.sleep(0.01)
    for name in "bc":
        await manager.update_node_state(name, status="running")
    await manager.update_node_state("b", attempt=2)
    with pytest.raises(WriterStopped, match="3 writes"):
        await manager.update_node_state("d", status="running")
    store.open.set()
    await manager.stop()
    assert [s.node_id for s in await JobRepository(store=store).node_states("r")] == ["a", "b", "c", "z"]


@pytest.mark.parametrize("started", [True, False])
async def test_updates_of_a_new_node_that_wait_for_room_lose_nothing(store: Counted, started: bool) -> None:
    manager = StateManager("r", batch_size=2, batch_interval=0, store=store, max_waiting=2, wait_seconds=LONG)
    if started:
        await manager.start()
        await manager.update_node_state("a", "running")
        await manager.flush()
        store.open.clear()
        for name in "ab":
            await manager.update_node_state(name, "running")
        await asyncio.sleep(0.01)  # they are being written
    for name in "cd":
        await manager.update_node_state(name, "running")
    updates = ({"status": "completed", "outputs": {"v": 1}}, {"attempt": 7}, {"error": "E"})
    waiting = [asyncio.create_task(manager.update_node_state("n", **update)) for update in updates]
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    if started:
        store.open.set()
    else:
        await manager.start()
    async with asyncio.timeout(20):
        await asyncio.gather(*waiting)
    await manager.stop()
    found = await state(store, "n")
    assert found is not None
    assert (found.status, found.attempt, found.outputs, found.last_error) == ("completed", 7, {"v": 1}, "E")
    assert manager.stats.updates_processed == manager.stats.updates_queued


async def test_an_update_does_not_wait_for_the_database(store: Counted) -> None:
    manager = StateManager("r", batch_size=1, store=store)
    await manager.start()
    await manager.update_node_state("z", status="running")
    await manager.flush()
    store.open.clear()
    for place in range(100):
        await manager.update_node_state(f"n{place}", status="running")
    assert (store.written, manager.stats.updates_queued) == (1, 101)
    store.open.set()
    await manager.stop()
    assert manager.stats.updates_processed == 101


async def test_many_callers_at_once(store_url: str) -> None:
    async with StateManager("r", batch_size=50, batch_interval=0.01, url=store_url) as manager:

        async def work(node_id: str) -> None:
            for status in ("scheduled", "running", "completed"):
                await manager.update_node_state(node_id, status=status)
                await asyncio.sleep(0)

        await asyncio.gather(*(work(f"n{place}") for place in range(500)))
    states = await JobRepository(store_url).node_states("r", "completed")
    assert len(states) == 500
    assert manager.stats.updates_processed == manager.stats.updates_queued == 1500
    assert all(s.scheduled_at is not None and s.completed_at is not None for s in states)


async def test_values_are_copied_when_they_are_given(store: Counted) -> None:
    manager = StateManager("r", batch_interval=LONG, store=store)
    outputs = {"out": [1]}
    await manager.update_node_state("a", outputs=outputs)
    outputs["out"].append(2)
    async with manager:
        pass
    found = await state(store, "a")
    assert found is not None
    assert found.outputs == {"out": [1]}


async def test_what_makes_no_sense_is_refused_at_once(store: Counted) -> None:
    manager = StateManager("r", store=store)
    for call, error, words in (
        (manager.update_node_state("a"), ValueError, "nothing is said"),
        (manager.update_node_state("a", status="done"), ValueError, "no status"),
        (manager.update_node_state("a", attempt=None), ValueError, "attempt cannot be cleared"),  # type: ignore[arg-type]
        (manager.update_node_state("a", outputs={"out": object()}), TaggedValueError, "object"),
        (manager.update_node_state("a\0", status="running"), ValueNotStorable, "Rename it"),
    ):
        with pytest.raises(error, match=words):
            await call
    assert manager.stats.updates_queued == 0
    for arguments in ({"batch_size": 0}, {"batch_interval": -1}):
        with pytest.raises(ValueError, match="size of 1 or more"):
            StateManager("r", **arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one character"):
        StateManager("")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"attempt": "x"}, "attempt is a whole number from 0 to 2147483647, not 'x'"),
        ({"attempt": 2**31}, "attempt is a whole number"),
        ({"attempt": -1}, "attempt is a whole number from 0"),
        ({"attempt": True}, "attempt is a whole number"),
        ({"attempt": 1.0}, "attempt is a whole number"),
        ({"attempt": None}, "attempt cannot be cleared"),
        ({"retryable": "yes"}, "retryable is True or False, not 'yes'"),
        ({"retryable": None}, "retryable cannot be cleared"),
        ({"started_at": datetime(2026, 1, 1)}, "started_at 2026-01-01 00:00:00 has no time zone"),
        ({"wake_at": "2026-01-01"}, "wake_at is a datetime, not '2026-01-01'"),
        ({"failed_at": datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-5)))}, "failed_at .* is no moment"),
        ({"suspended_at": NoTime(2026, 1, 1)}, "suspended_at is a datetime, not NoTime"),
        ({"suspension_reason": 5}, "suspension_reason is text, not 5"),
        ({"error": 5}, "last_error is text, not 5"),
        ({"last_error": b"x"}, "last_error is text"),
        ({"outputs": [1]}, "outputs are values by handle, not list"),
        ({"status": ["running"]}, "no status"),
    ],
)
async def test_a_field_that_cannot_be_stored_is_refused_at_once_and_harms_no_other_node(
    store: Counted, fields: dict[str, Any], words: str
) -> None:
    async with StateManager("r", batch_interval=LONG, store=store) as manager:
        await manager.update_node_state("good", "completed", outputs={"v": 1})
        with pytest.raises(ValueError, match=words) as raised:
            await manager.update_node_state("bad", **{"status": "suspended", **fields})
        assert "'bad'" in str(raised.value)
        await manager.update_node_state("after", "running")
        assert manager.stats.updates_queued == 2
    assert {node.node_id: node.status for node in await JobRepository(store=store).node_states("r")} == {
        "good": "completed",
        "after": "running",
    }


async def test_texts_for_people_are_escaped_and_other_nodes_are_written(store: Counted) -> None:
    async with StateManager("r", store=store) as manager:
        await manager.update_node_state("good", "running")
        await manager.update_node_state("a", "suspended", suspension_reason="a\0b\udcff", error=KeyError("\udcff"))
        await manager.update_node_state("b", "failed", last_error="\0", outputs={"v": "\0\udcff"}, resume_state="\udcff")
    found = {node.node_id: node for node in await JobRepository(store=store).node_states("r")}
    assert found.keys() == {"good", "a", "b"}
    assert (found["a"].suspension_reason, found["a"].last_error) == (r"a\x00b\udcff", r"KeyError: '\udcff'")
    assert (found["b"].last_error, found["b"].outputs, found["b"].resume_state) == (r"\x00", {"v": "\0\udcff"}, "\udcff")


async def test_a_node_id_that_is_too_long_for_an_index_is_refused(store: Counted) -> None:
    async with StateManager("r", store=store) as manager:
        await manager.update_node_state("é" * 500, "running")
        with pytest.raises(ValueNotStorable, match="longer than 1000 bytes"):
            await manager.update_node_state("é" * 501, "running")
    assert await state(store, "é" * 500) is not None


async def test_it_makes_the_row_of_the_run_and_keeps_one_that_is_there(store: Counted) -> None:
    with pytest.raises(RunNotFound):
        await JobRepository(store=store).get("r")
    async with StateManager("r", store=store) as manager:
        await manager.update_node_state("a", status="running")
    job = await JobRepository(store=store).get("r")
    assert (job.status, job.has_checkpoint, job.execution_strategy) == ("scheduled", False, "manager")
    async with StateManager("r", store=store) as manager:
        await manager.update_node_state("a", status="completed")
    assert (await JobRepository(store=store).get("r")).version == job.version


async def test_a_store_that_cannot_be_used_is_told_at_the_start(tmp_path: Path) -> None:
    file = tmp_path / "x.db"
    file.write_bytes(b"not a database at all, but long enough to be seen as one" * 100)
    manager = StateManager("r", url=f"sqlite:///{file}")
    with pytest.raises(StoreUnreadable):
        await manager.start()
    await manager.stop()


async def test_a_manager_of_checkpoints_sees_what_it_wrote(store: Counted) -> None:
    graph = {"nodes": [{"id": name} for name in "ab"], "edges": []}
    checkpoints = CheckpointManager("r", enabled=True, store=store)
    async with StateManager("r", store=store) as manager:
        await manager.update_node_state("a", status="suspended", attempt=2, resume_state={"page": 3})
        await manager.flush()
        assert await checkpoints.can_resume() is False, "there is no checkpoint"
        await checkpoints.save_checkpoint(graph, (), (), {"a", "b"})
        data = await checkpoints.restore_checkpoint(graph)
        assert data is not None
        assert (data.active_nodes, data.pending_nodes) == ({"a"}, {"b"})
        found = data.node_states["a"]
        assert (found.status, found.attempt, found.resume_state) == ("suspended", 2, {"page": 3})
        await manager.update_node_state("b", status="failed", error="no")
        await manager.flush()
        data = await checkpoints.restore_checkpoint(graph)
        assert data is not None
        assert (data.node_states["b"].status, data.node_states["b"].error) == ("failed", "no")


async def test_a_manager_that_cannot_be_started_leaves_no_thread_and_may_be_started_again(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    path.write_bytes(b"no database" * 100)
    manager = StateManager("r", url=f"sqlite:///{path}")
    await manager.update_node_state("a", "running")
    with pytest.raises(StoreUnreadable):
        await manager.start()
    assert not [thread for thread in threading.enumerate() if thread.name == "workflow-checkpoint"]
    path.unlink()
    async with manager:
        await manager.flush()
    store = Store(locate(f"sqlite:///{path}"), create=False)
    assert [(row.node_id, row.status) for row in await store.node_states("r")] == [("a", "running")]
    await store.close()
