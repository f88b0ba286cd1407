"""Answers for nodes of a run that is executed: kept by whoever brings them, taken by who executes it, lost by nobody."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text, update

from checkpoint_plugin import CheckpointManager, JobRepository, RecoveryService, update_suspended_state
from checkpoint_plugin.checking.store_check import check_store
from checkpoint_plugin.database.location import locate
from checkpoint_plugin.errors import (
    KeyMissing,
    NodeNotSuspended,
    NotResumable,
    StoreBusy,
    StoreUnreachable,
    StoreUnreadable,
    ValueNotStorable,
)
from checkpoint_plugin.models import PENDING_ANSWER, RUN_NODE_STATE
from checkpoint_plugin.recovery.claims import Claim, end_claim
from checkpoint_plugin.runs.answers import answer_nodes
from checkpoint_plugin.runs.pending_answers import Inbox, hand_over
from checkpoint_plugin.runs.suspended_nodes import SuspendedNode, fetch_suspended_nodes
from checkpoint_plugin.store import Store
from checkpoint_plugin.stored_bytes.digests import digest_of, text_bytes
from hookspecs import Answer, LeaseLost, NodeSnapshot, Suspension, SuspensionChanged
from tests.checkpoint_plugin.proxy import COMMIT, Proxy
from tests.checkpoint_plugin.test_plugin import checkpoints, runner, status
from workflow_runner import Context, Graph, Result, RunStopped, WorkflowRunner, node

DONE: list[asyncio.Event] = []
SEEN: list[Any] = []


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("workflow_runner.waking.LOOK_SECONDS", 0.005)
    monkeypatch.setattr("checkpoint_plugin.runs.answers.EXECUTED_SECONDS", 0.0)
    DONE[:], SEEN[:] = [asyncio.Event()], []
    yield
    DONE.clear()


@node
async def approve(x: int, context: Context) -> str:
    answer = await context.suspend(f"approve {x}?", metadata={"x": x})
    SEEN.append(answer)
    DONE[-1].set()
    return f"{x} {answer}"


@node
async def until_done(x: int) -> int:
    await DONE[-1].wait()
    return x


def beside(works: Any = until_done) -> Graph:
    """A node that waits for an answer, and one that works meanwhile."""
    graph = Graph()
    x = graph.input("x")
    graph.output("approved", graph.add(approve, "waits", x=x))
    graph.output("done", graph.add(works, "works", x=x))
    return graph


WHOLE = {"approved": ["1 yes"], "done": [1]}


class Executed:
    """A run in progress whose node `waits` is stored as suspended."""

    def __init__(self, url: str, graph: Graph, run_id: str = "r", **options: Any) -> None:
        self.url = url
        self._run_id = run_id
        self.runner: WorkflowRunner = runner(url)
        self._graph = graph
        self._options = options
        self.task: asyncio.Task[Result] | None = None

    async def __aenter__(self) -> Executed:
        begun = self.runner.run(self._graph, {"x": 1}, enable={"checkpoint": self._options or True}, run_id=self._run_id)
        self.task = asyncio.create_task(begun)
        await seen_waiting(self.url, run_id=self._run_id)
        return self

    async def __aexit__(self, *_: object) -> None:
        DONE[-1].set()
        assert self.task is not None
        async with asyncio.timeout(10):
            await asyncio.wait((self.task,))

    async def result(self) -> Result:
        assert self.task is not None
        async with asyncio.timeout(10):
            return await self.task


async def waiting(url: str) -> Sequence[SuspendedNode]:
    store = Store(locate(url), create=True)
    try:
        return await fetch_suspended_nodes(store)
    finally:
        await store.close()


async def seen_waiting(url: str, before: datetime | None = None, run_id: str = "r") -> SuspendedNode:
    """The first node that waits, once it waits for something else than what it waited for before."""
    for _ in range(2_000):
        found = [node for node in await waiting(url) if node.run_id == run_id]
        if found and found[0].since != before:
            return found[0]
        await asyncio.sleep(0.005)
    raise AssertionError("nobody waits")


async def kept(url: str) -> list[Any]:
    """The answers that wait."""
    store = Store(locate(url), create=False)
    try:
        return await store.transact(lambda connection: list(connection.core.execute(select(PENDING_ANSWER)).all()), write=False)
    finally:
        await store.close()


def never_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who executes a run has not looked yet, or had looked for the last time."""

    async def nothing(self: Inbox) -> Sequence[Answer]:
        return ()

    monkeypatch.setattr(Inbox, "look", nothing)


async def leave(url: str, monkeypatch: pytest.MonkeyPatch, answer: str, *, stopped: bool = False, **options: Any) -> None:
    """Leave an answer to the next attempt: who executed the run was stopped before it looked, or had looked for the last time."""
    with monkeypatch.context() as patched:
        never_looks(patched)
        async with Executed(url, beside(), **options) as executed:
            await update_suspended_state("r", "waits", answer, url=url)
            if stopped:
                executed.runner.stop("signal")
                with pytest.raises(RunStopped):
                    await executed.result()
            else:
                DONE[-1].set()
                assert (await executed.result()).status == "suspended"


async def test_an_answer_reaches_a_run_that_is_executed(store_url: str) -> None:
    async with Executed(store_url, beside()) as executed:
        await update_suspended_state("r", "waits", "yes", url=store_url)
        assert (await executed.result()).outputs == WHOLE
    assert await checkpoints(store_url) == ["suspend", "answer", "end"]
    assert (await kept(store_url), SEEN) == ([], ["yes"])


async def test_one_that_comes_a_moment_before_the_node_waits_reaches_it(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("checkpoint_plugin.runs.answers.PAUSE_SECONDS", 0.005)
    monkeypatch.setattr("checkpoint_plugin.runs.answers.EXECUTED_SECONDS", 10)
    begun, asks = asyncio.Event(), asyncio.Event()

    @node
    async def soon(x: int, context: Context) -> str:
        begun.set()
        await asks.wait()
        return f"{x} {await context.suspend('approve?')}"

    async def too_soon(*given: Any) -> str | None:
        try:
            return await hand_over(*given)
        except NodeNotSuspended:
            asks.set()
            raise

    monkeypatch.setattr("checkpoint_plugin.runs.answers.hand_over", too_soon)
    graph = Graph()
    x = graph.input("x")
    graph.output("approved", graph.add(soon, "waits", x=x))
    graph.output("done", graph.add(until_done, "works", x=x))
    run = asyncio.create_task(runner(store_url).run(graph, {"x": 1}, enable={"checkpoint": True}, run_id="r"))
    async with asyncio.timeout(10):
        await begun.wait()
        await update_suspended_state("r", "waits", "yes", url=store_url)
        assert asks.is_set()
        DONE[-1].set()
        assert (await run).outputs == WHOLE


async def test_runs_of_which_all_names_are_alike_get_their_own(store_url: str) -> None:
    async with Executed(store_url, beside(), "r") as one, Executed(store_url, beside(), "s") as other:
        store = Store(locate(store_url), create=False)
        await answer_nodes(store, "s", {"waits": "no"})
        async with asyncio.timeout(10):
            assert (await other.result()).outputs == {**WHOLE, "approved": ["1 no"]}
        (waits,) = await waiting(store_url)
        DONE[-1].set()
        await store.close()
        assert (waits.run_id, waits.due) == ("r", False)
        assert (await one.result()).status == "suspended"


async def test_what_is_kept_of_an_encrypted_run_nobody_can_read(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKFLOW_CHECKPOINT_KEY", "00" * 32)
    await leave(store_url, monkeypatch, "yes", stopped=True)
    (row,) = await kept(store_url)
    assert b"yes" not in row.body
    monkeypatch.setenv("WORKFLOW_CHECKPOINT_KEY", "01" * 32)
    with pytest.raises(KeyMissing):
        await update_suspended_state("r", "waits", "no", url=store_url)
    monkeypatch.setenv("WORKFLOW_CHECKPOINT_KEY", "00" * 32)
    assert (await runner(store_url).resume("r", graph=beside())).outputs == WHOLE


async def test_one_that_is_kept_is_shown_as_an_answer_and_no_other_is_taken(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    never_looks(monkeypatch)
    async with Executed(store_url, beside()):
        (before,) = await waiting(store_url)
        assert (before.due, before.wake_at) == (False, None)
        await update_suspended_state("r", "waits", "yes", url=store_url, since=before.since)
        (after,) = await waiting(store_url)
        assert after.due and after.wake_at is not None
        with pytest.raises(NodeNotSuspended, match="answered already"):
            await update_suspended_state("r", "waits", "no", url=store_url)
        assert len(await kept(store_url)) == 1


async def test_answers_are_kept_all_or_none(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    never_looks(monkeypatch)
    async with Executed(store_url, beside()):
        store = Store(locate(store_url), create=False)
        for other in ("works", "nobody", "\0"):
            with pytest.raises(NodeNotSuspended):
                await answer_nodes(store, "r", {"waits": "yes", other: 1})
        with pytest.raises(ValueNotStorable):
            await answer_nodes(store, "r", {"waits": "yes", "works": object()})
        with pytest.raises(SuspensionChanged):
            await answer_nodes(store, "r", {"waits": 1}, since={"waits": datetime(2020, 1, 1, tzinfo=UTC)})
        assert await kept(store_url) == []
        assert await answer_nodes(store, "r", {"waits": "yes"}) is not None, "who executes the run"
        await store.close()


async def test_who_executed_the_run_and_was_stopped_leaves_the_answer_to_the_next(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await leave(store_url, monkeypatch, "yes", stopped=True)
    assert (await status(store_url), len(await kept(store_url))) == ("paused", 1)
    with pytest.raises(NodeNotSuspended, match="answered already"):
        await update_suspended_state("r", "waits", "no", url=store_url)
    result = await runner(store_url).resume("r", graph=beside())
    assert (result.outputs, SEEN) == (WHOLE, ["yes"])
    assert await kept(store_url) == []


async def test_one_that_came_as_the_run_was_about_to_suspend_wakes_it(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await leave(store_url, monkeypatch, "yes")
    assert await status(store_url) == "suspended"

    async def go_on(run_id: str) -> Any:
        return (await runner(store_url).resume(run_id, graph=beside())).outputs

    (outcome,) = await RecoveryService(url=store_url, execute=go_on).recover_all()
    assert (outcome.status, outcome.result) == ("completed", WHOLE)
    assert await RecoveryService(url=store_url, execute=go_on).recover_all() == []


async def test_an_answer_that_was_taken_and_not_forgotten_is_for_no_other_suspension(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def forgets_nothing(self: Inbox, nodes: object) -> None: ...

    @node
    async def asks_twice(x: int, context: Context) -> str:
        answers = [await context.suspend(f"question {n}?") for n in range(2)]
        DONE[-1].set()
        return f"{x} {answers}"

    graph = Graph()
    x = graph.input("x")
    graph.output("approved", graph.add(asks_twice, "waits", x=x))
    graph.output("done", graph.add(until_done, "works", x=x))
    monkeypatch.setattr(Inbox, "forget", forgets_nothing)
    async with Executed(store_url, graph) as executed:
        (first,) = await waiting(store_url)
        await update_suspended_state("r", "waits", "yes", url=store_url)
        second = await seen_waiting(store_url, first.since)
        assert not second.due and len(await kept(store_url)) == 1
        await update_suspended_state("r", "waits", "no", url=store_url)
        assert (await executed.result()).outputs["approved"] == ["1 ['yes', 'no']"]


async def test_going_back_forgets_what_was_brought_since(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await leave(store_url, monkeypatch, "yes")
    result = await runner(store_url).resume("r", graph=beside(), checkpoint=1)
    assert (result.status, SEEN, await kept(store_url)) == ("suspended", [], [])


@pytest.mark.parametrize("checkpoint", ["latest-intact", 1])
async def test_to_go_on_from_the_newest_checkpoint_forgets_nothing(
    store_url: str, monkeypatch: pytest.MonkeyPatch, checkpoint: Any
) -> None:
    await leave(store_url, monkeypatch, "yes", stopped=True, on_signal=False)
    assert await checkpoints(store_url) == ["suspend"]
    assert (await runner(store_url).resume("r", graph=beside(), checkpoint=checkpoint)).outputs == WHOLE


async def test_a_damaged_answer_is_told_and_may_be_given_again(
    store_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await leave(store_url, monkeypatch, "no", stopped=True)
    store = Store(locate(store_url), create=False)
    await store.transact(lambda connection: connection.core.execute(update(PENDING_ANSWER).values(digest=b"?" * 32)) and None)
    report = await check_store(store)
    await store.close()
    (finding,) = [found for run in report.runs for found in run.findings]
    assert "the answer for node 'waits' was changed" in str(finding) and "answer it again" in str(finding)
    with caplog.at_level(logging.WARNING):
        assert (await runner(store_url).resume("r", graph=beside())).status == "suspended"
    assert [record.message.count("an answer is left") for record in caplog.records].count(1) == 1, "told once"
    await update_suspended_state("r", "waits", "yes", url=store_url)
    assert (await runner(store_url).resume("r", graph=beside())).outputs == WHOLE


async def test_a_store_that_cannot_be_read_for_a_while_is_asked_again(
    store_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    look, tries = Inbox.look, iter(range(3))

    async def busy(self: Inbox) -> Sequence[Answer]:
        if next(tries, None) is not None:
            raise StoreBusy("it is locked")
        return await look(self)

    monkeypatch.setattr(Inbox, "look", busy)
    async with Executed(store_url, beside()) as executed:
        await update_suspended_state("r", "waits", "yes", url=store_url)
        assert (await executed.result()).outputs == WHOLE
    assert "cannot be read now" in caplog.text


async def test_with_best_effort_a_time_wakes_though_the_store_cannot_be_read(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @node
    async def sleeps(x: int, context: Context) -> int:
        await context.sleep_until(datetime.now(UTC) + timedelta(milliseconds=1))
        DONE[-1].set()
        return x

    async def busy(self: Inbox) -> Sequence[Answer]:
        raise StoreBusy("it is locked")

    monkeypatch.setattr(Inbox, "look", busy)
    graph = Graph()
    graph.output("slept", graph.add(sleeps, x=graph.input("x")))
    graph.output("done", graph.add(until_done, x=graph.input("x")))
    async with asyncio.timeout(10):
        result = await runner(store_url).run(graph, {"x": 1}, enable={"checkpoint": {"best_effort": True}}, run_id="r")
    assert result.outputs == {"slept": [1], "done": [1]}


async def test_a_time_waits_for_a_store_that_cannot_be_read(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that was brought before may be in it, and is the one that counts."""
    looks = 0
    look = Inbox.look

    @node
    async def sleeps(x: int, context: Context) -> int:
        await context.sleep_until(datetime.now(UTC) + timedelta(milliseconds=1))
        DONE[-1].set()
        return looks

    async def busy(self: Inbox) -> Sequence[Answer]:
        nonlocal looks
        looks += 1
        if looks < 5:
            raise StoreBusy("it is locked")
        return await look(self)

    monkeypatch.setattr(Inbox, "look", busy)
    graph = Graph()
    graph.output("looks", graph.add(sleeps, x=graph.input("x")))
    graph.output("done", graph.add(until_done, x=graph.input("x")))
    async with asyncio.timeout(10):
        result = await runner(store_url).run(graph, {"x": 1}, enable={"checkpoint": True}, run_id="r")
    assert result.outputs["looks"][0] >= 5


async def test_a_run_that_is_cancelled_takes_none(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    never_looks(monkeypatch)
    async with Executed(store_url, beside()):
        await JobRepository(url=store_url).change("r", lambda job: job.mark_cancelled())
        with pytest.raises(NotResumable, match="it is cancelled"):
            await update_suspended_state("r", "waits", "yes", url=store_url)


async def test_a_time_that_has_come_is_answered_by_nobody(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    never_looks(monkeypatch)

    @node
    async def late(x: int, context: Context) -> str:
        return str(await context.suspend("approve?", until=datetime.now(UTC) + timedelta(milliseconds=1)))

    monkeypatch.setattr("workflow_runner.waking.Waking._take_due", lambda self: [])
    monkeypatch.setattr("workflow_runner.waking.Waking._seconds", lambda self: 0.005)
    graph = Graph()
    x = graph.input("x")
    graph.output("approved", graph.add(late, "waits", x=x))
    graph.output("done", graph.add(until_done, "works", x=x))
    async with Executed(store_url, graph):
        await asyncio.sleep(0.01)
        with pytest.raises(NodeNotSuspended, match="its time has come"):
            await update_suspended_state("r", "waits", "yes", url=store_url)


async def test_what_is_kept_goes_with_its_run(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await leave(store_url, monkeypatch, "yes")
    manager = CheckpointManager("r", enabled=True, url=store_url)
    assert await manager.clear_checkpoint()
    assert await kept(store_url) == []


async def test_of_two_who_answer_while_a_recovery_has_claimed_the_run_one_is_refused(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    DONE[-1].set()
    await runner(store_url).run(beside(), {"x": 1}, enable={"checkpoint": True}, run_id="r")
    service = RecoveryService("one of several", url=store_url)
    await JobRepository(url=store_url).change("r", lambda job: job.mark_recovering(service.worker_id))
    monkeypatch.setattr("checkpoint_plugin.runs.answers.PAUSE_SECONDS", 0.005)
    look, looked, goes_on = Inbox.look, asyncio.Event(), asyncio.Event()

    async def slow(self: Inbox) -> Sequence[Answer]:
        found = await look(self)
        looked.set()
        await goes_on.wait()
        return found

    monkeypatch.setattr(Inbox, "look", slow)
    first = asyncio.create_task(service.update_suspended_state("r", "waits", "first"))
    async with asyncio.timeout(10):
        await looked.wait()
        second = asyncio.create_task(update_suspended_state("r", "waits", "second", url=store_url))
        await asyncio.wait((second,), timeout=0.1)
        goes_on.set()
        await first
        with pytest.raises(NodeNotSuspended, match="answered already"):
            await second
    assert (await runner(store_url).resume("r", graph=beside())).outputs == {**WHOLE, "approved": ["1 first"]}


@pytest.mark.parametrize("goes_on", [False, True])
async def test_a_worker_that_a_recovery_took_for_dead_and_that_woke_is_given_answers(store_url: str, goes_on: bool) -> None:
    async with Executed(store_url, beside()) as executed:
        store = Store(locate(store_url), create=False)
        claim = Claim("r", "another worker", "running", 1, 0, "runner")
        await JobRepository(store=store).change("r", lambda job: job.mark_recovering(claim.worker_id))
        if not goes_on:
            await store.transact(lambda connection: end_claim(connection, claim, counts=False))
        await store.close()
        await update_suspended_state("r", "waits", "yes", url=store_url)
        assert (await executed.result()).outputs == WHOLE


async def change(url: str, statement: Any) -> None:
    """Change rows as nobody does who uses the store."""
    store = Store(locate(url), create=False)
    await store.transact(lambda connection: connection.core.execute(statement) and None)
    await store.close()


async def test_one_that_is_left_by_a_host_whose_clock_is_ahead_makes_way_for_the_next(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        never_looks(patched)
        async with Executed(store_url, beside()) as executed:
            await update_suspended_state("r", "waits", "of another question", url=store_url)
            (row,) = await kept(store_url)
            await change(store_url, update(PENDING_ANSWER).values(since=row.since + timedelta(hours=1)))
            await update_suspended_state("r", "waits", "yes", url=store_url)
            DONE[-1].set()
            await executed.result()
    assert len(await kept(store_url)) == 1
    assert (await runner(store_url).resume("r", graph=beside())).outputs == WHOLE


async def test_who_has_taken_an_answer_by_a_clock_that_is_ahead_is_given_no_other(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    never_looks(monkeypatch)
    async with Executed(store_url, beside()):
        (before,) = await waiting(store_url)
        ahead = datetime.now(UTC) + timedelta(hours=1)
        await change(store_url, update(RUN_NODE_STATE).values(wake_at=ahead, updated_at=ahead))
        (after,) = await waiting(store_url)
        assert (before.due, after.due) == (False, True)
        with pytest.raises(NodeNotSuspended, match="answered already"):
            await update_suspended_state("r", "waits", "yes", url=store_url)
        assert await kept(store_url) == []


async def test_a_run_that_was_answered_by_a_clock_that_is_ahead_is_recovered_at_once(store_url: str) -> None:
    DONE[-1].set()
    await runner(store_url).run(beside(), {"x": 1}, enable={"checkpoint": True}, run_id="r")
    await update_suspended_state("r", "waits", "yes", url=store_url)
    ahead = datetime.now(UTC) + timedelta(hours=1)
    waits = RUN_NODE_STATE.c.node_id == "waits"
    await change(store_url, update(RUN_NODE_STATE).where(waits).values(wake_at=ahead, updated_at=ahead))

    async def go_on(run_id: str) -> Any:
        return (await runner(store_url).resume(run_id, graph=beside())).outputs

    (outcome,) = await RecoveryService(url=store_url, execute=go_on).recover_all()
    assert (outcome.status, outcome.result) == ("completed", WHOLE)


@pytest.mark.parametrize("since", ["never", 7, b"\xff"])
async def test_a_time_that_is_none_harms_no_other_answer_and_may_be_given_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, since: object
) -> None:
    url = f"sqlite:///{tmp_path / 'checkpoints.db'}"
    graph = Graph()
    x = graph.input("x")
    for name in ("first", "second"):
        graph.output(f"{name} approved", graph.add(approve, name, x=x))
    graph.output("done", graph.add(until_done, "works", x=x))
    damage = text("UPDATE pending_answer SET since = :since WHERE node_id = 'first'").bindparams(since=since)
    with monkeypatch.context() as patched:
        never_looks(patched)
        async with Executed(url, graph) as executed:
            for _ in range(2):
                await update_suspended_state("r", "first", "no", url=url)
                await change(url, damage)
            await update_suspended_state("r", "second", "yes", url=url)
            DONE[-1].set()
            await executed.result()
    store = Store(locate(url), create=False)
    (finding,) = [found for run in (await check_store(store)).runs for found in run.findings]
    await store.close()
    assert (finding.node_id, finding.advice) == ("first", "The node still waits: answer it again.")
    assert ((await runner(url).resume("r", graph=graph)).status, SEEN) == ("suspended", ["yes"])
    await update_suspended_state("r", "first", "yes", url=url)
    assert (await runner(url).resume("r", graph=graph)).outputs["first approved"] == ["1 yes"]


async def test_one_that_is_larger_than_values_of_the_run_may_be_is_refused(store_url: str) -> None:
    async with Executed(store_url, beside(), max_value_bytes=1_000) as executed:
        with pytest.raises(ValueNotStorable, match=r"run 'r', node 'waits', answer cannot be stored: .* the limit is 1,000"):
            await update_suspended_state("r", "waits", "y" * 1_000, url=store_url)
        DONE[-1].set()
        assert (await executed.result()).status == "suspended"
    with pytest.raises(ValueNotStorable):
        await update_suspended_state("r", "waits", "y" * 1_000, url=store_url)
    await update_suspended_state("r", "waits", "yes", url=store_url)
    assert (await runner(store_url).resume("r", graph=beside())).outputs == WHOLE


async def suspended_run(url: str, **options: Any) -> None:
    """A run that waits for its answer, and that nobody executes."""
    DONE[-1].set()
    result = await runner(url).run(beside(), {"x": 1}, enable={"checkpoint": options or True}, run_id="r")
    assert result.status == "suspended"


@pytest.mark.parametrize("best_effort", [False, True])
async def test_of_a_resume_with_an_answer_and_one_that_comes_as_it_begins_one_is_refused(
    store_url: str, monkeypatch: pytest.MonkeyPatch, best_effort: bool
) -> None:
    await suspended_run(store_url, best_effort=best_effort)
    look = Inbox.look

    async def answered_then(self: Inbox) -> Sequence[Answer]:
        found = await look(self)
        if not SEEN and not found:
            await update_suspended_state("r", "waits", "second", url=store_url)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(Inbox, "look", answered_then)
        with pytest.raises(NodeNotSuspended, match="answered already"):
            await runner(store_url).resume("r", graph=beside(), updates={"waits": "first"})
    assert (await status(store_url), len(await kept(store_url)), SEEN) == ("suspended", 1, [])
    assert (await runner(store_url).resume("r", graph=beside())).outputs == {**WHOLE, "approved": ["1 second"]}
    assert await kept(store_url) == []


async def test_one_that_comes_as_a_resume_takes_the_time_of_its_node_for_passed_counts(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @node
    async def late(x: int, context: Context) -> str:
        return str(await context.suspend("approve?", until=datetime.now(UTC) + timedelta(hours=1)))

    graph = Graph()
    graph.output("approved", graph.add(late, "waits", x=graph.input("x")))
    await runner(store_url).run(graph, {"x": 1}, enable={"checkpoint": True}, run_id="r")
    look, brought = Inbox.look, list[str]()

    async def answered_then(self: Inbox) -> Sequence[Answer]:
        found = await look(self)
        if not brought:
            brought.append("yes")
            await update_suspended_state("r", "waits", "yes", url=store_url)
        return found

    monkeypatch.setattr(Inbox, "look", answered_then)
    monkeypatch.setattr("workflow_runner.decisions.is_due", lambda asked: True)
    result = await runner(store_url).resume("r", graph=graph)
    assert (result.outputs, brought, await kept(store_url)) == ({"approved": ["yes"]}, ["yes"], [])


async def test_an_answer_of_a_resume_keeps_out_those_that_come_before_it_is_saved(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await suspended_run(store_url)
    save = Store.save

    async def late(self: Store, *arguments: Any) -> Any:
        monkeypatch.undo()
        monkeypatch.setattr("checkpoint_plugin.runs.answers.EXECUTED_SECONDS", 0.0)
        with pytest.raises(NodeNotSuspended, match="answered already"):
            await update_suspended_state("r", "waits", "second", url=store_url)
        return await save(self, *arguments)

    monkeypatch.setattr(Store, "save", late)
    result = await runner(store_url).resume("r", graph=beside(), updates={"waits": "first"})
    assert (result.outputs, SEEN) == ({**WHOLE, "approved": ["1 first"]}, ["first"])
    assert await kept(store_url) == []


async def test_a_resume_that_cannot_save_its_answer_leaves_none(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await suspended_run(store_url)

    async def full(self: Store, *_: Any) -> Any:
        raise StoreUnreadable("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(Store, "save", full)
        with pytest.raises(StoreUnreadable, match="the disk is full"):
            await runner(store_url).resume("r", graph=beside(), updates={"waits": "first"})
    assert (await status(store_url), await kept(store_url)) == ("suspended", [])


async def test_one_that_comes_when_the_run_has_gone_back_is_for_the_cut_that_it_went_to(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await suspended_run(store_url)
    await update_suspended_state("r", "waits", "no", url=store_url)
    assert await checkpoints(store_url) == ["suspend", "suspend", "answer"]
    rewind = Store.rewind

    async def answered_then(self: Store, *arguments: Any) -> Any:
        ref = await rewind(self, *arguments)
        await update_suspended_state("r", "waits", "yes", url=store_url)
        return ref

    monkeypatch.setattr(Store, "rewind", answered_then)
    assert (await runner(store_url).resume("r", graph=beside(), checkpoint=1)).outputs == WHOLE


async def test_a_run_whose_answer_cannot_be_read_is_not_recovered_for_ever(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await leave(store_url, monkeypatch, "no")
    await change(store_url, update(PENDING_ANSWER).values(digest=b"?" * 32))

    async def go_on(run_id: str) -> Any:
        return (await runner(store_url).resume(run_id, graph=beside())).outputs

    service = RecoveryService(url=store_url, execute=go_on, max_attempts=2)
    told = [[outcome.status for outcome in await service.recover_all()] for _ in range(4)]
    assert told == [["suspended"], ["suspended"], ["set_aside"], []]
    await update_suspended_state("r", "waits", "yes", url=store_url)
    assert (await runner(store_url).resume("r", graph=beside())).outputs == WHOLE


LOST: dict[str, Any] = {"at": COMMIT, "after": b"INSERT INTO pending_answer"}


async def test_an_answer_of_which_nobody_heard_that_it_was_kept_is_kept_once(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    never_looks(monkeypatch)
    async with Executed(postgres_url, beside()), Proxy(postgres_url) as proxy:
        proxy.cut(**LOST)
        await update_suspended_state("r", "waits", "yes", url=proxy.url)
        assert (proxy.cuts, len(await kept(postgres_url))) == (1, 1)


async def test_an_answer_of_which_nobody_heard_that_it_was_kept_counts_though_the_run_was_stopped(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("checkpoint_plugin.opening.open_store.RECONNECT_PAUSE", 0.3)
    async with Proxy(postgres_url) as proxy:
        with monkeypatch.context() as patched:
            never_looks(patched)
            async with Executed(postgres_url, beside()) as executed:
                proxy.cut(**LOST)
                answering = asyncio.create_task(update_suspended_state("r", "waits", "yes", url=proxy.url))
                for _ in range(2_000):
                    if await kept(postgres_url):
                        break
                    await asyncio.sleep(0.005)
                executed.runner.stop("signal")
                with pytest.raises(RunStopped):
                    await executed.result()
        await answering
    assert (await runner(postgres_url).resume("r", graph=beside())).outputs == WHOLE


@pytest.mark.parametrize("ends", [False, True])
async def test_who_did_not_hear_that_an_answer_was_kept_and_finds_it_gone_is_told_that_it_is_not_known(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    monkeypatch.setattr("checkpoint_plugin.opening.open_store.RECONNECT_PAUSE", 0.3)

    told = asyncio.Event()

    @node
    async def goes_on(x: int) -> int:
        await (DONE[-1] if ends else told).wait()
        return x

    async with Executed(postgres_url, beside(goes_on)) as executed, Proxy(postgres_url) as proxy:
        proxy.cut(**LOST)
        with pytest.raises(StoreUnreachable, match="Whether it was written is not known"):
            await update_suspended_state("r", "waits", "yes", url=proxy.url)
        told.set()
        assert (await executed.result()).outputs == WHOLE


async def test_one_that_was_moved_to_another_node_or_question_is_taken_by_none_and_may_be_given_again(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = beside()
    graph.output("other approved", graph.add(approve, "other", x=graph.input("x")))
    with monkeypatch.context() as patched:
        never_looks(patched)
        async with Executed(store_url, graph) as executed:
            await update_suspended_state("r", "other", "no", url=store_url)
            since = {row.node_id: row.since for row in await waiting(store_url) if row.since is not None}
            waits = update(RUN_NODE_STATE).where(RUN_NODE_STATE.c.node_id == "waits")
            await change(store_url, waits.values(suspended_at=since["other"]))
            await change(store_url, update(PENDING_ANSWER).values(node_id="waits"))
            await update_suspended_state("r", "other", "no", url=store_url)
            earlier = since["other"] - timedelta(hours=1)
            for table, column in ((PENDING_ANSWER, "since"), (RUN_NODE_STATE, "suspended_at")):
                await change(store_url, update(table).where(table.c.node_id == "other").values({column: earlier}))
            for node_id in ("waits", "other"):
                await update_suspended_state("r", node_id, "again", url=store_url)
            await change(store_url, update(PENDING_ANSWER).values(body=b"?"))
            DONE[-1].set()
            await executed.result()
    assert ((await runner(store_url).resume("r", graph=graph)).status, SEEN) == ("suspended", [])


async def test_one_that_is_left_keeps_no_answer_from_a_run_that_nobody_executes(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await leave(store_url, monkeypatch, "of another question")
    (row,) = await kept(store_url)
    place = b"answer", text_bytes("waits"), (row.since - timedelta(hours=1)).astimezone(UTC).isoformat().encode()
    digest = digest_of(text_bytes("r"), *place, row.body)
    await change(store_url, update(PENDING_ANSWER).values(since=row.since - timedelta(hours=1), digest=digest))
    await update_suspended_state("r", "waits", "yes", url=store_url)
    assert (await runner(store_url).resume("r", graph=beside())).outputs == WHOLE


async def test_a_run_goes_on_though_what_it_has_taken_cannot_be_deleted(
    store_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def busy(*_: object) -> None:
        raise StoreBusy("it is locked")

    monkeypatch.setattr("checkpoint_plugin.runs.pending_answers.forget_answers", busy)
    with caplog.at_level(logging.INFO, "checkpoint_plugin"):
        async with Executed(store_url, beside()) as executed:
            await update_suspended_state("r", "waits", "yes", url=store_url)
            assert (await executed.result()).outputs == WHOLE
    assert "answers that were taken are left in the store" in caplog.text


async def test_who_has_lost_the_run_keeps_no_answer(store_url: str) -> None:
    await suspended_run(store_url)
    store = Store(locate(store_url), create=False)
    asked = Suspension("approve?", since=datetime.now(UTC), answered=True, answer="yes")
    node = NodeSnapshot("waits", "suspended", suspension=asked)
    with pytest.raises(LeaseLost):
        await Inbox(store, "r").keep([node], 1)
    await store.close()
    assert await kept(store_url) == []


async def test_a_resume_that_does_not_hear_that_its_answer_was_kept_goes_on_with_it(postgres_url: str) -> None:
    await suspended_run(postgres_url)
    async with Proxy(postgres_url) as proxy:
        proxy.cut(**LOST)
        result = await runner(proxy.url).resume("r", graph=beside(), updates={"waits": "yes"})
        assert (proxy.cuts, result.outputs) == (1, WHOLE)


async def test_a_resume_that_cannot_look_for_answers_takes_no_time_for_passed(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @node
    async def by_then(x: int, context: Context) -> str:
        return str(await context.suspend("approve?", until=datetime.now(UTC) + timedelta(seconds=1)))

    graph = Graph()
    graph.output("approved", graph.add(by_then, "waits", x=graph.input("x")))
    graph.output("done", graph.add(until_done, "works", x=graph.input("x")))
    with monkeypatch.context() as patched:
        never_looks(patched)
        async with Executed(store_url, graph) as executed:
            await update_suspended_state("r", "waits", "yes", url=store_url)
            executed.runner.stop("signal")
            with pytest.raises(RunStopped):
                await executed.result()
    (waits,) = await waiting(store_url)
    assert waits.since is not None
    await asyncio.sleep(max(0.0, 1.01 - (datetime.now(UTC) - waits.since).total_seconds()))

    async def busy(self: Inbox) -> Sequence[Answer]:
        raise StoreBusy("it is locked")

    with monkeypatch.context() as patched:
        patched.setattr(Inbox, "look", busy)
        with pytest.raises(StoreBusy):
            await runner(store_url).resume("r", graph=graph)
    assert await status(store_url) == "paused"
    DONE[-1].set()
    assert (await runner(store_url).resume("r", graph=graph)).outputs == {"approved": ["yes"], "done": [1]}
