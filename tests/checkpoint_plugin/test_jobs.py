"""The lives of runs and nodes, and the questions about them, on both databases."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import select, update

from checkpoint_plugin import CheckpointManager, Job, JobRepository, RunNodeState, StateManager
from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.location import locate
from checkpoint_plugin.errors import FieldInvalid, IllegalTransition, StaleVersion
from checkpoint_plugin.models import JOB
from checkpoint_plugin.status import NODE_STATUSES, NODE_STEPS, RESUMABLE, RUN_STATUSES, RUN_STEPS, can_be_resumed
from checkpoint_plugin.store import Store
from checkpoint_plugin.tables.definition import INDEXED_BYTES
from hookspecs import RunExists, RunNotFound, TaggedValueError

START = datetime(2026, 1, 1, tzinfo=UTC)
RUN_MARKS: dict[str, Callable[[Job], None]] = {
    "scheduled": lambda job: job.mark_scheduled(),
    "running": lambda job: job.mark_running(),
    "suspended": lambda job: job.mark_suspended("n", "why"),
    "paused": lambda job: job.mark_paused(),
    "completed": lambda job: job.mark_completed(),
    "failed": lambda job: job.mark_failed("why"),
    "cancelled": lambda job: job.mark_cancelled(),
    "recovering": lambda job: job.mark_recovering("w"),
}
NODE_MARKS: dict[str, Callable[[RunNodeState], None]] = {
    "scheduled": lambda node: node.mark_scheduled(),
    "running": lambda node: node.mark_running(),
    "suspended": lambda node: node.mark_suspended("why"),
    "paused": lambda node: node.mark_paused(),
    "completed": lambda node: node.mark_completed({"out": 1}),
    "failed": lambda node: node.mark_failed("why"),
}


def node(status: str = "idle") -> RunNodeState:
    return RunNodeState(run_id="r", node_id="n", status=status)


@pytest.fixture
async def jobs(store_url: str) -> AsyncIterator[JobRepository]:
    store = Store(locate(store_url), create=True)
    yield JobRepository(store=store)
    await store.close()


def test_a_new_run_and_a_new_node_have_the_documented_defaults() -> None:
    job = Job(id="r")
    assert (job.status, job.job_type, job.retry_count, job.max_retries, job.version) == ("scheduled", "workflow", 0, 3, 0)
    assert job.created_at.tzinfo is not None
    assert (node().status, node().attempt, node().retryable) == ("idle", 1, True)


@pytest.mark.parametrize(("old", "new"), list(itertools.product(sorted(RUN_STATUSES), RUN_MARKS)))
def test_a_run_makes_legal_steps_only(old: str, new: str) -> None:
    job = Job(id="r", status=old)
    before = job.model_dump()
    if new in RUN_STEPS[old] or old == new == "running":
        RUN_MARKS[new](job)
        assert job.status == new
    else:
        with pytest.raises(IllegalTransition, match=f"'r' is {old} and cannot become {new}. It (may|becomes)"):
            RUN_MARKS[new](job)
        assert job.model_dump() == before


@pytest.mark.parametrize(("old", "new"), list(itertools.product(sorted(NODE_STATUSES), NODE_MARKS)))
def test_a_node_makes_legal_steps_only(old: str, new: str) -> None:
    state = node(old)
    before = state.model_dump()
    if new in NODE_STEPS[old] or (old == new and new in ("running", "scheduled")):
        NODE_MARKS[new](state)
        assert state.status == new
    else:
        with pytest.raises(IllegalTransition, match="node 'n' of run 'r'"):
            NODE_MARKS[new](state)
        assert state.model_dump() == before


def test_a_completed_or_cancelled_run_stays_so_and_no_other_is_stuck() -> None:
    assert {status for status, steps in RUN_STEPS.items() if not steps} == {"completed", "cancelled"}
    assert RUN_STEPS.keys() == RUN_STATUSES
    assert NODE_STEPS.keys() == NODE_STATUSES


def test_the_steps_of_a_run_leave_their_traces() -> None:
    job = Job(id="r")
    job.mark_running("w1", at=START)
    assert (job.started_at, job.worker_id, job.heartbeat_at) == (START, "w1", START)
    job.mark_suspended("n", "waits for Ann", {"page": (3,)}, {"who": "Ann"}, at=START + timedelta(1))
    assert (job.suspended_node_id, job.suspension_reason) == ("n", "waits for Ann")
    assert job.suspension_state == {"page": (3,)}
    assert job.suspension_metadata == {"who": "Ann"}
    job.mark_resuming("w2")
    assert (job.status, job.worker_id, job.suspended_node_id) == ("recovering", "w2", "n")
    job.mark_running()
    assert (job.started_at, job.suspended_node_id, job.suspension_state) == (START, None, None)
    job.mark_failed(ValueError("no"), at=START + timedelta(2))
    assert (job.error, job.error_message, job.failed_at) == ("ValueError: no",) * 2 + (START + timedelta(2),)
    job.mark_scheduled()
    assert (job.error, job.failed_at, job.finished_at, job.retry_count) == (None, None, None, 1)
    job.mark_running()
    job.mark_completed(at=START + timedelta(3))
    assert job.completed_at == job.finished_at == job.updated_at == START + timedelta(3)
    assert job.is_finished and not job.is_incomplete and not job.is_resumable


def test_the_steps_of_a_node_leave_their_traces() -> None:
    state = node()
    state.mark_scheduled(at=START)
    state.mark_running(at=START + timedelta(1))
    assert (state.scheduled_at, state.started_at) == (START, START + timedelta(1))
    state.mark_suspended("waits", {"k": {1, 2}}, at=START + timedelta(2))
    assert state.is_suspended and state.is_resumable and state.resume_state == {"k": {1, 2}}
    state.mark_resuming()
    assert (state.status, state.attempt, state.resume_state) == ("running", 2, {"k": {1, 2}})
    state.mark_failed("no", retryable=False)
    assert (state.last_error, state.is_retryable, state.is_resumable) == ("no", False, False)
    state.mark_running(attempt=3)
    state.mark_completed({"out": 1.5})
    assert (state.outputs, state.last_error, state.attempt) == ({"out": 1.5}, None, 3)
    assert not state.is_incomplete
    with pytest.raises(IllegalTransition, match="cannot become resuming"):
        state.mark_resuming()


def test_a_worker_that_does_not_say_its_name_leaves_the_one_before() -> None:
    job = Job(id="r", status="suspended", worker_id="w1")
    for at, step in enumerate((job.mark_recovering, job.mark_running, job.mark_running, job.mark_paused, job.mark_resuming)):
        step(at=START + timedelta(at))
        assert job.worker_id == "w1"
    assert job.heartbeat_at == START + timedelta(4)
    job.mark_running("w2")
    assert job.worker_id == "w2"


def test_a_run_that_is_given_up_has_ended_and_was_not_tried_again() -> None:
    job = Job(id="r", status="running")
    job.mark_paused(at=START)
    assert (job.status, job.finished_at) == ("paused", START)
    job.mark_running()
    assert (job.status, job.finished_at) == ("running", None)
    job.mark_failed("no")
    job.mark_cancelled(at=START)
    assert (job.finished_at, job.retry_count, job.error) == (START, 0, "no")


@pytest.mark.parametrize("status", sorted(NODE_STATUSES))
def test_what_is_left_to_do_for_a_node_is_told_by_its_status(status: str) -> None:
    state = node(status)
    is_left = status in ("scheduled", "running", "suspended", "paused")
    assert state.is_incomplete is is_left
    assert state.is_resumable is (is_left or status == "failed")
    assert state.is_retryable is (status == "failed")
    assert (state.outputs, state.suspension_metadata, state.resume_state) == (None, None, None)


@pytest.mark.parametrize("status", sorted(RUN_STATUSES))
def test_only_a_failed_run_with_retries_left_is_retryable(status: str) -> None:
    assert Job(id="r", status=status, max_retries=1).is_retryable is (status == "failed")
    assert not Job(id="r", status=status, max_retries=1, retry_count=1).is_retryable


def test_a_node_that_is_scheduled_again_has_not_ended() -> None:
    state = node("running")
    state.mark_completed({"out": 1})
    state.mark_scheduled(attempt=4)
    assert (state.attempt, state.outputs, state.completed_at) == (4, None, None)
    state.mark_scheduled()
    assert state.attempt == 4


def test_what_has_no_json_form_changes_nothing() -> None:
    state = node("running")
    with pytest.raises(TaggedValueError):
        state.mark_completed({"out": object()})
    with pytest.raises(TaggedValueError):
        state.mark_suspended("why", object())
    assert state.status == "running"
    job = Job(id="r", status="running")
    with pytest.raises(TaggedValueError):
        job.mark_suspended("n", "why", object())
    assert job.status == "running"


@pytest.mark.parametrize("status", sorted(RUN_STATUSES))
def test_a_run_can_be_resumed_by_its_status_and_a_checkpoint(status: str) -> None:
    assert Job(id="r", status=status, has_checkpoint=True).is_resumable is (status not in ("completed", "cancelled"))
    assert not Job(id="r", status=status).is_resumable
    assert can_be_resumed(status, True) is (status in RESUMABLE)


async def test_a_run_comes_back_as_it_was(jobs: JobRepository) -> None:
    job = Job(id="r", user_id="u", workflow_id="w", graph='{"nodes": [], "edges": []}', params='{"x": 1}', cost=1.5)
    await jobs.add(job)
    found = await jobs.get("r")
    assert found.model_dump() == job.model_dump()
    with pytest.raises(RunExists):
        await jobs.add(Job(id="r"))
    with pytest.raises(RunNotFound):
        await jobs.get("other")
    with pytest.raises(RunNotFound):
        await jobs.get("\udcff\0")


@pytest.mark.parametrize("encrypted", [False, True])
async def test_a_long_graph_does_not_stand_in_the_row_that_changes(
    store_url: str, encrypted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On SQLite each change of a row writes all of it."""
    if encrypted:
        monkeypatch.setenv("WORKFLOW_CHECKPOINT_KEY", "ab" * 32)
    jobs = JobRepository(store_url)
    nodes = [{"id": f"n{number}", "type": "t", "data": {}} for number in range(500)]
    graph = json.dumps({"nodes": nodes, "edges": []})
    job = Job(id="r", graph=graph, params='{"x": 1}')
    await jobs.add(job)
    for found in (await jobs.get("r"), *await jobs.get_many(["r"]), *(await jobs.find()).items):
        assert (found.graph, found.params) == (graph, '{"x": 1}')
    await jobs.change("r", lambda job: job.mark_running())
    assert (await jobs.get("r")).graph == graph
    store = Store(locate(store_url), create=False)
    row = await store.transact(lambda connection: connection.execute(select(JOB)).one(), write=False)
    await store.close()
    assert row.graph is None
    assert row.params is not None


async def test_several_runs_come_back_in_the_order_that_was_asked_for(jobs: JobRepository) -> None:
    for run_id in "abc":
        await jobs.add(Job(id=run_id))
    assert [job.id for job in await jobs.get_many(["c", "never", "a"])] == ["c", "a"]
    with pytest.raises(TypeError, match=r"run_ids is a list, not the text 'c'\. Give \['c'\]"):
        await jobs.get_many("c")
    assert await jobs.get_many([]) == []


async def test_a_run_that_was_added_is_a_run_of_the_store(store_url: str) -> None:
    store = Store(locate(store_url), create=True)
    await JobRepository(store=store).add(Job(id="r", params='{"x": {"$type": "tuple", "value": [1]}}'))
    loaded = await store.load_job("r")
    assert (loaded.status, loaded.inputs) == ("scheduled", {"x": (1,)})
    await store.close()


async def test_who_is_slower_writes_nothing(jobs: JobRepository) -> None:
    await jobs.add(Job(id="r"))
    mine, theirs = await jobs.get("r"), await jobs.get("r")
    theirs.mark_running("w")
    await jobs.save(theirs)
    mine.mark_cancelled()
    with pytest.raises(StaleVersion, match="version 0"):
        await jobs.save(mine)
    found = await jobs.get("r")
    assert (found.status, found.worker_id, found.version) == ("running", "w", 1)
    theirs.mark_completed()
    await jobs.save(theirs)
    with pytest.raises(RunNotFound):
        await jobs.save(Job(id="other"))


async def test_of_many_writers_none_is_lost(jobs: JobRepository, store_url: str) -> None:
    """Each from a store of its own: an update that another overwrites would be missing in the sum."""
    await jobs.add(Job(id="r", retry_count=0))

    async def add(times: int) -> None:
        store = Store(locate(store_url), create=False)
        mine = JobRepository(store=store)
        done = 0
        while done < times:
            job = await mine.get("r")
            job.retry_count += 1
            try:
                await mine.save(job)
            except StaleVersion:
                continue
            done += 1
        await store.close()

    await asyncio.gather(*(add(10) for _ in range(4)))
    found = await jobs.get("r")
    assert (found.retry_count, found.version) == (40, 40)


async def test_a_change_is_tried_again_when_somebody_was_faster(jobs: JobRepository) -> None:
    await jobs.add(Job(id="r"))

    async def start(worker: str) -> None:
        def step(job: Job) -> None:
            job.logs = f"{job.logs or ''}{worker}"

        await jobs.change("r", step)

    await asyncio.gather(*(start(worker) for worker in "abc"))
    assert sorted((await jobs.get("r")).logs or "") == ["a", "b", "c"]
    await jobs.change("r", lambda job: job.mark_cancelled())
    with pytest.raises(IllegalTransition):
        await jobs.change("r", lambda job: job.mark_running())


async def test_a_step_that_nobody_would_await_is_refused(jobs: JobRepository) -> None:
    async def cancel(job: Job) -> None:
        job.mark_cancelled()

    await jobs.add(Job(id="r"))
    with pytest.raises(TypeError, match=r"not an `async def` like .*cancel"):
        await jobs.change("r", cancel)


async def test_a_save_leaves_alone_what_belongs_to_the_checkpoints(jobs: JobRepository, store_url: str) -> None:
    await jobs.add(Job(id="r"))
    job = await jobs.get("r")
    job.has_checkpoint, job.attempt, job.graph = True, 9, "{}"
    await jobs.save(job)
    found = await jobs.get("r")
    assert (found.has_checkpoint, found.attempt, found.version) == (False, 1, 1)
    assert found.graph != "{}"


BAD_FIELDS: list[Any] = [
    *((name, "a\0b", f"{name} 'a.x00b' holds NUL") for name in ("user_id", "workflow_id", "worker_id", "logs", "metadata_json")),
    *((name, "\udcff", f"{name} .* a lone surrogate") for name in ("user_id", "job_type", "suspended_node_id", "execution_id")),
    ("user_id", 5, "user_id is text, not 5"),
    ("cost", float("nan"), "cost is a finite number, not nan"),
    ("cost", "1", "cost is a finite number"),
    ("retry_count", 2**31, "retry_count is a whole number"),
    ("retry_count", None, "retry_count cannot be cleared"),
    ("max_retries", "x", "max_retries is a whole number"),
    pytest.param(
        "max_retries",
        10**5_000,
        "max_retries is a whole number from .*, not <int, whose repr raises",
        id="a number of more digits than are shown",
    ),
    ("started_at", START.replace(tzinfo=None), "started_at .* has no time zone"),
    ("heartbeat_at", "2026-01-01", "heartbeat_at is a datetime"),
]


@pytest.mark.parametrize(("name", "value", "words"), BAD_FIELDS)
async def test_a_field_that_cannot_be_stored_is_refused_by_its_name(
    jobs: JobRepository, name: str, value: Any, words: str
) -> None:
    with pytest.raises(FieldInvalid, match=f"^run 'new': {words}"):
        await jobs.add(Job(id="new", **{name: value}))
    with pytest.raises(RunNotFound):
        await jobs.get("new")
    job = await jobs.add(Job(id="r", user_id="ann"))
    setattr(job, name, value)
    with pytest.raises(FieldInvalid, match=f"^run 'r': {words}"):
        await jobs.save(job)
    with pytest.raises(FieldInvalid, match=f"^run 'r': {words}"):
        await jobs.change("r", lambda job: setattr(job, name, value))
    found = await jobs.get("r")
    assert (found.version, found.user_id) == (0, "ann")


@pytest.mark.parametrize("attempt", [-5, 0, 2**31 - 1])
async def test_an_attempt_of_which_a_row_would_be_damaged_is_refused(jobs: JobRepository, attempt: int) -> None:
    with pytest.raises(FieldInvalid, match=r"^run 'new': attempt is a whole number from 1 to 2147483646, not"):
        await jobs.add(Job(id="new", attempt=attempt))
    with pytest.raises(RunNotFound):
        await jobs.get("new")


@pytest.mark.parametrize("status", ["Running", "bogus", "idle", "", 5, None])
async def test_a_status_that_is_none_is_refused_with_those_that_are(jobs: JobRepository, store_url: str, status: Any) -> None:
    words = "status cannot be cleared" if status is None else r"no status of a run. Use one of cancelled, completed, .*suspended."
    with pytest.raises(FieldInvalid, match=words):
        await jobs.add(Job(id="new", status=status))
    job = await jobs.add(Job(id="r"))
    job.status = status
    with pytest.raises(FieldInvalid, match=words):
        await jobs.save(job)
    assert (await jobs.get("r")).status == "scheduled"
    store = Store(locate(store_url), create=False)
    assert [row.id for row in await store.jobs()] == ["r"]
    await store.close()


@pytest.mark.parametrize("status", ["Done", "cancelled", ["idle"], None])
async def test_a_status_that_is_none_of_a_node_is_refused(jobs: JobRepository, status: Any) -> None:
    await jobs.add(Job(id="r"))
    words = (
        "status cannot be cleared" if status is None else r"no status of a node. Use one of completed, failed, idle, .*suspended."
    )
    with pytest.raises(FieldInvalid, match=words):
        await jobs.save_node_state(node(status))
    assert await jobs.node_states("r") == []
    await jobs.save_node_state(node("suspended"))


async def test_texts_for_people_are_escaped(jobs: JobRepository) -> None:
    await jobs.add(Job(id="r", status="running", error="\0"))
    assert (await jobs.get("r")).error == r"\x00"
    await jobs.change("r", lambda job: job.mark_failed("a\0b\udcff"))
    found = await jobs.get("r")
    assert (found.error, found.error_message) == (r"a\x00b\udcff",) * 2
    await jobs.save_node_state(RunNodeState(run_id="r", node_id="n", last_error="\udcff", suspension_reason="\0"))
    state = await jobs.node_state("r", "n")
    assert state is not None
    assert (state.last_error, state.suspension_reason) == (r"\udcff", r"\x00")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("attempt", "x", "attempt is a whole number"),
        ("attempt", -1, "attempt is a whole number from 0"),
        ("retryable", "yes", "retryable is True or False"),
        ("wake_at", START.replace(tzinfo=None), "wake_at .* has no time zone"),
        ("outputs_json", "\0", "outputs_json .* holds NUL"),
        ("node_id", "\udcff", "node_id .* holds NUL or a lone surrogate"),
        ("run_id", "\0", "run_id .* holds NUL or a lone surrogate"),
    ],
)
async def test_a_field_of_a_node_that_cannot_be_stored_is_refused(jobs: JobRepository, name: str, value: Any, words: str) -> None:
    await jobs.add(Job(id="r"))
    state = node()
    setattr(state, name, value)
    with pytest.raises(FieldInvalid, match=words):
        await jobs.save_node_state(state)
    assert await jobs.node_states("r") == []


async def test_a_question_that_makes_no_sense_is_refused_and_not_told_as_damage(jobs: JobRepository) -> None:
    await jobs.add(Job(id="r"))
    naive = START.replace(tzinfo=None)
    questions: list[tuple[dict[str, Any], str]] = [
        *(({name: naive}, f"{name} .* has no time zone") for name in ("created_after", "created_before", "updated_before")),
        ({"created_after": "2026-01-01"}, "created_after is a datetime"),
        *(({name: "\udcff"}, f"{name} .* lone surrogate") for name in ("user_id", "workflow_id", "job_type")),
        ({"user_id": "\0"}, "user_id .* holds NUL"),
        ({"job_type": 5}, "job_type is text, not 5"),
        ({"offset": -1}, "an offset of 0 or more"),
        ({"limit": 0}, "a limit of 1 or more"),
    ]
    for arguments, words in questions:
        with pytest.raises(ValueError, match=words):
            await jobs.find(**arguments)
    with pytest.raises(ValueError, match="'done' is no status of a node"):
        await jobs.node_states("r", "done")
    for wrong in ("\0", "\udcff"):
        assert [job.id for job in await jobs.get_many(["r", wrong])] == ["r"]
        assert await jobs.node_states(wrong) == ()
        assert await jobs.node_state("r", wrong) is None
        assert await jobs.node_state(wrong, "n") is None
        with pytest.raises(RunNotFound):
            await jobs.get(wrong)
        with pytest.raises(FieldInvalid, match=r"id .* lone surrogate"):
            await jobs.save(Job(id=wrong))


async def test_questions_have_pages_and_totals(jobs: JobRepository, store_url: str) -> None:
    statuses = sorted(RUN_STATUSES)
    for place, status in enumerate(statuses * 3):
        await jobs.add(Job(id=f"r{place:02}", status=status, created_at=START + timedelta(hours=place), user_id=f"u{place % 2}"))
    page = await jobs.find(limit=10, offset=20)
    assert ([job.id for job in page.items], page.total) == (["r03", "r02", "r01", "r00"], 24)
    assert [job.status for job in (await jobs.find("failed")).items] == ["failed"] * 3
    assert (await jobs.find(["failed", "paused"], user_id="u0")).total + (
        await jobs.find(["failed", "paused"], user_id="u1")
    ).total == 6
    assert (await jobs.incomplete(limit=2)).total == 15
    assert len((await jobs.incomplete(limit=2)).items) == 2
    assert {job.status for job in (await jobs.suspended()).items} == {"suspended"}
    inside = await jobs.find(created_after=START + timedelta(hours=4), created_before=START + timedelta(hours=7))
    assert [job.id for job in inside.items] == ["r06", "r05"]
    assert (await jobs.find(updated_before=START)).total == 0
    assert (await jobs.find(workflow_id="w", job_type="workflow")).total == 0
    assert len((await jobs.find(limit=10**20)).items) == 24
    assert (await jobs.find(limit=10**20, offset=10**20)).items == []
    with pytest.raises(ValueError, match="limit 0"):
        await jobs.find(limit=0)
    with pytest.raises(ValueError, match="offset -1"):
        await jobs.find(offset=-1)
    with pytest.raises(ValueError, match="no status"):
        await jobs.find("done")


async def test_a_run_is_retryable_until_its_retries_are_used(jobs: JobRepository) -> None:
    await jobs.add(Job(id="r", max_retries=2))
    tried = 0
    while True:
        await jobs.change("r", lambda job: job.mark_running())
        await jobs.change("r", lambda job: job.mark_failed("no"))
        found = (await jobs.retryable()).items
        assert [job.is_retryable for job in found] == [True] * len(found)
        if not found:
            break
        tried += 1
    assert tried == 2
    assert not (await jobs.get("r")).is_retryable


def _set_has_checkpoint(connection: Connection, run_id: str, it_has: bool) -> None:
    connection.execute(update(JOB).where(JOB.c.id == run_id).values(has_checkpoint=it_has))


async def test_the_definition_of_resumable_is_the_same_for_the_database(jobs: JobRepository, store_url: str) -> None:
    store = Store(locate(store_url), create=False)
    for status, it_has in itertools.product(sorted(RUN_STATUSES), (False, True)):
        name = f"{status} {it_has}"
        await jobs.add(Job(id=name, status=status))
        await store.transact(partial(_set_has_checkpoint, run_id=name, it_has=it_has))
    found = {job.id for job in (await jobs.resumable()).items}
    everything = (await jobs.find(limit=100)).items
    assert found == {job.id for job in everything if job.is_resumable}
    assert len(found) == 6
    await store.close()


async def test_a_node_comes_back_as_it_was(jobs: JobRepository) -> None:
    await jobs.add(Job(id="r"))
    assert await jobs.node_state("r", "n") is None
    state = node()
    state.mark_running()
    await jobs.save_node_state(state)
    state.mark_suspended("why", {"a": 1})
    await jobs.save_node_state(state)
    found = await jobs.node_state("r", "n")
    assert found is not None
    assert found.model_dump() == state.model_dump()
    assert [s.node_id for s in await jobs.node_states("r", "suspended")] == ["n"]
    assert await jobs.node_states("r", "running") == []
    with pytest.raises(RunNotFound):
        await jobs.save_node_state(RunNodeState(run_id="other", node_id="n"))


async def test_a_url_is_enough_and_leaves_nothing_open(store_url: str) -> None:
    jobs = JobRepository(store_url)
    await jobs.add(Job(id="r"))
    found: Any = await JobRepository(store_url).get("r")
    assert found.id == "r"


def long_text(size: int) -> str:
    """Text of so many bytes that nothing makes shorter."""
    bits = random.Random(size)
    return "".join(chr(bits.randrange(0x10000, 0x110000)) for _ in range(size // 4)) + "x" * (size % 4)


async def test_the_row_of_a_run_whose_id_an_index_does_not_take_is_refused(store_url: str) -> None:
    jobs = JobRepository(store_url)
    await jobs.add(Job(id=long_text(INDEXED_BYTES)))
    with pytest.raises(ValueError, match="longer than 1000 bytes"):
        await jobs.add(Job(id=long_text(INDEXED_BYTES + 1)))


async def test_a_node_is_found_by_two_ids_of_the_greatest_length(store_url: str) -> None:
    run_id, node_id = long_text(INDEXED_BYTES), long_text(INDEXED_BYTES)
    async with StateManager(run_id, url=store_url) as states:
        await states.update_node_state(node_id, "running")
    manager = CheckpointManager(run_id, enabled=True, url=store_url)
    assert await manager.save_checkpoint(None, {node_id})
    state = await JobRepository(store_url).node_state(run_id, node_id)
    assert state is not None
    assert state.status == "completed"


def test_a_run_id_that_an_index_does_not_take_is_refused_at_once() -> None:
    """A state manager took it, and its writer broke at the first node whose id was long, too."""
    with pytest.raises(ValueError, match="longer than 1000 bytes"):
        StateManager(long_text(INDEXED_BYTES + 1))
    with pytest.raises(ValueError, match="longer than 1000 bytes"):
        CheckpointManager(long_text(INDEXED_BYTES + 1), enabled=True)
