"""What a suspended node waits for: stored, shown, answered by anybody, on both databases."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import ormsgpack
import pytest
from click.testing import CliRunner
from sqlalchemy import update

from checkpoint_plugin import (
    CheckpointManager,
    JobRepository,
    NodeStateSnapshot,
    RecoveryService,
    RunNodeState,
    register,
    update_suspended_state,
)
from checkpoint_plugin.cli.suspended import suspended
from checkpoint_plugin.codec import encode
from checkpoint_plugin.database.location import locate
from checkpoint_plugin.errors import NodeNotSuspended, NotResumable, ValueNotStorable
from checkpoint_plugin.models import JOB, RUN_NODE_STATE
from checkpoint_plugin.restoring.restored import RowReader
from checkpoint_plugin.retention import Retention
from checkpoint_plugin.saving.rows import FIELDS, RowWriter
from checkpoint_plugin.space.pruning import prune_runs
from checkpoint_plugin.store import RunHistory, Store
from checkpoint_plugin.tables.definition import Definition
from checkpoint_plugin.tables.holder import Holder
from checkpoint_plugin.tables.lease import take_lease
from checkpoint_plugin.tables.suspensions import read_suspension
from hookspecs import NodeSnapshot, RunHeld, RunNotFound, Snapshot, Suspension
from tests.checkpoint_plugin.newest import newest_number
from tests.checkpoint_plugin.test_encryption import everything


@dataclass
class Draft:
    """Storable once it is registered, and without a JSON form."""

    page: int


@dataclass
class Mute:
    """One that cannot be shown."""

    page: int

    def __repr__(self) -> str:
        raise RuntimeError("mute")


SINCE = datetime(2026, 11, 1, 12, 30, 15, 123456, tzinfo=UTC)
LARGE = "large enough for a payload of its own " * 20
WAITS = Suspension(
    "approval \udcff of\nann", SINCE, {"page": (3,), "draft": LARGE}, {"to": "ann"}, SINCE + timedelta(days=400), True, {1: LARGE}
)
WHEN = datetime(2027, 1, 1, tzinfo=UTC)


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    store = Store(locate(store_url), create=True)
    yield store
    await store.close()


def snapshot(run_id: str, status: Any, *nodes: NodeSnapshot) -> Snapshot:
    return Snapshot(run_id, 1, status, nodes, datetime.now(UTC))


async def begin(store: Store, run_id: str = "r") -> RunHistory:
    document = {"nodes": [{"id": name, "type": "m.f", "data": {}} for name in "abc"], "edges": []}
    body = encode({"graph": document, "inputs": {}, "enable": {}}, str)
    await store.insert_job(run_id, Definition(body, json.dumps(document), "{}"))
    return RunHistory(run_id, 1, 1)


async def suspend(store: Store, run_id: str = "r", /, **waiting: Suspension) -> RunHistory:
    """A run that is suspended, with a completed node `c` besides."""
    history = await begin(store, run_id)
    await store.save(history, snapshot(run_id, "running", NodeSnapshot("c", "completed")), "step")
    nodes = (NodeSnapshot(node_id, "suspended", firing=1, arguments={"x": 1}, suspension=s) for node_id, s in waiting.items())
    await store.save(history, snapshot(run_id, "suspended", *nodes), "suspend")
    return history


async def restored(store: Store, run_id: str = "r") -> Mapping[str, NodeSnapshot]:
    found = await store.restore(RunHistory(run_id, 1, 1), None)
    assert found is not None
    return {node.node_id: node for node in found.nodes}


async def states(store: Store, run_id: str = "r") -> Mapping[str, RunNodeState]:
    return {state.node_id: state for state in await JobRepository(store=store).node_states(run_id)}


# Stored.


async def test_a_suspension_comes_back_as_it_was(store: Store) -> None:
    await suspend(store, a=WAITS, b=Suspension("", SINCE))
    nodes = await restored(store)
    assert nodes["a"].suspension == WAITS
    assert nodes["b"].suspension == Suspension("", SINCE)
    assert nodes["c"].suspension is None


async def test_answers_that_were_dropped_are_told_by_their_number(store: Store) -> None:
    """A body that commits between its suspensions, as one that talks with somebody, drops one each time."""
    dropped: tuple[tuple[str | None, Any], ...] = ((None, None),) * 5_000
    waits = [Suspension("asks", SINCE, earlier=earlier) for earlier in (dropped, (*dropped, ("asked", 1)), (("asked", None),))]
    await suspend(store, **{f"n{number}": each for number, each in enumerate(waits)})
    nodes = await restored(store)
    assert [nodes[f"n{number}"].suspension for number in range(3)] == waits
    cut = RowWriter("r", {}).encode([NodeSnapshot("a", "suspended", suspension=waits[1])])
    assert len(cut.rows["a"]) < 100
    assert not cut.payloads


@pytest.mark.parametrize("stored", [[-1], [0], [1 << 60], [2, 3]])
def test_a_number_of_dropped_answers_that_cannot_be_is_damage(stored: Any) -> None:
    row = [b"asks", 0.0, None, None, None, False, None, b"earlier"]
    with pytest.raises(ValueError, match=r"dropped|none"):
        read_suspension(row, lambda ref: stored if ref else None)


async def test_its_values_survive_pruning(store: Store) -> None:
    history = await suspend(store, a=WAITS)
    for _ in range(3):
        await store.save(history, snapshot("r", "suspended", NodeSnapshot("c", "completed")), "again")
    await prune_runs(store, Retention(1), None)
    assert (await restored(store))["a"].suspension == WAITS


def test_rows_without_a_suspension_are_as_they_were() -> None:
    """Rows that an older version wrote have no such place, and what does not wait pays nothing for it."""
    cut = RowWriter("r", {}).encode([NodeSnapshot("a", "running")])
    row = ormsgpack.unpackb(cut.rows["a"])
    assert len(row) == FIELDS.index("suspension")
    assert RowReader("r", 1).node("a", row, ()) == NodeSnapshot("a", "running")


async def test_it_can_be_selected_until_the_node_goes_on(store: Store) -> None:
    early = Suspension("first", SINCE - timedelta(1), {"n": 1}, {"to": "bob"})
    history = await suspend(store, a=Suspension("second", SINCE, (1, 2), {"to": "ann"}, WHEN), b=early)
    found = await states(store)
    a = found["a"]
    assert (a.status, a.suspension_reason, a.suspended_at, a.wake_at) == ("suspended", "second", SINCE, WHEN)
    assert (a.resume_state, a.suspension_metadata) == ((1, 2), {"to": "ann"})
    assert (found["c"].suspended_at, found["c"].wake_at) == (None, None)
    job = await JobRepository(store=store).get("r")
    assert (job.status, job.suspended_node_id, job.suspension_reason) == ("suspended", "b", "first")
    assert (job.suspension_state, job.suspension_metadata) == ({"n": 1}, {"to": "bob"})
    again = Suspension("third", SINCE)
    await store.save(
        history,
        snapshot("r", "suspended", NodeSnapshot("b", "completed"), NodeSnapshot("a", "suspended", suspension=again)),
        "suspend",
    )
    a = (await states(store))["a"]
    assert (a.suspension_reason, a.wake_at, a.resume_state, a.suspension_metadata) == ("third", None, None, None)
    assert (await JobRepository(store=store).get("r")).suspended_node_id == "a"
    await store.save(history, snapshot("r", "completed", NodeSnapshot("a", "completed")), "end")
    for state in (await states(store)).values():
        assert (state.suspended_at, state.suspension_reason, state.resume_state_json) == (None, None, None)
    job = await JobRepository(store=store).get("r")
    assert (job.suspended_node_id, job.suspension_reason, job.suspension_state_json) == (None, None, None)


async def test_the_run_s_row_tells_of_a_node_that_an_earlier_attempt_suspended(store: Store) -> None:
    await suspend(store, a=WAITS)
    history = RunHistory("r", 1, 1)
    await store.restore(history, None)
    await store.save(history, snapshot("r", "suspended"), "suspend")
    assert (await JobRepository(store=store).get("r")).suspended_node_id == "a"


class Looked(dict[str, Suspension]):
    """Nodes that wait, and how often somebody looked through all of them."""

    looks = 0

    def items(self) -> Any:
        self.looks += 1
        return super().items()


async def test_a_save_looks_through_no_nodes_that_go_on_waiting(store: Store) -> None:
    history = await suspend(store, a=WAITS, b=WAITS)
    waiting = history.suspended = Looked(history.suspended)
    await store.save(history, snapshot("r", "running", NodeSnapshot("c", "running")), "step")
    await store.save(history, snapshot("r", "running", NodeSnapshot("a", "running")), "step")
    assert waiting.looks == 0
    assert history.suspended.keys() == {"b"}
    await store.save(history, snapshot("r", "suspended"), "suspend")
    assert (await JobRepository(store=store).get("r")).suspended_node_id == "b"


async def test_what_has_no_json_form_is_stored_and_told_as_its_repr(store: Store) -> None:
    register(Draft)
    register(Mute)
    waits = Suspension("r", SINCE, Draft(1), {"draft": Draft(2), "many": [Draft(3)] * 1_000, "mute": Mute(4), "to": "ann"})
    await suspend(store, a=waits)
    assert (await restored(store))["a"].suspension == waits
    state = (await states(store))["a"]
    assert (state.suspension_reason, state.resume_state) == ("r", None)
    told = {
        "draft": "Draft(page=2)",
        "many": f"{str([Draft(3)] * 1_000)[:999]}…",
        "mute": "<Mute, whose repr fails: RuntimeError>",
        "to": "ann",
    }
    assert state.suspension_metadata == told
    assert (await JobRepository(store=store).get("r")).suspension_metadata == told


async def test_a_save_by_hand_keeps_what_is_told_of_a_suspended_node(store: Store) -> None:
    manager = CheckpointManager("r", enabled=True, store=store)
    await manager.save_checkpoint({"nodes": ["a", "b"]}, active_nodes={"a"})
    jobs = JobRepository(store=store)
    state = await jobs.node_state("r", "a")
    assert state is not None
    state.mark_suspended("approval", {"n": 1}, metadata={"to": "ann"}, wake_at=WHEN)
    await jobs.save_node_state(state)
    await jobs.change("r", lambda job: job.mark_suspended("a", "approval", {"n": 1}, {"to": "ann"}))
    await manager.save_checkpoint({"nodes": ["a", "b"]}, {"b"}, node_states={"a": NodeStateSnapshot("a", "suspended", 2)})
    found = (await states(store))["a"]
    assert (found.attempt, found.suspension_reason, found.wake_at, found.suspension_metadata) == (
        2,
        "approval",
        WHEN,
        {"to": "ann"},
    )
    assert (await jobs.get("r")).suspension_metadata == {"to": "ann"}
    await manager.save_checkpoint({"nodes": ["a", "b"]}, active_nodes={"a"})
    found = (await states(store))["a"]
    assert (found.suspension_reason, found.wake_at) == (None, None)


# Answered.


async def test_an_answer_is_another_checkpoint(store: Store, store_url: str) -> None:
    await suspend(store, a=Suspension("approval", SINCE, {"n": 1}), b=Suspension("other", SINCE))
    before = await restored(store)
    await update_suspended_state("r", "a", {"yes": (True,)}, url=store_url)
    after = await restored(store)
    assert after["a"].suspension == Suspension("approval", SINCE, {"n": 1}, answered=True, answer={"yes": (True,)})
    assert replace(after["a"], suspension=None) == replace(before["a"], suspension=None)
    assert after["b"] == before["b"]
    job = await JobRepository(store=store).get("r")
    assert (job.status, await newest_number(store), job.attempt) == ("suspended", 3, 1)
    assert [row.reason for row in await store.checkpoints("r")][-1] == "answer"
    wake_at = (await states(store))["a"].wake_at
    assert wake_at is not None and wake_at <= datetime.now(UTC)
    found = await RecoveryService(store=store).plan("r")
    assert (found["a"].action, found["a"].resume_state) == ("resume", {"n": 1})


async def test_several_answers_come_in_any_order_from_anywhere(store: Store, store_url: str) -> None:
    names = [f"n{place}" for place in range(6)]
    await suspend(store, **{name: Suspension("waits", SINCE) for name in names})
    await asyncio.gather(*(update_suspended_state("r", name, name.upper(), url=store_url) for name in reversed(names)))
    nodes = await restored(store)
    for name in names:
        waits = nodes[name].suspension
        assert waits is not None and waits.answer == name.upper()


@pytest.mark.parametrize("by", ["runner", "hand"])
async def test_a_cancelled_run_takes_no_answer(by: str, store: Store) -> None:
    if by == "runner":
        await suspend(store, a=Suspension("approval", SINCE))
    else:
        states = {"a": NodeStateSnapshot("a", "suspended", resume_state={"n": 1})}
        await CheckpointManager("r", enabled=True, store=store).save_checkpoint(node_states=states)
    number = await newest_number(store)
    await JobRepository(store=store).change("r", lambda job: job.mark_cancelled())
    with pytest.raises(NotResumable, match="it is cancelled"):
        await update_suspended_state("r", "a", 1, store=store)
    assert await newest_number(store) == number
    node = await JobRepository(store=store).node_state("r", "a")
    assert node is not None and node.resume_state == (None if by == "runner" else {"n": 1})


async def test_an_answer_to_nobody_is_an_error_and_changes_nothing(store: Store) -> None:
    await suspend(store, a=Suspension("approval", SINCE))
    for node_id, words in (("c", "is completed"), ("never", "is idle, or not in its graph")):
        with pytest.raises(NodeNotSuspended, match=words) as told:
            await update_suspended_state("r", node_id, 1, store=store)
        assert told.value.exit_code == 2
    with pytest.raises(NodeNotSuspended):
        await RecoveryService(store=store).resume("r", updates={"a": 1, "c": 2})
    with pytest.raises(ValueNotStorable):
        await update_suspended_state("r", "a", object(), store=store)
    with pytest.raises(RunNotFound):
        await update_suspended_state("s", "a", 1, store=store)
    assert await newest_number(store) == 2
    await update_suspended_state("r", "a", 1, store=store)
    with pytest.raises(NodeNotSuspended, match="answered already"):
        await update_suspended_state("r", "a", 2, store=store)
    waits = (await restored(store))["a"].suspension
    assert waits is not None and waits.answer == 1


async def test_a_run_that_is_executed_takes_no_answer(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("checkpoint_plugin.runs.answers.PATIENCE_SECONDS", 0.1)
    await suspend(store, a=Suspension("approval", SINCE))
    await store.transact(lambda connection: take_lease(connection, "r", Holder("w", "elsewhere", 1, None), 60))
    with pytest.raises(RunHeld, match="worker w"):
        await update_suspended_state("r", "a", 1, store=store)
    assert await newest_number(store) == 2


async def test_who_executed_the_run_before_an_answer_writes_no_more(store: Store) -> None:
    history = await suspend(store, a=Suspension("approval", SINCE))
    await update_suspended_state("r", "a", 1, store=store)
    with pytest.raises(Exception, match="lost run 'r'"):
        await store.save(history, snapshot("r", "running", NodeSnapshot("a", "running")), "late")


async def test_an_answer_and_a_resume_in_one(store: Store) -> None:
    await suspend(store, a=Suspension("approval", SINCE))
    seen: list[Any] = []

    async def go_on(run_id: str) -> None:
        waits = (await restored(store))["a"].suspension
        seen.append(None if waits is None else waits.answer)

    outcome = await RecoveryService(store=store, execute=go_on).resume("r", updates={"a": "yes"})
    assert (outcome.status, seen) == ("suspended", ["yes"])


async def test_a_run_is_gone_on_with_when_its_time_has_come_or_it_was_answered(store: Store) -> None:
    now = datetime.now(UTC)
    await suspend(store, "past", a=Suspension("sleeps", SINCE, wake_at=now - timedelta(seconds=1)))
    await suspend(store, "future", a=Suspension("sleeps", SINCE, wake_at=now + timedelta(hours=1)))
    await suspend(store, "waits", a=Suspension("approval", SINCE))
    await suspend(store, "answered", a=Suspension("approval", SINCE))
    await update_suspended_state("answered", "a", 1, store=store)
    woken: list[str] = []

    async def go_on(run_id: str) -> None:
        woken.append(run_id)
        await store.transact(
            lambda c: c.execute(update(RUN_NODE_STATE).where(RUN_NODE_STATE.c.run_id == run_id).values(wake_at=None))
        )

    service = RecoveryService(store=store, execute=go_on)
    await service.recover_all(0)
    assert sorted(woken) == ["answered", "past"]
    job = await JobRepository(store=store).get("past")
    assert (job.status, job.retry_count) == ("suspended", 0)


# Shown.


def listed(url: str) -> Any:
    done = CliRunner().invoke(suspended, ["--url", url, "--json"])
    assert done.exit_code == 0, done.output
    (line,) = done.stdout.splitlines()
    return json.loads(line)["suspended"]


async def test_the_command_tells_who_waits_for_what(store: Store, store_url: str) -> None:
    await suspend(
        store, "r", a=Suspension("late\x1b[31m", SINCE, None, {"to": ("ann",)}, WHEN), b=Suspension("early", SINCE - timedelta(1))
    )
    for status in ("cancelled", "completed"):
        await suspend(store, status, a=Suspension("x", SINCE))
        over = update(JOB).where(JOB.c.id == status).values(status=status)
        await store.transact(lambda connection, over=over: connection.execute(over))  # type: ignore[misc]
    found = await asyncio.to_thread(listed, store_url)
    assert [(row["run_id"], row["node_id"], row["reason"]) for row in found] == [("r", "b", "early"), ("r", "a", "late\x1b[31m")]
    assert found[0] == {
        "run_id": "r",
        "node_id": "b",
        "reason": "early",
        "since": (SINCE - timedelta(1)).isoformat(),
        "wake_at": None,
        "due": False,
        "metadata": None,
    }
    assert found[1]["wake_at"] == WHEN.isoformat()
    assert found[1]["metadata"] == {"to": {"$type": "tuple", "value": ["ann"]}}
    await update_suspended_state("r", "b", 1, store=store)
    assert [row["due"] for row in await asyncio.to_thread(listed, store_url)] == [True, False]
    table = (await asyncio.to_thread(CliRunner().invoke, suspended, ["--url", store_url])).stdout
    assert "early" in table and "\x1b" not in table


def test_without_a_store_nobody_waits(tmp_path: Any) -> None:
    assert listed(f"sqlite:///{tmp_path / 'none.db'}") == []
    assert not list(tmp_path.iterdir())


async def test_of_an_encrypted_run_nothing_can_be_read_without_the_key(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    key = base64.b64encode(os.urandom(32)).decode()
    monkeypatch.setenv("WORKFLOW_CHECKPOINT_KEY", key)
    store = Store(locate(store_url), create=True)
    waits = Suspension("a secret reason", SINCE, ["a secret state"], {"k": "a secret word"})
    await suspend(store, a=waits)
    await update_suspended_state("r", "a", "a secret answer", url=store_url)
    assert "secret" not in await everything(store)
    assert (await restored(store))["a"].suspension == replace(waits, answered=True, answer="a secret answer")
    (row,) = await asyncio.to_thread(listed, store_url)
    assert (row["reason"], row["metadata"]) == ("a secret reason", {"k": "a secret word"})
    plan = await RecoveryService(store=store).plan("r")
    assert plan["a"].resume_state == ["a secret state"]
    await store.close()
    monkeypatch.delenv("WORKFLOW_CHECKPOINT_KEY")
    plain = Store(locate(store_url), create=False)
    await suspend(plain, "plain", b=Suspension("asks", SINCE, None, {"k": 1}))
    await plain.close()
    found = {row["run_id"]: (row["reason"], row["metadata"]) for row in await asyncio.to_thread(listed, store_url)}
    assert found == {"r": ("(encrypted)", None), "plain": ("asks", {"k": 1})}
    monkeypatch.setenv("WORKFLOW_CHECKPOINT_KEY", key)
    found = {row["run_id"]: (row["reason"], row["metadata"]) for row in await asyncio.to_thread(listed, store_url)}
    assert found == {"r": ("a secret reason", {"k": "a secret word"}), "plain": ("asks", {"k": 1})}
