"""Nodes that wait for answers and times: suspended, stored, answered from anywhere, gone on with."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from checkpoint_plugin import JobRepository, RecoveryService, update_suspended_state
from checkpoint_plugin.database.location import locate
from checkpoint_plugin.errors import ValueNotStorable
from checkpoint_plugin.runs.suspended_nodes import SuspendedNode, fetch_suspended_nodes
from checkpoint_plugin.store import RunHistory, Store
from hookspecs import NodeInfo, Outcome, PluginHost, RunInfo, Suspended, SuspensionChanged, hookimpl
from tests.checkpoint_plugin.test_plugin import Host, checkpoints, runner, status
from workflow_runner import (
    Context,
    Graph,
    GraphInvalid,
    InputInvalid,
    NodeFailed,
    NodeNotWaiting,
    NotResuming,
    Stream,
    SuspendableNode,
    SuspensionUnavailable,
    ThreadContext,
    WorkflowRunner,
    WorkflowSuspended,
    node,
)

BEGUN: list[str] = []
ENDED: list[str] = []
DELAYS: list[timedelta] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    BEGUN.clear()
    ENDED.clear()
    DELAYS.clear()


def ended(name: str, value: Any) -> Any:
    ENDED.append(name)
    return value


async def suspended_nodes(store_url: str) -> Sequence[SuspendedNode]:
    store = Store(locate(store_url), create=False)
    try:
        return await fetch_suspended_nodes(store)
    finally:
        await store.close()


@node
async def approve(x: int, context: Context) -> str:
    BEGUN.append("approve")
    if not context.is_resuming:
        await context.suspend("approve?", {"seen": x}, {"who": "boss"})
    return str(ended("approve", f"{context.saved_state['seen']} {context.answer}"))


@node
async def tells_its_attempt(x: int, context: Context) -> int:
    return context.attempt if context.is_resuming else int(await context.suspend("which attempt is this?"))


@node
async def straight_on(x: int, context: Context) -> str:
    BEGUN.append("straight_on")
    first = await context.suspend("first?")
    second = await context.suspend("second?", metadata={"first": first})
    return str(ended("straight_on", f"{x} {first} {second}"))


@node
async def work(x: int) -> int:
    BEGUN.append(f"work {x}")
    await asyncio.sleep(0)
    return int(ended(f"work {x}", x * 10))


@node
async def yields_and_asks(n: int, context: Context) -> AsyncIterator[Any]:
    BEGUN.append("yields_and_asks")
    at = context.state or 0
    if at == "told":
        yield context.answer
        at = 2
    for i in range(at, n):
        if i == 2 and not context.is_resuming:
            yield "before"
            context.commit("told")
            await context.suspend("go on?")
        yield i
        context.commit(i + 1)
    ended("yields_and_asks", None)


@node
async def asks_in_the_stream(items: Stream[int], context: Context) -> AsyncIterator[str]:
    BEGUN.append("asks_in_the_stream")
    if context.is_resuming:
        yield f"{context.saved_state} {context.answer}"
        context.commit(None)
    async for item in items:
        if item == 3:
            await context.suspend("a three", state=item)
        yield str(item)
        context.commit(None)
    ended("asks_in_the_stream", None)


@node
def in_a_thread(x: int, context: Context) -> str:
    BEGUN.append("in_a_thread")
    answer = context.suspend("from a thread?")
    return str(ended("in_a_thread", f"{x} {answer}"))


@node
async def numbers(n: int) -> AsyncIterator[int]:
    for i in range(n):
        yield i


@node
async def sleeps(x: int, context: Context) -> int:
    BEGUN.append("sleeps")
    await context.sleep_until(datetime.now(UTC) + DELAYS[-1])
    return int(ended("sleeps", x))


@node
async def keeps_on(x: int, context: Context) -> str:
    try:
        return str(await context.suspend("kept from nobody"))
    except Exception:
        return "swallowed"


class Approval(SuspendableNode):
    """As people wrote it for the API that this one succeeds."""

    x: int

    async def process(self) -> str:
        if not self.is_resuming:
            await self.suspend_workflow("approve", {"x": self.x})
        return f"{self.get_saved_state()['x']} {self.get_answer()}"


class ThreadApproval(SuspendableNode):
    x: int

    def process(self) -> str:
        if not self.is_resuming:
            self.suspend_workflow("approve", {"x": self.x})
        return f"{self.get_saved_state()['x']} {self.get_answer()}"


def one(definition: Any, **properties: Any) -> Graph:
    graph = Graph()
    graph.output("out", graph.add(definition, node_id="n", **properties))
    return graph


ON = {"checkpoint": {"every_seconds": 60}}


async def test_a_node_waits_for_its_answer_and_goes_on(store_url: str) -> None:
    first = await runner(store_url).run(one(approve, x=4), enable=ON, run_id="r")
    assert (first.status, first.outputs, set(first.suspensions)) == ("suspended", {"out": []}, {"n"})
    found = first.suspensions["n"]
    assert (found.reason, found.state, found.metadata) == ("approve?", {"seen": 4}, {"who": "boss"})
    assert await status(store_url) == "suspended"
    assert (await runner(store_url).resume("r", graph=one(approve, x=4))).status == "suspended"  # nobody has answered
    assert BEGUN == ["approve"]
    done = await runner(store_url).resume("r", graph=one(approve, x=4), updates={"n": "yes"})
    assert (done.status, done.outputs) == ("completed", {"out": ["4 yes"]})
    assert (BEGUN, ENDED) == (["approve"] * 2, ["approve"])


async def test_a_body_written_straight_on_is_given_its_answers_in_order(store_url: str) -> None:
    graph = one(straight_on, x=1)
    await runner(store_url).run(graph, enable=ON, run_id="r")
    second = await runner(store_url).resume("r", graph=graph, updates={"n": "a"})
    assert second.suspensions["n"].metadata == {"first": "a"}
    done = await runner(store_url).resume("r", graph=graph, updates={"n": ["b"]})
    assert done.outputs == {"out": ["1 a ['b']"]}
    assert (len(BEGUN), len(ENDED)) == (3, 1)


@node
async def asks_again_and_again(x: int, context: Context) -> list[Any]:
    told: list[Any] = context.state or []
    BEGUN.append(context.idempotency_key)
    while len(told) < x:
        told.append(await context.suspend("and then?"))
        context.commit(told)
    return told


@node
def asks_again_and_again_in_a_thread(x: int, context: ThreadContext) -> list[Any]:
    told: list[Any] = context.state or []
    BEGUN.append(context.idempotency_key)
    while len(told) < x:
        if len(told) % 2:
            told.append(context.suspend("and then?"))
        else:
            told.append(context.suspend("first?"))
        context.commit(told)
    return told


@pytest.mark.parametrize("definition", [asks_again_and_again, asks_again_and_again_in_a_thread])
async def test_a_plain_body_that_keeps_what_it_was_told_is_not_told_it_again(store_url: str, definition: Any) -> None:
    graph = one(definition, x=4)
    result = await runner(store_url).run(graph, enable=ON, run_id="r")
    for answer in "ABCD":
        assert result.status == "suspended"
        result = await runner(store_url).resume("r", graph=graph, updates={"n": answer})
    assert result.outputs == {"out": [["A", "B", "C", "D"]]}
    assert len(BEGUN) == 5
    assert len(set(BEGUN)) == 1  # all of it is one step


async def test_an_answer_from_another_process_is_found(store_url: str) -> None:
    await runner(store_url).run(one(straight_on, x=1), enable=ON, run_id="r")
    for answer in ("a", "b"):
        await update_suspended_state("r", "n", answer, url=store_url)
        result = await runner(store_url).resume("r", graph=one(straight_on, x=1))
    assert result.outputs == {"out": ["1 a b"]}


async def test_nine_of_ten_branches_end_and_nothing_is_lost(store_url: str) -> None:
    graph = Graph()
    for i in range(9):
        graph.output(f"out {i}", graph.add(work, x=i))
    graph.output("asked", graph.add(approve, node_id="n", x=9))
    result = await runner(store_url).run(graph, enable=ON, run_id="r")
    assert result.outputs == {**{f"out {i}": [10 * i] for i in range(9)}, "asked": []}
    assert sorted(ENDED) == [f"work {i}" for i in range(9)]
    done = await runner(store_url).resume("r", graph=graph, updates={"n": True})
    assert done.outputs == {**{f"out {i}": [10 * i] for i in range(9)}, "asked": ["9 True"]}
    assert sorted(ENDED) == ["approve", *(f"work {i}" for i in range(9))]


async def test_several_are_answered_one_at_a_time(store_url: str) -> None:
    graph = Graph()
    for name in "abc":
        graph.output(name, graph.add(approve, node_id=name, x=ord(name)))
    await runner(store_url).run(graph, enable=ON, run_id="r")
    left = set("abc")
    for name in "cab":
        result = await runner(store_url).resume("r", graph=graph, updates={name: name})
        left -= {name}
        assert set(result.suspensions) == left
    assert result.outputs == {name: [f"{ord(name)} {name}"] for name in "abc"}
    assert (len(BEGUN), len(ENDED)) == (6, 3)


async def test_what_was_emitted_stays_emitted(store_url: str) -> None:
    graph = one(yields_and_asks, n=4)
    first = await runner(store_url).run(graph, enable=ON, run_id="r")
    assert first.outputs == {"out": [0, 1, "before"]}
    done = await runner(store_url).resume("r", graph=graph, updates={"n": "yes"})
    assert done.outputs == {"out": [0, 1, "before", "yes", 2, 3]}


async def test_a_node_of_which_a_call_raises_when_it_is_suspended_stays_so(store_url: str) -> None:
    def refuse() -> None:
        raise OSError("upstream is away")

    @node
    async def acknowledges_and_asks(n: int, context: Context) -> AsyncIterator[Any]:
        if not context.is_resuming:
            yield n
            context.on_durable(refuse)
            await context.suspend("why?")
        yield context.answer

    @node
    async def saves(context: Context) -> None:
        await asyncio.sleep(0.01)
        await context.checkpoint()
        await asyncio.sleep(0.01)

    graph = one(acknowledges_and_asks, n=7)
    graph.add(saves)
    with pytest.raises(NodeFailed, match="upstream is away"):
        await runner(store_url).run(graph, enable=ON, run_id="r")
    done = await runner(store_url).resume("r", graph=graph, updates={"n": "yes"})
    assert done.outputs == {"out": [7, "yes"]}, "what it had emitted before is not emitted again"


async def test_a_streaming_node_suspends_and_its_inbox_waits(store_url: str) -> None:
    graph = Graph()
    many = graph.add(numbers, n=300)
    graph.output("asked", graph.add(asks_in_the_stream, node_id="n", items=many))
    graph.output("beside", graph.add(work, x=many))
    first = await runner(store_url, edge_capacity=4).run(graph, enable=ON, run_id="r")
    assert first.outputs["asked"] == ["0", "1", "2"]
    assert len(first.outputs["beside"]) == 300, "a sibling must not wait for a node that is suspended"
    done = await runner(store_url, edge_capacity=4).resume("r", graph=graph, updates={"n": "yes"})
    assert done.outputs["asked"] == ["0", "1", "2", "3 yes", *(str(i) for i in range(4, 300))]
    assert len(done.outputs["beside"]) == 300


@pytest.mark.parametrize("untidy", [False, True])
async def test_a_task_of_a_body_that_waits_for_room_suspends_it(
    store_url: str, untidy: bool, caplog: pytest.LogCaptureFixture
) -> None:
    @node
    async def asks_meanwhile(context: Context) -> AsyncIterator[int]:
        async def asks() -> None:
            await asyncio.sleep(0.01)
            await context.suspend("how many more?")

        async def cleans_up() -> None:
            try:
                await asyncio.sleep(10)
            finally:
                raise ValueError("boom")

        first = context.answer if context.is_resuming else 0
        async with asyncio.TaskGroup() as tasks:
            if not first:
                tasks.create_task(asks())
                if untidy:
                    tasks.create_task(cleans_up())
            for i in range(first, 100):
                yield i

    @node
    async def slowly(x: int) -> int:
        await asyncio.sleep(0.002)
        return x

    graph = Graph()
    graph.output("out", graph.add(slowly, x=graph.add(asks_meanwhile, "n")))
    first = await runner(store_url, edge_capacity=1).run(graph, enable=ON, run_id="r")
    assert first.status == "suspended"
    told = [record.getMessage() for record in caplog.records if "cleaned up" in record.getMessage()]
    assert len(told) == untidy, "what else it raised is told by nobody else"
    done = await runner(store_url, edge_capacity=1).resume("r", graph=graph, updates={"n": 98})
    assert done.outputs["out"] == [*first.outputs["out"], 98, 99]


async def test_an_answer_to_another_question_is_dropped_with_a_word_and_no_other_with_it(
    store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    questions = iter(("send draft 1?", "send draft 2?", "send draft 2?"))

    @node
    async def sends(x: int, context: Context) -> str:
        to = await context.suspend("to whom?")
        return f"{to} {await context.suspend(next(questions))}"

    graph = one(sends, x=1)
    result = await runner(store_url).run(graph, enable=ON, run_id="r")
    for answer in ("Ann", "yes to 1"):
        result = await runner(store_url).resume("r", graph=graph, updates={"n": answer})
    assert result.suspensions["n"].reason == "send draft 2?"
    assert "node n was given an answer to 'send draft 1?', and asks 'send draft 2?' now: that answer is dropped" in caplog.text
    assert (await runner(store_url).resume("r", graph=graph, updates={"n": "yes to 2"})).outputs == {"out": ["Ann yes to 2"]}


@node
async def asks_about_each(items: Stream[int], context: Context) -> AsyncIterator[str]:
    async for item in items:
        yield f"{item} {await context.suspend('may it?')}"
        context.commit()


@node
async def asks_about_all(items: Stream[int], context: Context) -> list[str]:
    return [f"{item} {await context.suspend('may it?')}" async for item in items]


@node
def asks_about_each_in_a_thread(items: Stream[int], context: ThreadContext) -> Iterator[str]:
    for item in items:
        yield f"{item} {context.suspend('may it?')}"
        context.commit()


@node(timeout=60)
async def asks_about_all_in_time(items: Stream[int], context: Context) -> list[str]:
    return [f"{item} {await context.suspend('may it?')}" async for item in items]


@node
async def yields_first(items: int, context: Context) -> AsyncIterator[Any]:
    yield items
    yield await context.suspend("may it?")


@node
async def commits_first(items: Stream[int], context: Context) -> AsyncIterator[str]:
    context.commit()
    async for item in items:
        yield f"{item} {await context.suspend('may it?')}"


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize(
    "definition",
    [asks_about_each, asks_about_all, asks_about_each_in_a_thread, asks_about_all_in_time, yields_first, commits_first],
)
async def test_a_streaming_body_that_does_not_hear_its_answer_loses_nothing_in_silence(
    store_url: str, definition: Any, n: int
) -> None:
    """It is started again from its beginning, and the item that it had in hand is behind it."""
    graph = Graph()
    items: Any = n if definition is yields_first else graph.add(numbers, n=n)
    graph.output("out", graph.add(definition, node_id="n", items=items))
    first = await runner(store_url).run(graph, enable=ON, run_id="r")
    assert first.status == "suspended"
    with pytest.raises(NodeFailed, match=r"before it had asked for its answer\. A body that streams"):
        await runner(store_url).resume("r", graph=graph, updates={"n": "yes"})


async def test_a_body_in_a_thread(store_url: str) -> None:
    await runner(store_url).run(one(in_a_thread, x=1), enable=ON, run_id="r")
    done = await runner(store_url).resume("r", graph=one(in_a_thread, x=1), updates={"n": 2})
    assert done.outputs == {"out": ["1 2"]}


async def test_a_timer_wakes_when_its_time_has_come(store_url: str) -> None:
    DELAYS.append(timedelta(hours=1))
    first = await runner(store_url).run(one(sleeps, x=5), enable=ON, run_id="r")
    wake_at = first.suspensions["n"].wake_at
    assert wake_at is not None
    assert timedelta(minutes=50) < wake_at - datetime.now(UTC) < timedelta(hours=1)
    assert (await runner(store_url).resume("r", graph=one(sleeps, x=5))).status == "suspended"
    assert BEGUN == ["sleeps"]


LAST = datetime.max.replace(tzinfo=UTC)


@node
async def sleeps_for_ever(x: int, context: Context) -> str:
    if not context.is_resuming:
        await context.sleep_until(LAST)
    return f"{x} {context.answer}"


@node
def sleeps_for_ever_in_a_thread(x: int, context: ThreadContext) -> str:
    if not context.is_resuming:
        context.sleep_until(LAST)
    return f"{x} {context.answer}"


@pytest.mark.parametrize("sleeps", [sleeps_for_ever, sleeps_for_ever_in_a_thread])
async def test_a_timer_for_the_last_time_there_is_waits_until_it_is_answered(store_url: str, sleeps: Any) -> None:
    graph = one(sleeps, x=5)
    assert (await runner(store_url).run(graph, enable=ON, run_id="r")).suspensions["n"].wake_at == LAST
    assert (await runner(store_url).resume("r", graph=graph)).suspensions["n"].wake_at == LAST
    assert (await runner(store_url).resume("r", graph=graph, updates={"n": "woken"})).outputs == {"out": ["5 woken"]}


BEYOND = datetime.max.replace(tzinfo=timezone(timedelta(hours=-1)))
"""An hour after the last time that UTC has."""


@pytest.mark.parametrize("when", [60, timedelta(hours=1), datetime(2040, 1, 1), BEYOND], ids=str)
async def test_a_timer_takes_a_time_with_a_zone(when: Any) -> None:
    @node
    async def sleeps_wrongly(x: int, context: Context) -> None:
        await context.sleep_until(when)

    @node
    async def asks_wrongly(x: int, context: Context) -> None:
        await context.suspend("in time?", until=when)

    for wrong in (sleeps_wrongly, asks_wrongly):
        with pytest.raises(NodeFailed, match=r"For example datetime\.now\(UTC\)"):
            await WorkflowRunner().run(one(wrong, x=1))


async def test_a_timer_that_is_over_does_not_wait_again(store_url: str) -> None:
    """The body reckons its time anew when it is run again, and has slept all the same."""
    DELAYS.append(timedelta(seconds=0.2))
    assert (await runner(store_url).run(one(sleeps, x=5), enable=ON, run_id="r")).status == "suspended"
    await asyncio.sleep(0.3)
    DELAYS.append(timedelta(hours=1))
    assert (await runner(store_url).resume("r", graph=one(sleeps, x=5))).outputs == {"out": [5]}
    assert (len(BEGUN), len(ENDED)) == (2, 1)


@node
async def asks_in_time(x: int, context: Context) -> str:
    answer = await context.suspend("in time?", metadata={"x": x}, until=datetime.now(UTC) + DELAYS[-1])
    return str(ended("asks_in_time", f"{x} {answer}"))


@node
def asks_in_time_in_a_thread(x: int, context: ThreadContext) -> str:
    return f"{x} {context.suspend('in time?', metadata={'x': x}, until=datetime.now(UTC) + DELAYS[-1])}"


class AsksInTime(SuspendableNode):
    x: int

    async def process(self) -> str:
        if not self.is_resuming:
            await self.suspend_workflow("in time?", metadata={"x": self.x}, until=datetime.now(UTC) + DELAYS[-1])
        return f"{self.x} {self.get_answer()}"


@pytest.mark.parametrize("asking", [asks_in_time, asks_in_time_in_a_thread, AsksInTime])
@pytest.mark.parametrize("answer", [None, "yes"])
async def test_a_question_with_a_deadline(asking: Any, answer: str | None, store_url: str) -> None:
    DELAYS.append(timedelta(hours=1) if answer else timedelta())
    first = await runner(store_url).run(one(asking, x=5), enable=ON, run_id="r")
    (waiting,) = await suspended_nodes(store_url)
    assert (waiting.reason, waiting.metadata, waiting.due) == ("in time?", {"x": 5}, answer is None)
    assert waiting.wake_at == first.suspensions["n"].wake_at
    DELAYS.append(timedelta(hours=2))
    if answer:
        assert (await runner(store_url).resume("r", graph=one(asking, x=5))).status == "suspended"
    result = await runner(store_url).resume("r", graph=one(asking, x=5), updates={"n": answer} if answer else {})
    assert result.outputs == {"out": [f"5 {answer}"]}


@node
async def sleeps_or_is_woken(x: int, context: Context) -> str:
    if not context.is_resuming:
        await context.sleep_until(datetime.now(UTC) + DELAYS[-1])
    return str(ended("sleeps_or_is_woken", f"{x} {context.answer}"))


@pytest.mark.parametrize("waits", [asks_in_time, sleeps_or_is_woken])
async def test_that_a_time_has_passed_is_as_final_as_an_answer(waits: Any, store_url: str) -> None:
    DELAYS.append(timedelta(seconds=0.05))
    graph = one(waits, x=5)
    wake_at = (await runner(store_url).run(graph, enable=ON, run_id="r")).suspensions["n"].wake_at
    assert wake_at is not None
    await asyncio.sleep((wake_at - datetime.now(UTC)).total_seconds() + 0.05)
    await runner(store_url).resume("r", graph=graph)
    reasons = await checkpoints(store_url)
    answered = reasons.index("answer") + 1
    assert answered < len(reasons), "before the body went on"
    with pytest.raises(NodeNotWaiting, match="answered already"):
        await runner(store_url).resume("r", graph=graph, checkpoint=answered, updates={"n": "too late"})
    again = await runner(store_url).resume("r", graph=graph, checkpoint=answered)
    assert again.outputs == {"out": ["5 None"]}
    assert len(ENDED) == 2


async def test_an_answer_after_a_timer_for_a_fixed_time_is_given(store_url: str) -> None:
    """That the time has passed when the body is run again takes nothing away from its answers."""
    due = datetime.now(UTC) + timedelta(seconds=2)

    @node
    async def reminds(x: int, context: Context) -> str:
        await context.sleep_until(due)
        return f"{x} {await context.suspend('approve?')}"

    graph = one(reminds, x=5)
    assert (await runner(store_url).run(graph, enable=ON, run_id="r")).suspensions["n"].wake_at == due
    await asyncio.sleep((due - datetime.now(UTC)).total_seconds() + 0.1)
    assert (await runner(store_url).resume("r", graph=graph)).suspensions["n"].reason == "approve?"
    assert (await runner(store_url).resume("r", graph=graph, updates={"n": "yes"})).outputs == {"out": ["5 yes"]}


async def test_a_body_that_catches_every_error_suspends_all_the_same(store_url: str) -> None:
    first = await runner(store_url).run(one(keeps_on, x=1), enable=ON, run_id="r")
    assert first.status == "suspended"


FAULTS: list[OSError] = []


@contextlib.asynccontextmanager
async def connection() -> AsyncIterator[None]:
    try:
        yield
    finally:
        if FAULTS:
            raise FAULTS.pop()


@node
async def asks_twice(x: int, context: Context) -> str:
    first = await context.suspend("first?")
    BEGUN.append(context.idempotency_key)
    async with connection():
        return f"{first} {await context.suspend('second?')}"


@node
async def pays_and_asks(x: int, context: Context) -> str:
    BEGUN.append(context.idempotency_key)
    answers = [await context.suspend(question) for question in ("first?", "second?")]
    BEGUN.append(context.idempotency_key)
    return " ".join(answers)


@node
async def pays_and_asks_anew(x: int, context: Context) -> str:
    BEGUN.append(context.idempotency_key)
    first = await context.suspend("first?")
    second = await context.suspend(f"second, asked for the {min(len(BEGUN), 4)}. time?")
    return f"{first} {second}"


@node
async def steers(x: int, context: Context) -> str:
    if not context.is_resuming:
        BEGUN.append(context.idempotency_key)
        await context.suspend("first?")
    BEGUN.append(context.idempotency_key)
    return str(context.answer)


@pytest.mark.parametrize(
    ("definition", "answers", "steps"), [(pays_and_asks, "AB", 1), (pays_and_asks_anew, "ABCD", 1), (steers, "A", 2)]
)
async def test_a_body_that_runs_again_for_its_answer_has_the_key_of_its_step(
    store_url: str, definition: Any, answers: str, steps: int
) -> None:
    graph = one(definition, x=1)
    await runner(store_url).run(graph, enable=ON, run_id="r")
    for answer in answers:
        await runner(store_url).resume("r", graph=graph, updates={"n": answer})
    assert await status(store_url) == "completed"
    assert len(BEGUN) == {pays_and_asks: 4, pays_and_asks_anew: 5, steers: 2}[definition]
    assert len(set(BEGUN)) == steps


@node
async def asks_after_items(items: Stream[int], context: Context) -> AsyncIterator[Any]:
    if context.is_resuming:
        yield context.answer
        context.commit(None)
    async for item in items:
        yield item
        if item == 1:
            BEGUN.append(context.idempotency_key)
            async with connection():
                await context.suspend("second?")


@pytest.mark.parametrize("retries", [0, 1])
@pytest.mark.parametrize(("definition", "out"), [(asks_twice, ["A B"]), (asks_after_items, [0, 1, "B", 2, 3])])
async def test_what_fails_as_it_suspends_did_not_suspend(store_url: str, definition: Any, out: list[Any], retries: int) -> None:
    graph = Graph()
    inputs: dict[str, Any] = {"x": 1} if definition is asks_twice else {"items": graph.add(numbers, n=4)}
    failure = {"retries": retries, "backoff": 0}
    graph.output("out", graph.add(definition, node_id="n", failure=failure, **inputs))
    answers: dict[str, Any] = {}
    if definition is asks_twice:
        await runner(store_url).run(graph, enable=ON, run_id="r")
        answers = {"n": "A"}
    FAULTS.append(OSError("it cannot be closed"))
    with contextlib.nullcontext() if retries else pytest.raises(NodeFailed, match="cannot be closed"):
        if answers:
            await runner(store_url).resume("r", graph=graph, updates=answers)
        else:
            await runner(store_url).run(graph, enable=ON, run_id="r")
    if not retries:
        await runner(store_url).resume("r", graph=graph)
    done = await runner(store_url).resume("r", graph=graph, updates={"n": "B"})
    assert done.outputs == {"out": out}
    assert BEGUN[0] == BEGUN[1]  # the key of the step that was run again


@pytest.mark.parametrize("definition", [Approval, ThreadApproval])
async def test_the_class_of_nodes_that_suspend(store_url: str, definition: type[SuspendableNode]) -> None:
    first = await runner(store_url).run(one(definition, x=1), enable=ON, run_id="r")
    assert first.suspensions["n"].reason == "approve"
    done = await runner(store_url).resume("r", graph=one(definition, x=1), updates={"n": "fine"})
    assert done.outputs == {"out": ["1 fine"]}


async def test_a_suspendable_node_alone() -> None:
    alone = Approval(x=3)
    assert alone.is_suspendable()
    assert not alone.is_resuming
    with pytest.raises(NotResuming):
        alone.get_saved_state()
    with pytest.raises(WorkflowSuspended) as caught:
        await alone.process()
    told = caught.value.to_dict()
    assert told == {"node_id": "", "reason": "approve", "state": {"x": 3}, "metadata": {}, "wake_at": None}
    again = Approval(x=3).resumed({"x": 3}, "yes")
    assert again.is_resuming
    assert await again.process() == "3 yes"
    with pytest.raises(WorkflowSuspended):
        ThreadApproval(x=3).process()


async def test_an_answer_for_a_node_that_does_not_wait_changes_nothing(store_url: str) -> None:
    graph = Graph()
    graph.output("out", graph.add(approve, node_id="n", x=graph.add(work, node_id="w", x=1)))
    await runner(store_url).run(graph, enable=ON, run_id="r")
    for name in ("w", "nobody"):
        with pytest.raises(NodeNotWaiting, match=f"node '{name}' of run 'r' waits for no answer") as caught:
            await runner(store_url).resume("r", graph=graph, updates={name: 1})
        assert caught.value.exit_code == 2
        assert await status(store_url) == "suspended"
    with pytest.raises(NodeNotWaiting, match=r"'n' of run 'r' waits for an answer or a time, .* Answer it with --set n=JSON"):
        await runner(store_url).resume("r", graph=graph, replay=["n"])
    done = await runner(store_url).resume("r", graph=graph, updates={"n": 1})
    assert done.outputs == {"out": ["10 1"]}
    with pytest.raises(NodeNotWaiting, match="completed"):
        await runner(store_url).resume("r", graph=graph, updates={"n": 1})
    for more in ({"updates": {"nobody": 1}}, {"replay": ["nobody"]}):
        with pytest.raises(NodeNotWaiting, match="it is not in its graph"):
            await runner(store_url).resume("r", graph=graph, **more)


async def test_a_resume_without_its_node_types_names_those_that_are_missing_and_nothing_else(store_url: str) -> None:
    graph = Graph()
    graph.output("out", graph.add(approve, node_id="n", x=graph.add(work, node_id="w", x=1)))
    await runner(store_url).run(graph, enable=ON, run_id="r")
    with pytest.raises(GraphInvalid) as caught:
        await runner(store_url).resume("r")
    [problem] = caught.value.problems
    assert problem.startswith("node 'n': unknown type")


async def asked_twice(store_url: str) -> tuple[Graph, datetime, datetime]:
    """A run whose node waits for its second answer; and since when it waited for the first and for this one."""
    graph = Graph()
    graph.output("out", graph.add(straight_on, node_id="n", x=1))
    first = await runner(store_url).run(graph, enable=ON, run_id="r")
    asked = first.suspensions["n"].since
    second = await runner(store_url).resume("r", graph=graph, updates={"n": "a"}, since={"n": asked})
    return graph, asked, second.suspensions["n"].since


async def test_an_answer_to_what_a_node_waited_for_earlier_is_refused(store_url: str) -> None:
    """Two people who answer the same question: the second answer is not taken for one to the next question."""
    graph, asked, since = await asked_twice(store_url)
    before = await checkpoints(store_url)
    message = f"'n' of run 'r' is to what it waited for since .*{asked.microsecond}.* something else since .*{since.microsecond}"
    with pytest.raises(SuspensionChanged, match=message) as caught:
        await runner(store_url).resume("r", graph=graph, updates={"n": "a"}, since={"n": asked})
    assert (caught.value.exit_code, caught.value.asked, caught.value.since) == (2, asked, since)
    with pytest.raises(SuspensionChanged):
        await update_suspended_state("r", "n", "a", store_url, since=asked)
    with pytest.raises(SuspensionChanged):
        await RecoveryService(url=store_url).resume("r", {"n": "a"}, since={"n": asked})
    assert (await checkpoints(store_url), await status(store_url)) == (before, "suspended")
    (waiting,) = await suspended_nodes(store_url)
    assert waiting.since == since
    await update_suspended_state("r", "n", "b", store_url, since=waiting.since)
    assert (await runner(store_url).resume("r", graph=graph)).outputs == {"out": ["1 a b"]}


async def test_an_answer_to_what_a_node_waited_for_at_an_older_checkpoint(store_url: str) -> None:
    graph, asked, since = await asked_twice(store_url)
    with pytest.raises(SuspensionChanged):
        await runner(store_url).resume("r", graph=graph, checkpoint=1, updates={"n": "c"}, since={"n": since})
    result = await runner(store_url).resume("r", graph=graph, checkpoint=1, updates={"n": "c"}, since={"n": asked})
    assert (result.status, (await suspended_nodes(store_url))[0].metadata) == ("suspended", {"first": "c"})


NOON = datetime(2027, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("since", "message"),
    [
        ({"m": NOON}, "'m', for which there is no answer"),
        ({"n": NOON.replace(tzinfo=None)}, "aware times"),
        ({"n": NOON.isoformat()}, "aware times"),
    ],
)
async def test_times_that_are_none_of_an_answer_are_refused(store_url: str, since: dict[str, Any], message: str) -> None:
    await asked_twice(store_url)
    with pytest.raises(InputInvalid, match=message):
        await runner(store_url).resume("r", updates={"n": 1}, since=since)
    with pytest.raises(ValueError, match=message):
        await RecoveryService(url=store_url).resume("r", {"n": 1}, since=since)


async def test_a_run_tells_of_the_node_that_waits_for_the_longest_time_over_any_number_of_resumes(store_url: str) -> None:
    graph = Graph()
    for node_id in ("first", "n"):
        graph.output(f"of {node_id}", graph.add(straight_on, node_id=node_id, x=1))
    await runner(store_url).run(graph, enable=ON, run_id="r")
    for answer in "ab":
        waits = {each.node_id: each.since for each in await suspended_nodes(store_url)}
        (longest, *_) = sorted(waits, key=lambda node_id: (waits[node_id], node_id))
        assert (await JobRepository(store_url).get("r")).suspended_node_id == longest == "first"
        await runner(store_url).resume("r", graph=graph, updates={"n": answer})
    assert (await JobRepository(store_url).get("r")).suspended_node_id == "first"


async def test_a_suspended_run_that_is_refused_as_it_goes_back_stays_where_it_waits(store_url: str) -> None:
    graph = Graph()
    graph.output("out", graph.add(straight_on, node_id="n", x=1))
    await runner(store_url).run(graph, enable=ON, run_id="r")
    await runner(store_url).resume("r", graph=graph, updates={"n": "a"})
    before = await checkpoints(store_url)
    for updates, refusal in (({"n": object()}, ValueNotStorable), ({"out": 1}, NodeNotWaiting)):
        with pytest.raises(refusal):
            await runner(store_url).resume("r", graph=graph, checkpoint=1, updates=updates)
        job = await JobRepository(store_url).get("r")
        assert (job.status, job.suspended_node_id, job.error) == ("suspended", "n", None)
        assert await checkpoints(store_url) == before
    result = await runner(store_url).resume("r", graph=graph, updates={"n": "b"})
    assert result.outputs == {"out": ["1 a b"]}


async def test_an_answer_is_saved_as_one_though_a_checkpoint_was_asked_for_before(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the timer of the policy, while the run was read."""
    restore = Store.restore

    async def slowly(store: Store, *arguments: Any, **more: Any) -> Any:
        found = await restore(store, *arguments, **more)
        await asyncio.sleep(0.1)
        return found

    graph = Graph()
    graph.output("out", graph.add(straight_on, node_id="n", x=1))
    await runner(store_url).run(graph, enable={"checkpoint": {"every_seconds": 0.01}}, run_id="r")
    monkeypatch.setattr(Store, "restore", slowly)
    with pytest.raises(ValueNotStorable):
        await runner(store_url).resume("r", graph=graph, updates={"n": object()})
    job = await JobRepository(store_url).get("r")
    assert (job.status, job.suspended_node_id, job.error) == ("suspended", "n", None)
    await runner(store_url).resume("r", graph=graph, updates={"n": "a"})
    saved = [reason for reason in await checkpoints(store_url) if reason != "interval"]  # there may be time for one before an end
    assert saved == ["suspend", "answer", "suspend"]


async def test_an_answer_to_an_older_question_is_saved_with_the_way_back_to_it(store_url: str) -> None:
    graph = Graph()
    graph.output("out", graph.add(straight_on, node_id="n", x=1))
    await runner(store_url).run(graph, enable=ON, run_id="r")
    await runner(store_url).resume("r", graph=graph, updates={"n": "a"})
    before = await checkpoints(store_url)
    await runner(store_url).resume("r", graph=graph, checkpoint=1, updates={"n": "b"})
    assert (await checkpoints(store_url))[len(before) :] == ["back to 1", "suspend"]
    assert (await runner(store_url).resume("r", graph=graph, updates={"n": "c"})).outputs == {"out": ["1 b c"]}


async def test_an_answer_that_cannot_be_stored_changes_nothing(store_url: str) -> None:
    graph = Graph()
    graph.output("out", graph.add(approve, node_id="n", x=1))
    await runner(store_url).run(graph, enable=ON, run_id="r")
    with pytest.raises(ValueNotStorable, match="node 'n', answer cannot be stored"):
        await runner(store_url).resume("r", graph=graph, updates={"n": object()})
    job = await JobRepository(store_url).get("r")
    assert (job.status, job.suspended_node_id, job.error) == ("suspended", "n", None)
    assert await checkpoints(store_url) == ["suspend"]
    assert (await runner(store_url).resume("r", graph=graph, updates={"n": 1})).outputs == {"out": ["1 1"]}


async def test_suspending_without_a_store_says_what_to_enable() -> None:
    with pytest.raises(NodeFailed, match="Enable it") as caught:
        await WorkflowRunner().run(one(approve, x=1))
    assert isinstance(caught.value.__cause__, SuspensionUnavailable)


class Ear:
    """Hears how nodes and the run ended."""

    def __init__(self) -> None:
        self.heard: list[Outcome] = []

    @hookimpl
    async def after_node(self, run: RunInfo, node: NodeInfo, outcome: Outcome) -> None:
        """Note it."""
        self.heard.append(outcome)

    @hookimpl
    async def after_run(self, run: RunInfo, outcome: Outcome) -> None:
        """Note it."""
        self.heard.append(outcome)


async def test_an_answer_that_was_wrong_is_given_anew_from_before_it(store_url: str) -> None:
    @node
    async def adds(x: int, context: Context) -> int:
        return x + int(await context.suspend("how much?"))

    graph = Graph()
    graph.output("out", graph.add(adds, node_id="adds", x=1))
    await runner(store_url).run(graph, enable={"checkpoint": True}, run_id="r")
    with pytest.raises(NodeFailed, match="invalid literal"):
        await runner(store_url).resume("r", graph=graph, updates={"adds": "much"})
    with pytest.raises(NodeNotWaiting):
        await runner(store_url).resume("r", graph=graph, updates={"adds": 2})
    assert (await checkpoints(store_url))[:2] == ["suspend", "answer"]
    assert (await runner(store_url).resume("r", graph=graph, checkpoint=1, updates={"adds": 2})).outputs == {"out": [3]}


async def test_a_completed_run_is_given_another_answer_from_before_it(store_url: str) -> None:
    graph = one(approve, x=1)
    await runner(store_url).run(graph, enable=ON, run_id="r")
    assert (await runner(store_url).resume("r", graph=graph, updates={"n": "yes"})).outputs == {"out": ["1 yes"]}
    with pytest.raises(NodeNotWaiting, match="completed"):
        await runner(store_url).resume("r", graph=graph, checkpoint="latest-intact", updates={"n": "no"})
    with pytest.raises(NodeNotWaiting, match=r"node 'n' of run 'r' .* it is completed"):
        await runner(store_url).resume("r", graph=graph, checkpoint=3, updates={"n": "no"})
    assert await status(store_url) == "completed"
    again = await runner(store_url).resume("r", graph=graph, checkpoint=1, updates={"n": "no"})
    assert again.outputs == {"out": ["1 no"]}


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda context: context.suspend(5), "the reason of suspend is text for people, not 5"),
        (lambda context: context.suspend("why", metadata=[("a", 1)]), "the metadata of suspend are a mapping, not"),
        (lambda context: context.checkpoint(None), "the reason of checkpoint is text for people, not None"),
    ],
)
async def test_what_is_no_reason_fails_its_node_and_no_save(store_url: str, call: Any, told: str) -> None:
    @node
    async def asks(x: int, context: Context) -> Any:
        return await call(context)

    graph = Graph()
    graph.add(asks, node_id="asks", x=1)
    with pytest.raises(NodeFailed, match=told) as caught:
        await runner(store_url).run(graph, enable={"checkpoint": True}, run_id="r")
    assert isinstance(caught.value.__cause__, TypeError)
    assert await status(store_url) == "failed"


async def test_hooks_hear_of_a_suspension(store_url: str) -> None:
    ear = Ear()
    host: PluginHost = Host(store_url)
    host.register(ear, "ear")
    await WorkflowRunner(plugins=host).run(one(approve, x=1), enable=ON, run_id="r")
    of_node, of_run = ear.heard[0], ear.heard[-1]
    assert isinstance(of_node, Suspended)
    assert isinstance(of_run, Suspended)
    assert set(of_node.suspensions) == set(of_run.suspensions) == {"n"}


async def test_a_run_killed_after_its_answer_was_given_keeps_it(store_url: str) -> None:
    """What is durable when the body goes on holds the answer: a process that dies there need not be told again."""
    await runner(store_url).run(one(straight_on, x=1), enable=ON, run_id="r")
    await runner(store_url).resume("r", graph=one(straight_on, x=1), updates={"n": "a"})
    store = Store(locate(store_url), create=False)
    saved = [row.reason for row in await store.checkpoints("r")]
    assert saved == ["suspend", "answer", "suspend"]
    answered = await store.restore(RunHistory("r", 0), 2)
    await store.close()
    assert answered is not None
    (found,) = [snapshot for snapshot in answered.nodes if snapshot.node_id == "n"]
    assert found.suspension is not None
    assert (found.suspension.answered, found.suspension.answer) == (True, "a")
    done = await runner(store_url).resume("r", graph=one(straight_on, x=1), checkpoint=2)
    assert done.suspensions["n"].metadata == {"first": "a"}


async def test_a_plan_tells_the_attempt_that_the_body_is_told(store_url: str) -> None:
    graph = Graph(enable={"checkpoint": True})
    graph.output("out", graph.add(tells_its_attempt, node_id="asks", x=1))
    assert (await runner(store_url).run(graph, run_id="r")).status == "suspended"
    planned = (await RecoveryService(url=store_url).plan("r"))["asks"]
    result = await runner(store_url).resume("r", graph=graph, updates={"asks": 0})
    assert result.outputs == {"out": [planned.attempt]}


async def test_a_suspended_run_is_stored_whatever_the_policy(store_url: str) -> None:
    graph = Graph(enable={"checkpoint": {"explicit": True, "on_suspend": False}})
    graph.output("out", graph.add(approve, x=1))
    assert (await runner(store_url).run(graph, run_id="r")).status == "suspended"
    assert await checkpoints(store_url) == ["suspend"]
