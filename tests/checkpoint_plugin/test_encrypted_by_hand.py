"""Runs without a runner under a master key: everything comes back, and nothing of it can be read in the database."""

from __future__ import annotations

import base64
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import update

from checkpoint_plugin import (
    CheckpointManager,
    EventLogger,
    Job,
    JobRepository,
    NodeStateSnapshot,
    RecoveryService,
    StateManager,
    update_suspended_state,
)
from checkpoint_plugin.database.location import locate
from checkpoint_plugin.errors import KeyMissing, StoreDamaged, WriterStopped
from checkpoint_plugin.models import RUN_NODE_STATE
from checkpoint_plugin.retention import Retention
from checkpoint_plugin.space.pruning import prune_runs
from checkpoint_plugin.store import Store
from tests.checkpoint_plugin.test_encryption import everything

GRAPH = {"nodes": [{"id": name, "type": "secret.type"} for name in "abc"], "edges": []}
SECRET = "a secret of some words " * 20


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKFLOW_CHECKPOINT_KEY", base64.b64encode(os.urandom(32)).decode())


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    store = Store(locate(store_url), create=True)
    yield store
    await store.close()


async def test_a_manager_saves_and_restores(store: Store, store_url: str) -> None:
    manager = CheckpointManager("r", enabled=True, url=store_url)
    states = {"b": NodeStateSnapshot("b", "failed", 2, error=SECRET, resume_state=[SECRET])}
    saves: list[dict[str, Any]] = [
        {"completed_nodes": {"a"}, "outputs": {"a": {"out": SECRET}}, "context_data": {"k": SECRET}},
        {"node_states": states},
        {"pending_nodes": {"c"}},
    ]
    for save in saves:
        assert await manager.save_checkpoint(GRAPH, **save)
    assert "secret" not in await everything(store)
    data = await CheckpointManager("r", enabled=True, url=store_url).restore_checkpoint(GRAPH)
    assert data is not None
    assert data.node_states["a"].outputs == {"out": SECRET}
    assert data.node_states["b"] == states["b"]
    assert (data.context_data, data.pending_nodes) == ({"k": SECRET}, {"c"})
    jobs = JobRepository(store=store)
    state = await jobs.node_state("r", "a")
    assert state is not None and state.outputs == {"out": SECRET}
    assert "secret.type" in ((await jobs.get("r")).graph or "")
    assert await manager.clear_checkpoint() and not await manager.can_resume()
    assert await manager.save_checkpoint(GRAPH, {"a"})


async def test_a_failed_run_keeps_its_error_over_saves(store: Store) -> None:
    manager = CheckpointManager("r", enabled=True, store=store)
    jobs = JobRepository(store=store)
    await manager.save_checkpoint(GRAPH, {"a"})
    await jobs.change("r", lambda job: job.mark_failed(SECRET))
    for node in "bc":
        await manager.save_checkpoint(GRAPH, {node})
        assert (await jobs.get("r")).error == SECRET
    assert "secret" not in await everything(store)


async def test_rows_are_sealed_and_opened(store: Store) -> None:
    jobs = JobRepository(store=store)
    await jobs.add(Job(id="r", error=SECRET, logs=SECRET, metadata_json=f'"{SECRET}"', params=f'{{"x": "{SECRET}"}}'))
    await jobs.change("r", lambda job: job.mark_running())
    await jobs.change("r", lambda job: job.mark_suspended("a", SECRET, [SECRET], {"to": SECRET}))
    (job,) = (await jobs.suspended()).items
    assert job == await jobs.get("r")
    assert (job.logs, job.suspension_reason, job.suspension_state) == (SECRET, SECRET, [SECRET])
    assert "secret" not in await everything(store)


async def test_a_state_manager_writes_and_reads(store: Store, store_url: str) -> None:
    async with StateManager("r", url=store_url) as manager:
        await manager.update_node_state("a", status="completed", outputs={"out": SECRET}, error=SECRET)
        await manager.flush()
        await manager.update_node_state("a", attempt=3)
        await manager.flush()
        state = await manager.get_node_state("a")
    assert state is not None
    assert (state.attempt, state.outputs, state.last_error) == (3, {"out": SECRET}, SECRET)
    assert "secret" not in await everything(store)
    data = await RecoveryService(store=store).restore_node_state("r", "a")
    assert data is not None and data.outputs == {"out": SECRET}


@pytest.mark.parametrize("text", [f"aes: {SECRET}", f"aes:é {SECRET}", "aes:c2VjcmV0"])
async def test_a_text_that_begins_like_a_sealed_one_is_sealed(store: Store, text: str) -> None:
    jobs = JobRepository(store=store)
    await jobs.add(Job(id="r", logs=text))
    await jobs.change("r", lambda job: job.mark_cancelled())
    async with StateManager("r", store=store) as manager:
        await manager.update_node_state("n", "failed", error=text)
        await manager.update_node_state("m", "failed", error=text)
        await manager.flush()
        await manager.update_node_state("n", attempt=2)  # the error is sealed already, and stays
    assert text not in await everything(store)
    job, state = await jobs.get("r"), await jobs.node_state("r", "n")
    assert state is not None and (job.logs, state.last_error, state.attempt) == (text, text, 2)


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_a_run_that_is_deleted_and_made_anew_has_other_keys(store: Store, store_url: str, elsewhere: bool) -> None:
    jobs = JobRepository(store=store)
    await jobs.add(Job(id="r", status="running"))
    await jobs.change("r", lambda job: job.mark_completed())
    other = Store(locate(store_url), create=False)
    second = other if elsewhere else store
    await prune_runs(second, Retention(drop_finished=0.0))
    manager = CheckpointManager("r", enabled=True, store=second)
    await manager.save_checkpoint(GRAPH, {"a"}, outputs={"a": {"out": SECRET}})
    async with StateManager("r", store=store) as states:
        await states.update_node_state("b", "failed", error=SECRET)
    await other.close()
    data = await CheckpointManager("r", enabled=True, url=store_url).restore_checkpoint(GRAPH)
    assert data is not None
    assert (data.node_states["a"].outputs, data.node_states["b"].error) == ({"out": SECRET}, SECRET)


async def test_an_answer_is_sealed(store: Store) -> None:
    manager = CheckpointManager("r", enabled=True, store=store)
    await manager.save_checkpoint(GRAPH, node_states={"a": NodeStateSnapshot("a", "suspended", resume_state={"n": 1})})
    await update_suspended_state("r", "a", {"yes": SECRET}, store=store)
    assert "secret" not in await everything(store)
    assert (await RecoveryService(store=store).plan("r", GRAPH))["a"].resume_state == {"n": 1, "yes": SECRET}


async def test_events_are_sealed(store: Store) -> None:
    await JobRepository(store=store).add(Job(id="r"))
    async with EventLogger("r", store=store) as log:
        await log.log("failed", "a", {"error": SECRET})
        assert [event.payload for event in await log.events()] == [{"error": SECRET}]
    assert "secret" not in await everything(store)


async def test_a_payload_is_not_written_before_the_run_has_a_key(store: Store) -> None:
    log = EventLogger("r", store=store)
    await log.start()
    await log.log("created")  # kinds and times are readable anyway
    with pytest.raises(KeyMissing, match="no row yet"):
        await log.log("failed", "a", {"error": SECRET})
    with pytest.raises(WriterStopped):
        await log.stop()
    assert "secret" not in await everything(store)
    await CheckpointManager("r", enabled=True, store=store).save_checkpoint(GRAPH, {"a"})
    async with EventLogger("r", store=store) as again:
        await again.log("failed", "a", {"error": SECRET})
        assert [(event.kind, event.payload) for event in await again.events()] == [("created", {}), ("failed", {"error": SECRET})]


async def test_without_the_key_nothing_is_read_or_written(store: Store, store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = CheckpointManager("r", enabled=True, store=store)
    await manager.save_checkpoint(GRAPH, {"a"})
    await JobRepository(store=store).change("r", lambda job: job.mark_failed(SECRET))
    async with EventLogger("r", store=store) as log:
        await log.log("failed", payload={"error": SECRET})
    monkeypatch.delenv("WORKFLOW_CHECKPOINT_KEY")
    jobs = JobRepository(store_url)
    (listed,) = (await jobs.find()).items
    assert listed.status == "failed" and SECRET not in (listed.error or ""), "a list shows what is not sealed"
    blind = CheckpointManager("r", enabled=True, url=store_url)
    for refused in (
        blind.save_checkpoint(GRAPH, {"b"}),
        blind.restore_checkpoint(GRAPH),
        jobs.save(listed),
        EventLogger("r", url=store_url).events(),
    ):
        with pytest.raises(KeyMissing, match="is encrypted"):
            await refused


async def test_a_column_that_somebody_wrote_is_damage(store: Store) -> None:
    manager = CheckpointManager("r", enabled=True, store=store)
    await manager.save_checkpoint(GRAPH, {"a"}, outputs={"a": {"out": 1}})
    forged = update(RUN_NODE_STATE).values(outputs_json='{"out": 2}', updated_at=datetime.now(UTC))
    await store.transact(lambda connection: connection.execute(forged))
    with pytest.raises(StoreDamaged, match="not encrypted"):
        await manager.restore_checkpoint(GRAPH)


async def test_a_plain_run_is_refused(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    key = os.environ["WORKFLOW_CHECKPOINT_KEY"]
    monkeypatch.delenv("WORKFLOW_CHECKPOINT_KEY")
    await CheckpointManager("r", enabled=True, url=store_url).save_checkpoint(GRAPH, {"a"})
    monkeypatch.setenv("WORKFLOW_CHECKPOINT_KEY", key)
    with pytest.raises(KeyMissing, match="not encrypted"):
        await CheckpointManager("r", enabled=True, url=store_url).save_checkpoint(GRAPH, {"b"})
