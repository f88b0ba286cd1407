"""Runs whose process is gone: planned, found, claimed by one recovery each and resumed, on both databases."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from checkpoint_plugin import CheckpointManager, Job, JobRepository, NodeStateSnapshot, RecoveryService, RunNodeState
from checkpoint_plugin.by_hand.graph_shape import Edge, GraphShape
from checkpoint_plugin.checking.store_check import check_store
from checkpoint_plugin.codec import encode
from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.location import locate
from checkpoint_plugin.errors import (
    GraphMismatch,
    NodeNotSuspended,
    NotResumable,
    StoreMissing,
    StoreUnreachable,
    StoreUnreadable,
)
from checkpoint_plugin.models import JOB, LEASE, NODE_VERSION, RUN_NODE_STATE
from checkpoint_plugin.recovery.child import ChildEnd
from checkpoint_plugin.recovery.claims import Claim, Search, claim_run, end_claim, fetch_waiting, may_wait
from checkpoint_plugin.recovery.passes import RecoveryPass, _Rests
from checkpoint_plugin.recovery.plan import make_plan
from checkpoint_plugin.recovery.resumption import RecoveryOutcome
from checkpoint_plugin.retention import Retention
from checkpoint_plugin.runs.answers import answer_nodes
from checkpoint_plugin.space.pruning import prune_runs
from checkpoint_plugin.space.savepoints import name_checkpoint, unname_checkpoint
from checkpoint_plugin.space.size import measure_store
from checkpoint_plugin.store import RunHistory, Store
from checkpoint_plugin.tables.definition import Definition
from checkpoint_plugin.tables.holder import Holder
from checkpoint_plugin.tables.lease import release_lease, take_lease
from hookspecs import EdgeSnapshot, NodeSnapshot, RunNotFound, Snapshot, StoreError, SuspensionChanged, TaggedValueError
from tests.checkpoint_plugin.heard import hear
from tests.checkpoint_plugin.test_plugin import CALLS, STOP_AT, WHOLE, pipeline, runner
from tests.checkpoint_plugin.test_store import definition
from workflow_runner import Context, EdgeSpec, Graph, NodeFailed, WorkflowRunner, node

GRAPH = {
    "nodes": [{"id": name} for name in "abcdefg"],
    "edges": [
        {"source": "a", "sourceHandle": "out", "target": "b", "targetHandle": "x"},
        {"source": "a", "sourceHandle": "other", "target": "c", "targetHandle": "y"},
        {"source": "b", "target": "d"},
        {"source": "a", "target": "e", "targetHandle": "all"},
        {"source": "e", "target": "f"},
    ],
}
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
NODES = """
import os
import sys
import signal
from pathlib import Path
from typing import Any
from workflow_runner import node

@node
async def work(a: Any) -> Any:
    with Path("journal").open("a") as journal:
        journal.write(f"{a}\\n")
    if a == "poison":
        os.kill(os.getpid(), signal.SIGKILL)
    if a == "fails":
        raise ValueError("the reason")
    return a
"""


@pytest.fixture(autouse=True)
def _fresh() -> None:
    CALLS.clear()
    STOP_AT.clear()


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    store = Store(locate(store_url), create=True)
    yield store
    await store.close()


async def saved(store: Store, run_id: str = "r", **states: NodeStateSnapshot) -> None:
    """A run that was saved by hand, with a completed node `a`."""
    manager = CheckpointManager(run_id, enabled=True, store=store)
    await manager.save_checkpoint(GRAPH, {"a"}, outputs={"a": {"out": 1, "other": (2,)}}, node_states=states or None)


async def execute(store: Store, statement: Any) -> None:
    await store.transact(lambda connection: connection.execute(statement))


async def set_job(store: Store, run_id: str = "r", **values: Any) -> None:
    await execute(store, update(JOB).where(JOB.c.id == run_id).values(**values))


async def make_stuck(store: Store, run_id: str = "r") -> None:
    """As a process leaves a run that was killed some time ago."""
    await set_job(store, run_id, status="running", updated_at=LONG_AGO, heartbeat_at=LONG_AGO)


async def killed_run(url: str, store: Store, run_id: str) -> None:
    """A run of the runner that came half through and was left as a kill leaves it."""
    STOP_AT.append(3)
    with pytest.raises(NodeFailed):
        await runner(url).run(pipeline(), enable={"checkpoint": {"every_firing": True}}, run_id=run_id)
    STOP_AT.clear()
    await make_stuck(store, run_id)


def held_by(store: Store, run_id: str, worker: str) -> Any:
    """Let a worker of another host hold a run."""
    holder = Holder(worker, "elsewhere", 1, None)
    return store.transact(lambda connection: take_lease(connection, run_id, holder, 60))


async def stopped_as_it_takes(
    monkeypatch: pytest.MonkeyPatch, name: str, work: Coroutine[Any, Any, object], turns: int = 0
) -> None:
    """Cancel something so many turns of the event loop after it took a run, of which it hears later."""
    task, loop = asyncio.create_task(work), asyncio.get_running_loop()
    module, _, function = name.rpartition(".")
    take = getattr(importlib.import_module(f"checkpoint_plugin.{module}"), function)

    def cancel(left: int) -> None:
        if left:
            loop.call_soon(cancel, left - 1)
        else:
            task.cancel()

    def taking(*arguments: Any, **more: Any) -> Any:
        loop.call_soon_threadsafe(cancel, turns)
        return take(*arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(f"checkpoint_plugin.{name}", taking)
        with pytest.raises(asyncio.CancelledError):
            await task


# The plan.


async def test_a_plan_says_what_is_left_to_do(store: Store, store_url: str) -> None:
    await saved(
        store,
        b=NodeStateSnapshot("b", "running", 2),
        c=NodeStateSnapshot("c", "scheduled", 1),
        d=NodeStateSnapshot("d", "suspended", 1, resume_state={"page": (3,)}),
        f=NodeStateSnapshot("f", "failed", 3, error="E: why"),
    )
    plan = await RecoveryService(url=store_url).plan("r", GRAPH)
    told = {node_id: (entry.action, entry.attempt) for node_id, entry in plan.items()}
    assert told == {
        "b": ("reschedule", 3),
        "c": ("reschedule", 1),
        "d": ("resume", 2),
        "e": ("reschedule", 1),
        "f": ("retry", 4),
    }, "a is completed, and nothing waits for g"
    assert plan["c"].reason == "it was scheduled and never started"
    assert "why" in plan["f"].reason
    assert plan["d"].resume_state == plan["d"]["resume_state"] == {"page": (3,)}
    assert plan["b"].inputs == {"x": 1} and plan["c"].inputs == {"y": (2,)}
    assert plan["e"].inputs == {"all": {"out": 1, "other": (2,)}}
    assert plan.completed == {"a": {"out": 1, "other": (2,)}}
    assert dict(plan["c"])["node_id"] == "c" and len(plan["c"]) == len(dict(plan["c"]))


async def test_a_plan_without_a_graph_takes_the_stored_one(store: Store) -> None:
    await saved(store, b=NodeStateSnapshot("b", "paused", 1))
    service = RecoveryService(store=store)
    assert await service.plan("r") == await service.plan("r", GRAPH)
    assert (await service.plan("r"))["b"].action == "resume"


async def test_a_plan_needs_no_checkpoint(store: Store) -> None:
    """What was written by row is enough, as a StateManager or a program of its own writes it."""
    jobs = JobRepository(store=store)
    await jobs.add(Job(id="r", status="running"))
    done, running, waits = (RunNodeState(run_id="r", node_id=name) for name in "abc")
    for state in (done, running, waits):
        state.mark_scheduled()
    done.mark_running()
    done.mark_completed({"out": 5})
    running.mark_running()
    for state in (done, running, waits):
        await jobs.save_node_state(state)
    plan = await RecoveryService(store=store).plan("r", GRAPH)
    assert {name: (entry.action, entry.attempt) for name, entry in plan.items() if name in "bc"} == {
        "b": ("reschedule", 2),
        "c": ("reschedule", 1),
    }
    assert "a" not in plan and plan["b"].inputs == {"x": 5}


async def test_a_plan_leaves_out_what_may_not_be_retried(store: Store) -> None:
    await saved(store, b=NodeStateSnapshot("b", "failed", 1, error="final"))
    jobs = JobRepository(store=store)
    state = await jobs.node_state("r", "b")
    assert state is not None
    state.retryable = False
    await jobs.save_node_state(state)
    assert "b" not in await RecoveryService(store=store).plan("r", GRAPH)


async def test_a_plan_of_another_graph_or_of_nothing_is_an_error(store: Store) -> None:
    await saved(store)
    service = RecoveryService(store=store)
    with pytest.raises(GraphMismatch, match="'a' is missing"):
        await service.plan("r", {"nodes": ["b"], "edges": []})
    with pytest.raises(GraphMismatch, match="no nodes"):
        await service.plan("r", {})
    for wanted in (service.plan("s", GRAPH), service.restore_node_state("s", "a"), service.resume("s")):
        with pytest.raises(RunNotFound):
            await wanted


async def test_a_node_s_state_comes_back(store: Store) -> None:
    suspended = NodeStateSnapshot("b", "suspended", 4, resume_state={1, 2})
    await saved(store, b=suspended)
    service = RecoveryService(store=store)
    assert await service.restore_node_state("r", "b") == suspended
    assert await service.restore_node_state("r", "never") is None
    assert await service.can_resume("r") and not await service.can_resume("s")


async def test_a_plan_of_a_run_of_the_runner(store: Store, store_url: str) -> None:
    await killed_run(store_url, store, "r")
    plan = await RecoveryService(store=store).plan("r")
    assert plan["double"].action == "retry" and "stop at 3" in plan["double"].reason
    assert plan["double"].inputs == {"x": 3}, "the firing that failed"


async def test_what_waits_on_the_edges_of_a_run_of_the_runner_is_in_the_plan(store: Store) -> None:
    """The producer is completed, and the consumer has not begun: what was handed over is not lost."""
    edges = [
        {"source": "a", "sourceHandle": "output", "target": "b", "targetHandle": "x"},
        {"id": "named", "source": "a", "sourceHandle": "output", "target": "b", "targetHandle": "y"},
    ]
    graph = {"nodes": [{"id": name, "type": "m.f", "data": {}} for name in "abc"], "edges": edges}
    await store.insert_job("r", Definition(encode({"graph": graph, "inputs": {}, "enable": {}}, str), "{}", "{}"))
    inbox = (EdgeSnapshot("e0", (1, (2,)), True), EdgeSnapshot("named", ("z",), True))
    nodes = (NodeSnapshot("a", "completed"), NodeSnapshot("b", "idle", inbox=inbox, order=("e0", "e0", "named")))
    await store.save(RunHistory("r", 1, 1), Snapshot("r", 1, "running", nodes, datetime.now(UTC)), "interval")
    plan = await RecoveryService(store=store).plan("r", graph)
    assert {name: entry.action for name, entry in plan.items()} == {"b": "reschedule"}
    assert plan["b"].inputs == {"x": [1, (2,)], "y": ["z"]}


@node(type="m.one")
async def one(v: int) -> int:
    return v


@node(type="m.gate")
async def gate(x: int, context: Context) -> int:
    await context.suspend("gate")
    return x


@node(type="m.join")
async def join(left: int, mid: int, right: int) -> int:
    return left + mid + right


async def test_an_edge_whose_place_is_the_id_of_another_keeps_its_handle_in_the_plan(store: Store, store_url: str) -> None:
    graph = Graph(enable={"checkpoint": {"url": store_url}})
    for place, name in enumerate("abc", 1):
        graph.add(one, name, v=place)
    graph.add(gate, "gate")
    graph.add(join, "join", sync_mode="zip_all")
    graph.edges = [
        EdgeSpec("c", "output", "gate", "x", "g"),
        EdgeSpec("a", "output", "join", "left", "e2"),
        EdgeSpec("b", "output", "join", "right"),
        EdgeSpec("gate", "output", "join", "mid", "e2'"),
    ]
    assert (await WorkflowRunner().run(graph, run_id="r")).status == "suspended"
    plan = await RecoveryService(store=store).plan("r")
    assert {name: dict(entry.inputs) for name, entry in plan.items()} == {"gate": {"x": 3}, "join": {"left": [1], "right": [2]}}


async def test_the_graph_of_a_run_with_lanes_is_the_one_that_it_was_saved_with(store: Store, store_url: str) -> None:
    graph = Graph(enable={"checkpoint": {"url": store_url}})
    graph.output("out", graph.add(gate, "gate", x=graph.add(one, "one", v=3), lanes=2))
    assert (await WorkflowRunner().run(graph, run_id="r")).status == "suspended"
    plan = await RecoveryService(store=store).plan("r", graph)
    assert plan["gate/1"].inputs == {"x": 3}
    data = await CheckpointManager("r", enabled=True, store=store).restore_checkpoint(graph)
    assert data is not None and data.node_states["gate/1"].status == "suspended"
    graph.nodes[1] = replace(graph.nodes[1], lanes=1)
    with pytest.raises(GraphMismatch, match="'gate/1' is missing"):
        await RecoveryService(store=store).plan("r", graph)


async def test_a_service_without_a_store_makes_none_and_says_so_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    service = RecoveryService(url=f"sqlite:///{tmp_path / 'none.db'}")
    assert await service.find_stuck_runs() == [] and await service.recover_all() == []
    assert [record.getMessage().startswith("nothing is recovered: ") for record in caplog.records] == [True]
    assert not await service.can_resume("r")
    for ask in (
        service.plan("r", GRAPH),
        service.restore_node_state("r", "a"),
        service.update_suspended_state("r", "a", 1),
        service.resume("r"),
    ):
        with pytest.raises(StoreMissing):
            await ask
    assert not list(tmp_path.iterdir())


# What is stuck.


async def test_a_run_is_stuck_when_nobody_holds_it_and_it_gave_no_sign_of_life(store: Store) -> None:
    jobs, now = JobRepository(store=store), datetime.now(UTC)
    old = now - timedelta(hours=1)
    await jobs.add(Job(id="stuck", status="running", updated_at=old))
    await jobs.add(Job(id="recovering", status="recovering", updated_at=old, worker_id="w", heartbeat_at=old))
    await jobs.add(Job(id="beating", status="running", updated_at=old, heartbeat_at=now))
    await jobs.add(Job(id="fresh", status="running"))
    await jobs.add(Job(id="held", status="running", updated_at=old))
    await jobs.add(Job(id="aside", status="running", updated_at=old, set_aside="why"))
    for status in ("scheduled", "suspended", "paused", "failed", "completed", "cancelled"):
        await jobs.add(Job(id=status, status=status, updated_at=old))
    await held_by(store, "held", "other")
    service = RecoveryService(store=store)
    assert [job.id for job in await service.find_stuck_runs(max_age=60)] == ["recovering", "stuck"]
    assert await service.find_stuck_runs(max_age=timedelta(days=365_000)) == []
    for age in (1e12, -1e12, float("nan"), timedelta.max):
        with pytest.raises(ValueError, match="duration"):
            await service.find_stuck_runs(max_age=age)
    assert await service.find_stuck_runs(timedelta(hours=2)) == []
    await execute(store, update(LEASE).where(LEASE.c.run_id == "held").values(expires_at=old))
    assert {job.id for job in await service.find_stuck_runs(60)} == {"recovering", "stuck", "held"}
    assert {job.id for job in await service.find_stuck_runs(0)} == {"recovering", "stuck", "held", "fresh", "beating"}


async def test_a_run_whose_process_is_gone_is_stuck_before_its_lease_ends(store: Store) -> None:
    await saved(store)
    await make_stuck(store)
    here = Holder.here("w")
    await store.transact(lambda connection: take_lease(connection, "r", here, 600))
    service = RecoveryService(store=store)
    assert await service.find_stuck_runs() == []
    await execute(store, update(LEASE).values(process_started=1.0))  # the number of the process was used again since
    assert [job.id for job in await service.find_stuck_runs()] == ["r"]


# Runs that were saved by hand.


async def test_a_run_saved_by_hand_is_executed_under_a_lease(store: Store, store_url: str) -> None:
    await saved(store)

    async def lease() -> Any:
        return await store.transact(lambda connection: connection.execute(select(LEASE)).one(), write=False)

    async def go_on(run_id: str) -> str:
        first = await lease()
        assert first.owner == "w1"
        assert (await JobRepository(store=store).get(run_id)).status == "running"
        async with asyncio.timeout(20):
            while (await lease()).expires_at == first.expires_at:  # noqa: ASYNC110  it lives in the database
                await asyncio.sleep(0.05)
        assert (await lease()).epoch == first.epoch
        other = await RecoveryService("w2", store_url, execute=go_on).resume(run_id)
        assert other.status == "held" and "worker w1" in (other.error or "")
        return "done"

    service = RecoveryService("w1", store_url, execute=go_on, lease_seconds=2.4)
    outcome = await service.resume("r")
    assert (outcome.status, outcome.result, outcome.error) == ("completed", "done", None)
    assert (await lease()).owner is None
    with pytest.raises(NotResumable, match="completed"):
        await service.resume("r")


@pytest.mark.parametrize("name", ["nodes", "blocked"])
def test_one_text_is_no_list(name: str) -> None:
    with pytest.raises(TypeError, match=rf"Give {name}=\['nodes.py'\]"):
        RecoveryService(**{name: "nodes.py"})  # type: ignore[arg-type]


def test_a_module_is_no_path_for_the_command() -> None:
    RecoveryService(nodes=[Path("nodes.py"), "shop.nodes"])
    with pytest.raises(TypeError, match=r"path or dotted name, not as <module .*`execute`"):
        RecoveryService(nodes=[sys.modules[__name__]])  # type: ignore[list-item]


async def test_numbers_by_which_nothing_is_ever_resumed_are_refused(store: Store) -> None:
    await saved(store)
    for attempts in (0, float("nan")):
        with pytest.raises(ValueError, match=f"max_attempts is at least 1, not {attempts}"):
            RecoveryService(store=store, max_attempts=attempts)  # type: ignore[arg-type]
    for seconds in (0, -1):
        with pytest.raises(ValueError, match=f"lease_seconds is above 0, not {seconds}"):
            RecoveryService(store=store, lease_seconds=seconds)
    service = RecoveryService(store=store, max_attempts=1, lease_seconds=0.5)
    with pytest.raises(ValueError, match="at_once is at least 1, not 0"):
        await service.recover_all(0, at_once=0)
    for watch_seconds in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="watch_seconds is above 0"):
            service.recover(watch_seconds=watch_seconds)


async def test_a_time_of_a_node_that_is_not_answered_is_refused_by_a_resume_too(store: Store) -> None:
    await saved(store)
    begun: list[str] = []

    async def execute(run_id: str) -> None:
        begun.append(run_id)

    with pytest.raises(ValueError, match="since names node 'b', for which there is no answer"):
        await RecoveryService(store=store, execute=execute).resume("r", since={"b": datetime.now(UTC)})
    assert begun == []


async def test_a_run_that_fails_again_is_failed(store: Store) -> None:
    await saved(store)

    async def fails(run_id: str) -> None:
        raise ValueError("the reason")

    outcome = await RecoveryService(store=store, execute=fails).resume("r")
    assert (outcome.status, outcome.error) == ("failed", "ValueError: the reason")
    job = await JobRepository(store=store).get("r")
    assert (job.status, job.error) == ("failed", "ValueError: the reason")


async def test_a_run_whose_function_cannot_even_be_called_is_failed(store: Store) -> None:
    await saved(store)
    functions: dict[str, Callable[[], Awaitable[object]]] = {}
    outcome = await RecoveryService(store=store, execute=lambda run_id: functions[run_id]()).resume("r")
    assert (outcome.status, outcome.error) == ("failed", "KeyError: 'r'")
    job = await JobRepository(store=store).get("r")
    assert (job.status, job.error) == ("failed", outcome.error)


async def test_a_run_in_which_a_node_still_waits_is_suspended(store: Store) -> None:
    await saved(store, b=NodeStateSnapshot("b", "suspended", 1))

    async def nothing(run_id: str) -> None:
        await asyncio.sleep(0)

    outcome = await RecoveryService(store=store, execute=nothing).resume("r")
    assert outcome.status == "suspended"
    assert (await JobRepository(store=store).get("r")).suspended_node_id == "b"


async def test_what_goes_on_with_a_run_is_awaited(store: Store) -> None:
    await saved(store)
    service = RecoveryService(store=store, execute=lambda run_id: None)  # type: ignore[arg-type, return-value]
    outcome = await service.resume("r")
    assert outcome.status == "failed"
    assert outcome.error == "TypeError: execute gave None, which cannot be awaited: let it be an `async def`"


async def test_who_loses_the_lease_is_stopped(store: Store) -> None:
    await saved(store)
    stopped: list[bool] = []

    async def go_on(run_id: str) -> None:
        holder = Holder("thief", "elsewhere", 1, None)
        await store.transact(lambda connection: take_lease(connection, run_id, holder, 60, steal=True))
        try:
            await asyncio.sleep(60)
        finally:
            stopped.append(True)

    outcome = await RecoveryService(store=store, execute=go_on, lease_seconds=0.3).resume("r")
    assert outcome.status == "held" and stopped == [True]
    row = await store.transact(lambda connection: connection.execute(select(LEASE)).one(), write=False)
    assert row.owner == "thief", "the new owner's lease is left alone"


@pytest.mark.parametrize("fails", [False, True])
async def test_who_lost_the_lease_without_hearing_of_it_ends_nothing(store: Store, fails: bool) -> None:
    """As a function that keeps the event loop busy for longer than the lease lasts."""
    await saved(store)

    async def go_on(run_id: str) -> None:
        holder = Holder("thief", "elsewhere", 1, None)
        await store.transact(lambda connection: take_lease(connection, run_id, holder, 60, steal=True))
        if fails:
            raise ValueError("the reason")

    outcome = await RecoveryService(store=store, execute=go_on).resume("r")
    assert outcome.status == "held"
    job = await JobRepository(store=store).get("r")
    assert (job.status, job.error) == ("running", None)
    row = await store.transact(lambda connection: connection.execute(select(LEASE)).one(), write=False)
    assert row.owner == "thief"


async def test_who_is_cancelled_while_it_takes_a_run_holds_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    await saved(store)
    service = RecoveryService("w", store=store, execute=lambda run_id: asyncio.sleep(0))
    await stopped_as_it_takes(monkeypatch, "opening.held_runs.take_lease", service.resume("r"))
    assert (await service.resume("r")).status == "completed"


@pytest.mark.parametrize("odd", ["a\0b", "\udcff"])
async def test_an_id_that_no_database_keeps_is_one_that_is_not_there(store: Store, odd: str) -> None:
    await saved(store, b=NodeStateSnapshot("b", "suspended"))
    service = RecoveryService(store=store)
    assert not await service.can_resume(odd)
    for work in (
        service.plan(odd),
        service.restore_node_state(odd, "a"),
        service.update_suspended_state(odd, "a", 1),
        name_checkpoint(store, odd, "mine"),
        check_store(store, [odd]),
        measure_store(store, odd),
    ):
        with pytest.raises(RunNotFound):
            await work
    with pytest.raises(NodeNotSuspended):
        await service.update_suspended_state("r", odd, 1)
    for run_id, name in ((odd, "mine"), ("r", odd)):
        with pytest.raises(StoreError, match="no savepoint"):
            await unname_checkpoint(store, run_id, name)


async def test_a_run_saved_by_hand_needs_a_function(store: Store) -> None:
    await saved(store)
    await make_stuck(store)
    service = RecoveryService(store=store)
    with pytest.raises(NotResumable, match="no function"):
        await service.resume("r")
    assert await service.recover_all() == [], "and is no concern of a pass without one"
    assert (await JobRepository(store=store).get("r")).status == "running"


def test_a_plan_looks_through_the_edges_once_however_many_nodes_there_are() -> None:
    class Counted(tuple[Edge, ...]):
        passes = 0

        def __iter__(self) -> Iterator[Edge]:
            Counted.passes += 1
            return super().__iter__()

    nodes = [f"n{number}" for number in range(100)]
    edges = Counted((source, "", target, "x") for source, target in pairwise(nodes))
    states = {"n0": NodeStateSnapshot("n0", "completed", outputs={"output": 7})}
    plan = make_plan("r", GraphShape(dict.fromkeys(nodes, ""), edges), states, set(), {})
    assert {node_id: entry.inputs for node_id, entry in plan.items()} == {"n1": {"x": 7}}
    assert Counted.passes == 1


# Answers.


async def test_an_answer_reaches_the_state_of_the_node(store: Store) -> None:
    await saved(store, b=NodeStateSnapshot("b", "suspended", 1, resume_state={"page": 3}), c=NodeStateSnapshot("c", "suspended"))
    service = RecoveryService(store=store)
    await service.update_suspended_state("r", "b", {"yes": True})
    await service.update_suspended_state("r", "c", (1, 2))
    plan = await service.plan("r")
    assert plan["b"].resume_state == {"page": 3, "yes": True}
    assert plan["c"].resume_state == (1, 2)


async def test_a_node_of_a_run_saved_by_hand_takes_answers_until_it_goes_on(store: Store) -> None:
    await saved(store, b=NodeStateSnapshot("b", "suspended", 1, resume_state={"page": 3}), c=NodeStateSnapshot("c", "suspended"))
    service = RecoveryService(store=store)
    for part in ({"ann": "yes"}, {"bob": "no"}, {"ann": "no"}):
        await service.update_suspended_state("r", "b", part)
    for whole in (1, 2):
        await service.update_suspended_state("r", "c", whole)
    plan = await service.plan("r")
    assert plan["b"].resume_state == {"page": 3, "ann": "no", "bob": "no"}
    assert plan["c"].resume_state == 2
    await CheckpointManager("r", enabled=True, store=store).save_checkpoint(active_nodes=["b"])
    with pytest.raises(NodeNotSuspended, match="'b' of run 'r' is running"):
        await service.update_suspended_state("r", "b", {"bob": "yes"})


async def test_an_answer_to_what_a_node_waited_for_earlier_changes_nothing(store: Store) -> None:
    await saved(store, b=NodeStateSnapshot("b", "suspended"), c=NodeStateSnapshot("c", "suspended"))
    state = RunNodeState(run_id="r", node_id="b", status="running")
    state.mark_suspended("asks")
    await JobRepository(store=store).save_node_state(state)
    since = state.suspended_at
    assert since is not None
    service = RecoveryService(store=store)
    for node_id, asked in (("b", since - timedelta(microseconds=1)), ("c", since)):
        with pytest.raises(SuspensionChanged):
            await service.update_suspended_state("r", node_id, 1, since=asked)
        assert (await service.plan("r"))[node_id].resume_state is None
    await service.update_suspended_state("r", "b", 1, since=since)
    assert (await service.plan("r"))["b"].resume_state == 1


async def test_an_answer_to_nobody_changes_nothing(store: Store) -> None:
    await saved(store, b=NodeStateSnapshot("b", "suspended", 1), c=NodeStateSnapshot("c", "running"))
    service = RecoveryService(store=store)
    with pytest.raises(NodeNotSuspended, match="'c' of run 'r' is running") as told:
        await service.update_suspended_state("r", "c", 2)
    assert told.value.exit_code == 2
    with pytest.raises(NodeNotSuspended, match="'never' of run 'r' is idle"):
        await service.update_suspended_state("r", "never", 1)
    with pytest.raises(TaggedValueError):
        await service.update_suspended_state("r", "b", object())
    with pytest.raises(RunNotFound):
        await service.update_suspended_state("s", "b", 1)
    assert (await service.plan("r"))["b"].resume_state is None


async def test_answers_are_given_all_or_none(store: Store) -> None:
    await saved(store, b=NodeStateSnapshot("b", "suspended", 1), c=NodeStateSnapshot("c", "running"))

    async def go_on(run_id: str) -> None:
        raise AssertionError("it must not begin")

    with pytest.raises(NodeNotSuspended):
        await RecoveryService(store=store, execute=go_on).resume("r", updates={"b": 1, "c": 2})
    assert (await RecoveryService(store=store).plan("r"))["b"].resume_state is None


async def test_answers_may_be_of_any_number(store: Store) -> None:
    await saved(store, b=NodeStateSnapshot("b", "suspended", 1))
    many = {f"never-{number}": 1 for number in range(33_000)}  # more than PostgreSQL takes arguments of a statement
    with pytest.raises(NodeNotSuspended, match="'never-0' of run 'r' is idle"):
        await answer_nodes(store, "r", {"b": 1, **many})


# Many runs.


@pytest.mark.parametrize("strategy", ["manager", "runner"])
async def test_a_function_that_waited_for_something_cancelled_stops_no_other(store: Store, strategy: str) -> None:
    for run_id in "abc":
        await saved(store, run_id)
    await store.transact(lambda connection: connection.execute(update(JOB).values(execution_strategy=strategy)))

    async def execute(run_id: str) -> None:
        if run_id == "a":
            gone = asyncio.ensure_future(asyncio.sleep(10))
            gone.cancel()
            await gone
        await JobRepository(store=store).change(run_id, lambda job: None if job.status == "completed" else job.mark_running())
        if strategy == "runner":
            await JobRepository(store=store).change(run_id, lambda job: job.mark_completed())

    async with asyncio.timeout(20):
        found = await RecoveryService(store=store, execute=execute).recover_all(-60, at_once=1)
    assert [(each.run_id, each.status) for each in found] == [("a", "failed"), ("b", "completed"), ("c", "completed")]
    if strategy == "manager":
        job = await JobRepository(store=store).get("a")
        assert (job.status, job.error) == ("failed", "CancelledError: ")


async def test_a_run_that_its_runner_stopped_is_told_as_paused(store: Store) -> None:
    await saved(store)
    await store.transact(lambda connection: connection.execute(update(JOB).values(execution_strategy="runner")))

    async def execute(run_id: str) -> None:
        await JobRepository(store=store).change(run_id, lambda job: job.mark_running())
        await JobRepository(store=store).change(run_id, lambda job: job.mark_paused())
        raise RuntimeError("it was stopped")

    [found] = await RecoveryService(store=store, execute=execute).recover_all(-60)
    assert (found.run_id, found.status, found.error) == ("r", "paused", "RuntimeError: it was stopped")
    job = await JobRepository(store=store).get("r")
    assert (job.status, job.retry_count) == ("paused", 0), "who stopped it resumes it"


async def test_a_paused_run_is_resumed_where_that_is_asked_for(store: Store) -> None:
    await saved(store)
    await set_job(store, status="paused", updated_at=LONG_AGO)

    async def go_on(run_id: str) -> None:
        await CheckpointManager(run_id, enabled=True, store=store).save_checkpoint(GRAPH, set("abcdefg"))

    service = RecoveryService(store=store, execute=go_on)
    assert await service.recover_all() == []
    assert [(found.run_id, found.status) for found in await service.recover_all(paused=True)] == [("r", "completed")]


async def test_a_recovery_that_is_cancelled_leaves_its_run_to_the_next_one(store: Store) -> None:
    await saved(store)
    await make_stuck(store)
    await set_job(store, execution_strategy="runner")
    begun = asyncio.Event()

    async def execute(run_id: str) -> None:
        jobs = JobRepository(store=store)
        await jobs.change(run_id, lambda job: job.mark_running())
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await jobs.change(run_id, lambda job: job.mark_paused())

    work = asyncio.create_task(RecoveryService(store=store, execute=execute).recover_all())
    async with asyncio.timeout(20):
        await begun.wait()
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
    job = await JobRepository(store=store).get("r")
    assert (job.status, job.worker_id, job.finished_at, job.retry_count) == ("recovering", None, None, 0)


async def test_why_a_run_failed_is_told_where_it_is_gone(store: Store) -> None:
    await saved(store)
    await store.transact(lambda connection: connection.execute(update(JOB).values(execution_strategy="runner")))

    async def execute(run_id: str) -> None:
        await JobRepository(store=store).change(run_id, lambda job: job.mark_completed())
        await prune_runs(store, Retention(drop_finished=0), [run_id])
        raise RuntimeError("no such order")

    found = await RecoveryService(store=store, execute=execute).resume("r")
    assert (found.status, found.error) == ("failed", "RuntimeError: no such order")


async def test_every_stuck_run_is_resumed_and_one_that_fails_stops_no_other(store: Store) -> None:
    for place in range(5):
        await saved(store, f"r{place}")
        await make_stuck(store, f"r{place}")
    running: list[str] = []
    most: list[int] = []
    both = asyncio.Event()

    async def go_on(run_id: str) -> str:
        running.append(run_id)
        most.append(len(running))
        if len(most) > 1:
            both.set()
        await both.wait()  # the first waits for the second
        await asyncio.sleep(0.01)
        running.remove(run_id)
        if run_id == "r2":
            raise ValueError("this one")
        return run_id

    outcomes = await RecoveryService(store=store, execute=go_on).recover_all(at_once=2)
    assert {outcome.run_id: outcome.status for outcome in outcomes} == {
        "r0": "completed",
        "r1": "completed",
        "r2": "failed",
        "r3": "completed",
        "r4": "completed",
    }
    assert max(most) == 2
    assert await RecoveryService(store=store, execute=go_on).recover_all() == []


async def test_of_several_recoveries_one_takes_each_run(store_url: str, store: Store) -> None:
    names = [f"r{place}" for place in range(12)]
    for name in names:
        await saved(store, name)
        await make_stuck(store, name)
    executed: list[str] = []

    async def go_on(run_id: str) -> None:
        executed.append(run_id)
        await asyncio.sleep(0.01)

    services = [RecoveryService(f"w{place}", store_url, execute=go_on) for place in range(4)]
    done = await asyncio.gather(*(service.recover_all() for service in services))
    assert sorted(executed) == sorted(names)
    assert sorted(outcome.run_id for part in done for outcome in part) == sorted(names)


async def test_a_stale_list_after_ownership_moved_resumes_nothing(store: Store) -> None:
    """What was stuck when somebody looked is looked at again when it is claimed."""
    await saved(store)
    await make_stuck(store)
    begun: list[str] = []

    async def go_on(run_id: str) -> None:
        begun.append(run_id)

    service = RecoveryService("w1", store=store, execute=go_on)
    stale = await service.find_stuck_runs()
    lease = await held_by(store, "r", "w2")

    def claim(connection: Any) -> Claim | None:
        return claim_run(connection, "w1", Search(timedelta()), 5)

    assert await store.transact(claim) is None
    assert [(await service.resume(job.id)).status for job in stale] == ["held"]
    await store.transact(lambda connection: release_lease(connection, "r", lease.epoch))
    await JobRepository(store=store).change("r", lambda job: job.mark_completed())
    assert await service.recover_all(0) == []
    with pytest.raises(NotResumable, match="completed"):
        await service.resume(stale[0].id)
    assert begun == []


async def test_a_claim_looks_past_runs_that_are_executed_on_this_host(store: Store) -> None:
    """Whether a process of this host lives, no query tells: such runs are looked at one by one, some at a time."""
    here = Holder.here("w")
    for place in range(10):
        await saved(store, f"r{place}")
        await make_stuck(store, f"r{place}")
        if place < 9:
            await store.transact(lambda connection, p=place: take_lease(connection, f"r{p}", here, 600))  # type: ignore[misc]
    found = await store.transact(lambda connection: claim_run(connection, "w", Search(timedelta()), 5))
    assert found is not None and found.run_id == "r9"
    assert await store.transact(lambda connection: claim_run(connection, "w", Search(timedelta()), 5)) is None


async def test_a_claim_goes_through_all_runs_a_few_times_however_many_are_executed_on_this_host(store: Store) -> None:
    here, asked = Holder.here("w"), list[str]()
    for place in range(60):
        await store.insert_job(f"r{place}", definition())
        await make_stuck(store, f"r{place}")
        await store.transact(lambda connection, p=place: take_lease(connection, f"r{p}", here, 600))  # type: ignore[misc]
    await store.transact(lambda connection: hear(connection, asked.append))
    assert await store.transact(lambda connection: claim_run(connection, "w", Search(timedelta()), 5)) is None
    assert len([text for text in asked if "LIMIT" in text]) == 5, "4, 8, 16 and 32 of them, and none"


async def test_a_claim_passes_over_any_number_of_runs(store: Store) -> None:
    for run_id in ("r", "s"):
        await saved(store, run_id)
        await make_stuck(store, run_id)
    many = ["r", *(f"other-{number}" for number in range(33_000))]  # more than PostgreSQL takes arguments of a statement
    search = Search(timedelta(), without=many)
    assert await store.transact(lambda connection: may_wait(connection, search), write=False)
    found = await store.transact(lambda connection: claim_run(connection, "w", search, 5))
    assert found is not None and found.run_id == "s"
    assert not await store.transact(lambda connection: may_wait(connection, search), write=False)


async def test_a_row_that_was_written_since_it_was_looked_at_is_left_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on PostgreSQL, where another recovery may have claimed the run between the look and the lock."""
    await saved(store)
    await make_stuck(store)

    def claim(connection: Any) -> Claim | None:
        def look(row: Any, now: datetime) -> bool:
            connection.execute(update(JOB).where(JOB.c.id == row.run_id).values(version=JOB.c.version + 1))
            return False

        monkeypatch.setattr("checkpoint_plugin.recovery.claims.is_held", look)
        try:
            return claim_run(connection, "w", Search(timedelta()), 5)
        finally:
            monkeypatch.undo()

    assert await store.transact(claim) is None
    assert (await JobRepository(store=store).get("r")).status == "running"


async def test_an_empty_run_id_is_never_resumed(store: Store) -> None:
    begun: list[str] = []

    async def go_on(run_id: str) -> None:
        begun.append(run_id)

    service = RecoveryService(store=store, execute=go_on)
    with pytest.raises(ValueError, match="the run id is empty"):
        await service.resume("")
    with pytest.raises(ValueError, match="a run id"):
        await JobRepository(store=store).add(Job(id=""))
    await saved(store)
    await make_stuck(store)
    row = await store.transact(lambda connection: connection.execute(select(JOB)).one(), write=False)
    await execute(store, JOB.insert().values({**row._mapping, "id": ""}))  # as another program may have written it
    await execute(store, LEASE.insert().values(run_id="", epoch=1, generation=0))
    outcomes = {outcome.run_id: outcome for outcome in await service.recover_all()}
    assert outcomes[""].status == "set_aside" and "empty" in (outcomes[""].error or "")
    assert begun == ["r"]
    assert await service.recover_all() == [], "and it is not found again"


async def test_a_run_that_kills_its_worker_again_and_again_is_set_aside(store: Store) -> None:
    await saved(store)
    await make_stuck(store)
    service = RecoveryService("w", store=store, max_attempts=3)

    def claim(connection: Any) -> Claim | None:
        return claim_run(connection, "w", Search(timedelta()), 3)

    for tries in range(3):
        found = await store.transact(claim)
        assert found is not None and (found.tries, found.set_aside) == (tries, None)
        assert await store.transact(claim) is None, "it is claimed"
        await set_job(store, updated_at=LONG_AGO, heartbeat_at=LONG_AGO)  # the recovery was killed long ago
    found = await store.transact(claim)
    assert found is not None and found.set_aside == "it was resumed 3 times and came to no end"
    job = await JobRepository(store=store).get("r")
    assert (job.status, job.set_aside) == ("failed", found.set_aside)
    assert await service.find_stuck_runs(0) == []


async def test_a_recovery_that_did_not_begin_does_not_count(store: Store) -> None:
    await saved(store)
    await make_stuck(store)

    def claim(connection: Any) -> Claim | None:
        return claim_run(connection, "w", Search(timedelta()), 5)

    for counts, status, tries in ((False, "running", 0), (True, "running", 1), (None, "running", 0)):
        found = await store.transact(claim)
        assert found is not None
        job = await JobRepository(store=store).get("r")
        assert (job.status, job.worker_id) == ("recovering", "w")
        await store.transact(lambda connection, f=found, c=counts: end_claim(connection, f, counts=c))  # type: ignore[misc]
        job = await JobRepository(store=store).get("r")
        assert (job.status, job.retry_count, job.worker_id) == (status, tries, None)


async def test_a_run_of_a_recovery_that_was_stopped_is_claimed_by_the_next_one_at_once(store: Store) -> None:
    """It gave its last sign of life just now, and who was killed instead is waited for."""
    await saved(store)
    await make_stuck(store)

    def claim(connection: Any, worker_id: str) -> Claim | None:
        return claim_run(connection, worker_id, Search(timedelta()), 5)

    stopped = await store.transact(lambda connection: claim(connection, "stopped"))
    assert stopped is not None
    assert await store.transact(lambda connection: claim(connection, "next")) is None
    await set_job(store, status="paused", attempt=stopped.attempt + 1, finished_at=LONG_AGO)  # which its process saved at the end
    await store.transact(lambda connection: end_claim(connection, stopped, counts=False, stopped=True))
    job = await JobRepository(store=store).get("r")
    assert (job.status, job.worker_id, job.finished_at, job.retry_count) == ("recovering", None, None, 0)
    found = await store.transact(lambda connection: claim(connection, "next"))
    assert found is not None and (found.status, found.tries) == ("recovering", 0)


@pytest.mark.parametrize("aside", [False, True])
async def test_a_claim_of_which_nobody_heard_is_gone_on_with(store: Store, aside: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its commit was done, and the connection lost before that was told."""
    for run_id in ("other", "r"):
        await saved(store, run_id)
        await make_stuck(store, run_id)
    await set_job(store, "other", status="recovering", worker_id="another", heartbeat_at=datetime.now(UTC))
    await set_job(store, retry_count=5 if aside else 0)
    transact, lost, executed = Store.transact, list[Claim](), list[str]()

    async def lose(self: Store, work: Any, **more: Any) -> Any:
        found = await transact(self, work, **more)
        if isinstance(found, Claim) and not lost:
            lost.append(found)
            raise StoreUnreachable("the connection was lost")
        return found

    async def go_on(run_id: str) -> None:
        executed.append(run_id)
        await CheckpointManager(run_id, enabled=True, store=store).save_checkpoint(GRAPH, set("abcdefg"))

    monkeypatch.setattr(Store, "transact", lose)
    outcomes = await RecoveryService("w", store=store, execute=go_on).recover_all(0)
    assert [(each.run_id, each.status) for each in outcomes] == [("r", "set_aside" if aside else "completed")]
    assert executed == ([] if aside else ["r"])
    job = await JobRepository(store=store).get("r")
    assert (job.status, job.retry_count) == (("failed", 5) if aside else ("completed", 0)), "it counts once"


async def test_runs_that_wait_for_the_longest_time_are_claimed_first(store: Store) -> None:
    run_ids = ["c", "a", "d", "b"]
    for place, run_id in enumerate(run_ids):
        await saved(store, run_id)
        await make_stuck(store, run_id)
        await set_job(store, run_id, updated_at=LONG_AGO + timedelta(seconds=place))
    assert [row.id for row in await store.transact(lambda c: fetch_waiting(c, Search(timedelta())), write=False)] == run_ids
    claims = [await store.transact(lambda c: claim_run(c, "w", Search(timedelta()), 5)) for _ in run_ids]
    assert [claim and claim.run_id for claim in claims] == run_ids


async def test_a_recovery_whose_process_died_leaves_the_run_to_who_claimed_it_since(store: Store) -> None:
    await saved(store)
    await make_stuck(store)

    def claim(connection: Any, worker_id: str) -> Claim | None:
        return claim_run(connection, worker_id, Search(timedelta()), 5)

    slow = await store.transact(lambda connection: claim(connection, "slow"))
    assert slow is not None
    await set_job(store, status="running", attempt=slow.attempt + 1, worker_id="the process of slow")  # which died at once
    assert await store.transact(lambda connection: claim(connection, "fast")) is not None
    await store.transact(lambda connection: end_claim(connection, slow, counts=True))
    job = await JobRepository(store=store).get("r")
    assert (job.status, job.worker_id, job.retry_count) == ("recovering", "fast", 2)
    assert await store.transact(lambda connection: claim(connection, "third")) is None


async def test_a_recovery_that_is_stopped_as_it_claims_a_run_claims_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await saved(store)
    service = RecoveryService("w", store=store, execute=lambda run_id: asyncio.sleep(60))
    for turns in range(30):
        await make_stuck(store)
        await stopped_as_it_takes(monkeypatch, "recovery.passes.claim_run", service.recover_all(0, at_once=1), turns)
        job = await JobRepository(store=store).get("r")
        assert (job.status, job.worker_id if job.status == "recovering" else None, job.retry_count) == ("running", None, 0), turns


async def test_a_recovery_that_ends_before_it_goes_on_with_a_run_lets_it_go(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await saved(store)
    await make_stuck(store)
    claim, executed = RecoveryPass._claim, []
    claims: list[Claim | None] = []

    async def claim_one(self: RecoveryPass, *given: Any) -> Claim | None:
        if claims:
            raise StoreUnreadable("the next one cannot be looked for")  # before anything else could begin
        claims.append(await claim(self, *given))
        return claims[0]

    async def go_on(run_id: str) -> None:
        executed.append(run_id)

    monkeypatch.setattr(RecoveryPass, "_claim", claim_one)
    with pytest.raises(StoreUnreadable, match="the next one"):
        await RecoveryService("w", store=store, execute=go_on).recover_all(0)
    job = await JobRepository(store=store).get("r")
    assert (job.status, job.worker_id, job.retry_count, executed) == ("running", None, 0, [])


async def test_a_claim_is_kept_until_the_run_begins(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("checkpoint_plugin.recovery.passes.CLAIM_SECONDS", 0.03)
    await store.insert_job("r", definition())
    await make_stuck(store)
    jobs = JobRepository(store=store)
    signs: set[datetime | None] = set()

    async def slow(run_id: str) -> None:
        async with asyncio.timeout(30):
            while len(signs) < 3:
                signs.add((await jobs.get(run_id)).heartbeat_at)
                await asyncio.sleep(0.01)

    await RecoveryService("w", store=store, execute=slow).recover_all(0)
    assert len(signs) == 3


def test_a_run_that_cannot_be_resumed_rests_twice_as_long_at_each_try(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_000.0]
    monkeypatch.setattr("checkpoint_plugin.recovery.passes.time", SimpleNamespace(monotonic=lambda: now[0]))
    rests = _Rests(60)

    def rest(outcome: RecoveryOutcome | None) -> float:
        """For how long it is left alone when it has been executed."""
        rests.begin("r")
        now[0] += 86_400
        assert rests.now() == ["r"], "it is executed, for however long"
        rests.end("r", outcome)
        ended = now[0]
        while rests.now():
            now[0] += 1
        return now[0] - ended

    died, refused, held = (RecoveryOutcome("r", status) for status in ("died", "refused", "held"))
    assert [rest(each) for each in (died, refused, held, None, died)] == [60, 120, 240, 480, 600]
    assert [rest(each) for each in (died, RecoveryOutcome("r", "failed"), died, died)] == [600, 60, 60, 120]
    now[0] += 86_400
    assert (rests.now(), rest(died)) == ([], 60), "what was long ago is forgotten"


async def test_a_watch_outlives_a_database_that_is_away_for_long(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ended meanwhile cannot be written; its claim ends by itself, and the watch goes on."""
    monkeypatch.setattr("checkpoint_plugin.recovery.passes.RECONNECT_SECONDS", 0.1)
    for run_id in ("one", "two"):
        await saved(store, run_id)
    await make_stuck(store, "one")
    await set_job(store, "two", status="paused")
    transact, away, heard, told, begun = store.transact, asyncio.Event(), asyncio.Event(), [], []

    async def unsteady(*arguments: Any, **options: Any) -> Any:
        if away.is_set():
            raise StoreUnreachable("it is away", undone=True)
        return await transact(*arguments, **options)

    monkeypatch.setattr(store, "transact", unsteady)

    async def go_on(run_id: str) -> None:
        begun.append(run_id)
        if run_id == "one":
            away.set()

    def trouble(error: StoreError) -> None:
        told.append(str(error))
        heard.set()

    async def come_back() -> None:
        async with asyncio.timeout(20):
            await heard.wait()
        away.clear()
        await make_stuck(store, "two")

    back = asyncio.create_task(come_back())
    outcomes = RecoveryService(store=store, execute=go_on).recover(0, watch_seconds=0.05, trouble=trouble)
    async with asyncio.timeout(20), aclosing(outcomes):
        async for outcome in outcomes:
            if outcome.run_id == "two":
                break
    await back
    assert begun == ["one", "two"] and told and set(told) == {"it is away"}
    assert (outcome.status, (await JobRepository(store=store).get("two")).status) == ("completed", "completed")


async def test_a_watch_tells_of_a_database_that_is_away_when_it_looks_for_runs(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("checkpoint_plugin.recovery.passes.RECONNECT_SECONDS", 0.05)
    await saved(store)
    await make_stuck(store)
    transact, told = store.transact, list[str]()

    async def unsteady(*arguments: Any, **options: Any) -> Any:
        if not told:
            raise StoreUnreachable("it is away", undone=True)
        return await transact(*arguments, **options)

    async def go_on(run_id: str) -> None:
        await CheckpointManager(run_id, enabled=True, store=store).save_checkpoint(GRAPH, set("abcdefg"))

    def trouble(error: StoreError) -> None:
        told.append(str(error))

    monkeypatch.setattr(store, "transact", unsteady)
    outcomes = RecoveryService(store=store, execute=go_on).recover(0, watch_seconds=0.01, trouble=trouble)
    async with asyncio.timeout(20), aclosing(outcomes):
        outcome = await anext(outcomes)
    assert (outcome.run_id, outcome.status, told) == ("r", "completed", ["it is away"])


async def test_a_process_that_cannot_be_started_stops_no_other_run(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    async def none_left(*arguments: Any) -> Any:
        raise BlockingIOError("no more processes")

    monkeypatch.setattr("checkpoint_plugin.recovery.resumption.resume_in_child", none_left)
    for run_id in ("one", "two"):
        await saved(store, run_id)
        await make_stuck(store, run_id)
        await set_job(store, run_id, execution_strategy="runner")
    outcomes = await RecoveryService(store=store).recover_all()
    assert {(outcome.run_id, outcome.status) for outcome in outcomes} == {("one", "refused"), ("two", "refused")}
    assert (await JobRepository(store=store).get("one")).retry_count == 0


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 6, 143])
async def test_a_process_that_leaves_in_the_middle_of_a_run_has_died(
    store: Store, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by `os._exit` in a node, or in a library that it calls: no code of its own tells how the run stands."""
    await store.insert_job("r", definition())
    await make_stuck(store)
    attempts: list[int] = []

    async def leaves(run_id: str, *given: object) -> ChildEnd:
        attempts.append((await store.load_job(run_id)).attempt + 1)
        lease, _ = await store.begin_attempt(run_id, attempts[-1], Holder.here())
        await store.let_go(lease)  # nobody holds it when its process is gone
        return ChildEnd(code, None)

    monkeypatch.setattr("checkpoint_plugin.recovery.resumption.resume_in_child", leaves)
    service = RecoveryService(store=store, max_attempts=2)
    told = [[(outcome.status, outcome.error) for outcome in await service.recover_all(-3_600)] for _ in range(4)]
    died, aside = ("died", f"its process ended with exit code {code}"), ("set_aside", "it was resumed 2 times and came to no end")
    assert told == [[died], [died], [aside], []]
    assert attempts == [2, 3]


@pytest.mark.parametrize(("code", "is_held", "status"), [(4, True, "held"), (2, True, "refused"), (5, False, "refused")])
async def test_a_run_that_another_executes_or_whose_store_went_away_did_not_die(
    store: Store, code: int, is_held: bool, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.insert_job("r", definition())
    await make_stuck(store)

    async def leaves(run_id: str, *given: object) -> ChildEnd:
        lease, _ = await store.begin_attempt(run_id, 2, Holder("other", "elsewhere", 1, None))
        if not is_held:
            await store.let_go(lease)
        return ChildEnd(code, "why")

    monkeypatch.setattr("checkpoint_plugin.recovery.resumption.resume_in_child", leaves)
    outcome = await RecoveryService(store=store).resume("r")
    assert (outcome.status, outcome.error) == (status, "why")


async def test_a_run_that_another_took_since_its_process_ended_is_told_by_how_that_ended(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.insert_job("r", definition())
    await make_stuck(store)

    async def ends(run_id: str, *given: object) -> ChildEnd:
        for attempt in (2, 3):
            await store.begin_attempt(run_id, attempt, Holder(f"w{attempt}", "elsewhere", 1, None), steal=True)
        return ChildEnd(1, "the reason")

    monkeypatch.setattr("checkpoint_plugin.recovery.resumption.resume_in_child", ends)
    outcome = await RecoveryService(store=store).resume("r")
    assert (outcome.status, outcome.error) == ("failed", "the reason")


async def test_a_suspended_run_is_woken_when_its_time_has_come(store: Store) -> None:
    await saved(store, b=NodeStateSnapshot("b", "suspended"))
    await set_job(store, status="suspended")
    woken: list[str] = []

    async def go_on(run_id: str) -> None:
        woken.append(run_id)
        await CheckpointManager(run_id, enabled=True, store=store).save_checkpoint(GRAPH, {"b"})

    async def wake_at(moment: datetime | None) -> None:
        state = RunNodeState(run_id="r", node_id="b", status="running")
        state.mark_suspended("sleeps", wake_at=moment)
        await JobRepository(store=store).save_node_state(state)

    service = RecoveryService(store=store, execute=go_on)
    for moment in (None, datetime.now(UTC) + timedelta(hours=1)):
        await wake_at(moment)
        assert await service.recover_all(0) == []
    await wake_at(datetime.now(UTC))
    assert await service.find_stuck_runs(0) == [], "it sleeps, and nobody was to execute it"
    assert [outcome.status for outcome in await service.recover_all()] == ["completed"]
    assert woken == ["r"]


async def test_a_look_for_runs_that_wait_goes_through_no_nodes_of_those_that_sleep(tmp_path: Path) -> None:
    """A service has thousands of them for each that is due, and looks every few seconds. Counted in instructions of SQLite."""

    async def steps(nodes: int) -> int:
        store = Store(locate(f"sqlite:///{tmp_path}/{nodes}.db"), create=True)
        tomorrow, count = datetime.now(UTC) + timedelta(days=1), 0

        def sleep(connection: Connection) -> None:
            for number in range(20):
                run_id = f"r{number}"
                job = Job(id=run_id, status="suspended", created_at=LONG_AGO, updated_at=LONG_AGO)
                connection.execute(insert(JOB).values(job.model_dump()))
                connection.execute(insert(LEASE).values(run_id=run_id, epoch=1, generation=0, newest_number=0))
                first = RunNodeState(run_id=run_id, node_id="s", status="suspended", wake_at=tomorrow, updated_at=LONG_AGO)
                others = [RunNodeState(run_id=run_id, node_id=f"n{n}", updated_at=LONG_AGO) for n in range(nodes)]
                for state in (first, *others):
                    connection.execute(insert(RUN_NODE_STATE).values(state.model_dump()))

        def tick() -> None:
            nonlocal count
            count += 1

        def look(connection: Connection) -> bool:
            connection.driver.set_progress_handler(tick, 1)
            return may_wait(connection, Search(timedelta()))

        await store.transact(sleep)
        assert not await store.transact(look)
        await store.close()
        return count

    assert await steps(30) == await steps(1) > 0


@pytest.mark.parametrize("status", ["failed", "paused", "cancelled", "completed"])
async def test_a_run_that_came_to_an_end_while_a_node_slept_is_not_woken(store: Store, status: str) -> None:
    await saved(store, b=NodeStateSnapshot("b", "suspended"))
    state = RunNodeState(run_id="r", node_id="b", status="running")
    state.mark_suspended("sleeps", wake_at=datetime.now(UTC))
    await JobRepository(store=store).save_node_state(state)
    await set_job(store, status=status)
    assert not await store.transact(lambda c: fetch_waiting(c, Search(timedelta())), write=False)
    assert await store.transact(lambda c: claim_run(c, "w", Search(timedelta()), 5)) is None
    await set_job(store, status="suspended")
    assert await store.transact(lambda c: claim_run(c, "w", Search(timedelta()), 5)) is not None


async def test_a_run_is_not_woken_for_a_node_that_sleeps_no_more(store: Store) -> None:
    """Its row still tells until when it slept; the run waits for another node."""
    await saved(store, b=NodeStateSnapshot("b", "suspended"), c=NodeStateSnapshot("c", "suspended"))
    state = RunNodeState(run_id="r", node_id="b", status="running")
    state.mark_suspended("sleeps", wake_at=datetime.now(UTC))
    state.mark_resuming()
    await JobRepository(store=store).save_node_state(state)
    await set_job(store, status="suspended")
    assert not await store.transact(lambda c: fetch_waiting(c, Search(timedelta())), write=False)


async def test_a_run_that_was_answered_is_gone_on_with(store: Store) -> None:
    await saved(store, b=NodeStateSnapshot("b", "suspended"))
    await set_job(store, status="suspended")
    service = RecoveryService(store=store)
    assert not await store.transact(lambda c: fetch_waiting(c, Search(timedelta())), write=False)
    await service.update_suspended_state("r", "b", "yes")
    assert [row.id for row in await store.transact(lambda c: fetch_waiting(c, Search(timedelta())), write=False)] == ["r"]


# Runs of a runner.


async def test_an_answer_that_is_cancelled_as_it_takes_the_run_holds_nothing(
    store: Store, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await killed_run(store_url, store, "r")
    with pytest.raises(NodeNotSuspended):
        await answer_nodes(store, "r", {"double": 1})
    await stopped_as_it_takes(monkeypatch, "opening.held_runs.take_lease", answer_nodes(store, "r", {"double": 1}))
    row = await store.transact(lambda connection: connection.execute(select(LEASE)).one(), write=False)
    assert row.owner is None


@node(type="m.gated")
async def gated(context: Context) -> int:
    answer: int = await context.suspend("gate")
    return answer


async def test_an_answer_that_comes_while_a_recovery_has_claimed_the_run_leaves_it_as_it_stood(
    store: Store, store_url: str
) -> None:
    """A recovery that then cannot go on gives it back: it told of no node any more that waits."""
    graph = Graph()
    for name in ("one", "two"):
        graph.output(f"out of {name}", graph.add(gated, node_id=name))
    await runner(store_url).run(graph, enable={"checkpoint": True}, run_id="r")
    await answer_nodes(store, "r", {"one": 1})
    before = await JobRepository(store=store).get("r")
    claim = await store.transact(lambda connection: claim_run(connection, "w", Search(timedelta()), 5))
    assert claim is not None
    await answer_nodes(store, "r", {"two": 2})
    assert (await JobRepository(store=store).get("r")).status == "recovering"
    await store.transact(lambda connection: end_claim(connection, claim, counts=False))
    after = await JobRepository(store=store).get("r")
    assert (after.status, after.suspended_node_id) == (before.status, before.suspended_node_id) == ("suspended", "one")
    assert (await runner(store_url).resume("r", graph=graph)).outputs == {"out of one": [1], "out of two": [2]}


async def test_a_run_of_the_runner_is_resumed_by_a_function(store: Store, store_url: str) -> None:
    await killed_run(store_url, store, "r")
    service = RecoveryService(store=store, execute=lambda run_id: runner(store_url).resume(run_id, graph=pipeline()))
    (outcome,) = await service.recover_all()
    assert outcome.status == "completed"
    assert outcome.result.outputs == WHOLE  # type: ignore[attr-defined]
    assert CALLS.count("double 1") == 1
    assert (await JobRepository(store=store).get("r")).retry_count == 0


async def test_a_run_of_the_runner_whose_node_fails_again_has_come_to_an_end(store: Store, store_url: str) -> None:
    await killed_run(store_url, store, "r")
    await set_job(store, retry_count=3)
    STOP_AT.append(3)
    service = RecoveryService(store=store, execute=lambda run_id: runner(store_url).resume(run_id, graph=pipeline()))
    (outcome,) = await service.recover_all()
    assert outcome.status == "failed" and (outcome.error or "").startswith("NodeFailed: ")
    job = await JobRepository(store=store).get("r")
    assert (job.status, job.retry_count) == ("failed", 0)


async def test_a_run_that_another_worker_holds_is_held(store: Store, store_url: str) -> None:
    await killed_run(store_url, store, "r")
    await held_by(store, "r", "other")
    service = RecoveryService(store=store, execute=lambda run_id: runner(store_url).resume(run_id, graph=pipeline()))
    assert (await service.resume("r")).status == "held"
    assert await service.recover_all(0) == []


async def test_a_run_that_another_worker_took_since_it_was_claimed_is_left_as_it_stood(store: Store, store_url: str) -> None:
    """As who brings an answer does, for a moment."""
    await killed_run(store_url, store, "r")
    others: list[Any] = []

    async def resume(run_id: str) -> object:
        if not others:
            others.append(await held_by(store, run_id, "other"))
        return await runner(store_url).resume(run_id, graph=pipeline())

    service = RecoveryService(store=store, execute=resume)
    assert [outcome.status for outcome in await service.recover_all(0)] == ["held"]
    job = await JobRepository(store=store).get("r")
    assert (job.status, job.worker_id, job.retry_count) == ("running", None, 0)
    await store.let_go(others[0])
    assert [outcome.status for outcome in await service.recover_all(0)] == ["completed"]


async def test_a_damaged_run_is_refused_and_stands_as_before(store: Store, store_url: str) -> None:
    """Its process takes the run, reads it, and puts the status back that it found."""
    await killed_run(store_url, store, "r")
    await execute(store, update(NODE_VERSION).where(NODE_VERSION.c.node_id == "double").values(body=b"x"))
    service = RecoveryService("w", store=store, execute=lambda run_id: runner(store_url).resume(run_id, graph=pipeline()))
    (outcome,) = await service.recover_all()
    assert outcome.status == "refused" and "'double'" in (outcome.error or "")
    job = await JobRepository(store=store).get("r")
    assert (job.status, job.retry_count, job.attempt) == ("running", 0, 2)


async def test_a_run_of_a_host_whose_clock_is_ahead_is_gone_on_with(store: Store, store_url: str) -> None:
    await killed_run(store_url, store, "r")
    await set_job(store, updated_at=datetime.now(UTC) + timedelta(hours=1))  # by its host, the sign of life by the database
    service = RecoveryService(store=store, execute=lambda run_id: runner(store_url).resume(run_id, graph=pipeline()))
    assert [outcome.status for outcome in await service.recover_all()] == ["completed"]


async def test_a_run_that_is_refused_on_a_host_whose_clock_is_behind_is_resumed_once(store: Store, store_url: str) -> None:
    await killed_run(store_url, store, "r")
    await execute(store, update(NODE_VERSION).where(NODE_VERSION.c.node_id == "double").values(body=b"x"))

    async def resume(run_id: str) -> None:
        try:
            await runner(store_url).resume(run_id, graph=pipeline())
        finally:
            await set_job(store, updated_at=LONG_AGO)

    async with asyncio.timeout(30):
        outcomes = await RecoveryService("w", store=store, execute=resume).recover_all()
    assert [outcome.status for outcome in outcomes] == ["refused"]


async def test_a_run_saved_by_hand_that_sleeps_again_on_a_host_whose_clock_is_behind_is_executed_once(store: Store) -> None:
    await saved(store)
    jobs, executed = JobRepository(store=store), []
    asleep = RunNodeState(run_id="r", node_id="b", status="running")
    asleep.mark_suspended("sleep", wake_at=LONG_AGO)
    await jobs.save_node_state(asleep)
    await jobs.change("r", lambda job: job.mark_suspended("b", "sleep"))

    async def go_on(run_id: str) -> None:
        executed.append(run_id)
        await set_job(store, heartbeat_at=LONG_AGO, updated_at=LONG_AGO)

    async with asyncio.timeout(30):
        outcomes = await RecoveryService("w", store=store, execute=go_on).recover_all()
    assert ([outcome.status for outcome in outcomes], executed) == (["suspended"], ["r"])


async def test_a_run_that_was_set_aside_is_taken_back_by_a_resume(store: Store, store_url: str) -> None:
    await killed_run(store_url, store, "r")
    await set_job(store, status="failed", set_aside="why", retry_count=5)
    service = RecoveryService(store=store, execute=lambda run_id: runner(store_url).resume(run_id, graph=pipeline()))
    assert await service.recover_all(0) == []
    assert (await service.resume("r")).status == "completed"
    job = await JobRepository(store=store).get("r")
    assert (job.set_aside, job.retry_count) == (None, 0)


async def test_a_run_saved_by_hand_that_was_set_aside_is_taken_back_by_a_resume(store: Store) -> None:
    await saved(store)
    asleep = RunNodeState(run_id="r", node_id="b", status="running")
    asleep.mark_suspended("sleep", wake_at=LONG_AGO)
    await JobRepository(store=store).save_node_state(asleep)
    await set_job(store, status="failed", set_aside="why", retry_count=5)

    async def go_on(run_id: str) -> None:
        pass

    service = RecoveryService("w", store=store, execute=go_on)
    assert await service.recover_all(0) == []
    assert (await service.resume("r")).status == "suspended"
    job = await JobRepository(store=store).get("r")
    assert (job.set_aside, job.retry_count) == (None, 0)
    assert [outcome.status for outcome in await service.recover_all(0)] == ["suspended"]


def write_flow(folder: Path) -> None:
    (folder / "nodes.py").write_text(NODES)
    document = {
        "nodes": [
            {"id": "in", "type": "workflow.Input", "data": {"name": "a"}},
            {"id": "body", "type": "nodes.work", "data": {}},
        ],
        "edges": [{"source": "in", "target": "body", "targetHandle": "a"}],
        "enable": {"checkpoint": {"every_firing": True}},
    }
    (folder / "flow.json").write_text(json.dumps(document))


async def start(folder: Path, url: str, value: str) -> int:
    """Run the flow by the command, under its input as id."""
    arguments = ("run", "flow.json", "--nodes", "nodes.py", "--run-id", value, "--input", f"a={json.dumps(value)}", "--quiet")
    process = await asyncio.create_subprocess_exec(
        *child_command(), *arguments, cwd=folder, env=environment(url), stderr=asyncio.subprocess.DEVNULL
    )
    return await process.wait()


def child_command() -> tuple[str, ...]:
    from checkpoint_plugin.recovery.child import COMMAND

    return COMMAND[:-1]


def environment(url: str) -> Mapping[str, str]:
    return {**os.environ, "WORKFLOW_CHECKPOINT_URL": url}


async def test_a_run_of_the_runner_is_resumed_by_a_process(
    store: Store, store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_flow(tmp_path)
    assert await start(tmp_path, store_url, "good") == 0
    await make_stuck(store, "good")
    assert await start(tmp_path, store_url, "fails") == 1
    await make_stuck(store, "fails")
    assert await start(tmp_path, store_url, "poison") == -9
    assert {job.id for job in await RecoveryService(store=store).find_stuck_runs(0)} == {"good", "fails", "poison"}
    (refused,) = [o for o in await RecoveryService(store=store).recover_all(0) if o.run_id == "poison"]
    assert refused.status == "refused" and "nodes" in (refused.error or "")
    jobs = JobRepository(store=store)
    assert (await jobs.get("poison")).retry_count == 0
    await make_stuck(store, "good")
    await make_stuck(store, "fails")
    outcomes = {o.run_id: o for o in await RecoveryService(store=store, nodes=["nodes.py"], max_attempts=2).recover_all(0)}
    assert {run_id: outcome.status for run_id, outcome in outcomes.items()} == {
        "good": "completed",
        "fails": "failed",
        "poison": "died",
    }
    assert "by signal 9" in (outcomes["poison"].error or "")
    assert "the reason" in (outcomes["fails"].error or "")
    assert (await jobs.get("poison")).retry_count == 1
    service = RecoveryService(store=store, nodes=["nodes.py"], max_attempts=2)
    assert [outcome.status for outcome in await service.recover_all(0)] == ["died"]
    assert [outcome.status for outcome in await service.recover_all(0)] == ["set_aside"]
    assert await service.recover_all(0) == []
    assert (tmp_path / "journal").read_text().split().count("poison") == 3, "once by itself, twice resumed"
