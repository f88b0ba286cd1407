"""Suspended nodes that go on in the attempt that they were suspended in, while others still move."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
from gc import collect
from typing import Any
from weakref import WeakSet

import pytest

from hookspecs import (
    Answer,
    CheckpointRef,
    HookError,
    NodeInfo,
    Outcome,
    PluginHost,
    RunControl,
    RunInfo,
    Snapshot,
    Suspended,
    Suspension,
    hookimpl,
)
from tests.workflow_runner.test_resume import Memory
from workflow_runner import (
    Context,
    Graph,
    NodeChanged,
    NodeFailed,
    NodeNotWaiting,
    RunStopped,
    Stream,
    ThreadContext,
    WorkflowRunner,
    node,
)

SEEN: list[Any] = []
MEANWHILE: list[asyncio.Event] = []
STORE: list[Answering] = []


class Answering(Memory):
    """A store to which answers are brought; `brings` says what by the suspensions that nodes have told."""

    def __init__(self, brings: Callable[[dict[str, Suspension]], Sequence[Answer]] = lambda waits: ()) -> None:
        super().__init__()
        self.brings = brings
        self.waits: dict[str, Suspension] = {}
        self.looks = 0
        self.reasons: list[str] = []

    @hookimpl
    async def before_run(self, run: RunInfo, control: RunControl) -> None:
        self.info = run
        control.save_at("error", "signal", "cancel")

    @hookimpl
    async def after_node(self, node: NodeInfo, outcome: Outcome) -> None:
        if isinstance(outcome, Suspended):
            self.waits.update(outcome.suspensions)

    @hookimpl
    async def save_checkpoint(self, run: RunInfo, snapshot: Snapshot, reason: str) -> CheckpointRef | None:
        self.reasons.append(reason)
        return await super().save_checkpoint(run, snapshot, reason)

    @hookimpl
    async def fetch_answers(self, run: RunInfo) -> Sequence[Answer]:
        self.looks += 1
        return self.brings(self.waits)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("workflow_runner.waking.LOOK_SECONDS", 0.002)
    for noted in (SEEN, MEANWHILE, STORE):
        noted.clear()
    yield
    MEANWHILE.clear()


def hosted(store: Answering, **settings: Any) -> WorkflowRunner:
    STORE.append(store)
    MEANWHILE.append(asyncio.Event())
    return WorkflowRunner(plugins=PluginHost().register(store, "memory", store=store), **settings)


async def run(store: Answering, graph: Graph, inputs: Any, **settings: Any) -> Any:
    async with asyncio.timeout(10):
        return await hosted(store, **settings).run(graph, inputs, run_id="r")


async def until(there: Callable[[], bool]) -> None:
    for _ in range(10_000):
        if there():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it never came")


def each(value: Any) -> Callable[[dict[str, Suspension]], Sequence[Answer]]:
    """Every suspension is answered so."""
    return lambda waits: [Answer(node_id, wait.since, value) for node_id, wait in waits.items()]


@node
async def approve(x: int, context: Context) -> str:
    answer = await context.suspend(f"approve {x}?")
    told = STORE[-1].nodes[context.node_id].suspension
    SEEN.append((told is not None and told.answered, context.idempotency_key))
    MEANWHILE[-1].set()
    return f"{x} {answer}"


@node
async def until_approved(x: int) -> int:
    await MEANWHILE[-1].wait()
    return x


@node
async def join(approved: str, done: int) -> str:
    return f"{approved}, {done}"


def beside(waits: Any, works: Any = until_approved) -> Graph:
    graph = Graph()
    x = graph.input("x")
    joined = graph.add(join, "join")
    graph.connect(graph.add(waits, "waits", x=x), joined, "approved")
    graph.connect(graph.add(works, "works", x=x), joined, "done")
    graph.output("out", joined)
    return graph


async def test_an_answer_reaches_a_node_while_another_works() -> None:
    store = Answering(each("yes"))
    result = await run(store, beside(approve), {"x": 1})
    assert (result.status, result.outputs) == ("completed", {"out": ["1 yes, 1"]})
    assert [saved for saved, _ in SEEN] == [True], "what it goes on with is durable before it does"
    assert store.reasons[-2:] == ["answer", "end"]


async def test_subscribers_hear_what_a_node_waits_for() -> None:
    events: list[Any] = []
    store = Answering(each("yes"))
    await run(store, beside(approve), {"x": 1}, on_event=events.append)
    told = [event for event in events if getattr(event, "node_id", "") == "waits"]
    statuses = [event.status if isinstance(event, NodeChanged) else event.suspension.reason for event in told]
    assert statuses == ["running", "running", "suspended", "approve 1?", "running", "completed"]


async def test_nobody_looks_where_no_node_waits() -> None:
    @node
    async def at_once(x: int) -> str:
        MEANWHILE[-1].set()
        return str(x)

    store = Answering()
    assert (await run(store, beside(at_once), {"x": 1})).outputs == {"out": ["1, 1"]}
    assert store.looks == 0


async def test_an_answer_that_comes_as_the_last_other_node_ends_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workflow_runner.waking.LOOK_SECONDS", 3600.0)
    store = Answering(each("yes"))
    graph = Graph()
    graph.output("out", graph.add(approve, "waits", x=graph.input("x")))
    result = await run(store, graph, {"x": 1})
    assert (result.status, result.outputs, store.looks) == ("completed", {"out": ["1 yes"]}, 1)


async def test_without_an_answer_the_run_is_suspended_after_one_more_look() -> None:
    store = Answering()
    graph = Graph()
    graph.output("out", graph.add(approve, "waits", x=graph.input("x")))
    result = await run(store, graph, {"x": 1})
    assert (result.status, list(result.suspensions), store.looks, store.reasons) == ("suspended", ["waits"], 1, ["suspend"])


async def test_an_answer_to_another_suspension_is_passed_over() -> None:
    other = datetime(2020, 1, 1, tzinfo=UTC)
    store = Answering(lambda waits: [Answer("waits", other, "no"), Answer("nobody", other), Answer("works", other)])

    @node
    async def some_looks(x: int) -> int:
        await until(lambda: store.looks >= 5)
        return x

    result = await run(store, beside(approve, some_looks), {"x": 1})
    assert (result.status, list(result.suspensions)) == ("suspended", ["waits"])
    assert (SEEN, store.reasons) == ([], ["suspend", "suspend"]), "who answers sees what it waits for at once"


async def test_a_resume_passes_over_an_answer_to_another_suspension_or_to_none() -> None:
    graph = Graph()
    graph.output("out", graph.add(approve, "waits", x=1))
    store = Answering()
    assert (await hosted(store).run(graph, run_id="r")).status == "suspended"

    def brings(waits: dict[str, Suspension]) -> Sequence[Answer]:
        since = waits["waits"].since
        return [Answer("waits", since - timedelta(seconds=1), "late"), Answer("gone", since, "lost")]

    store.brings = brings
    assert (await hosted(store).resume("r", graph=graph)).status == "suspended"
    assert not SEEN
    store.brings = each("yes")
    assert (await hosted(store).resume("r", graph=graph)).outputs == {"out": ["1 yes"]}


async def test_an_answer_that_an_attempt_did_not_live_to_take_is_taken_by_the_next() -> None:
    store = Answering()

    @node
    async def fails(x: int) -> int:
        await until(lambda: "waits" in STORE[-1].nodes)
        raise OSError("killed")

    with pytest.raises(NodeFailed):
        await run(store, beside(approve, fails), {"x": 1})
    store.brings = each("yes")
    graph = beside(approve, fails)
    store.reasons.clear()
    with pytest.raises(NodeFailed):
        async with asyncio.timeout(10):
            await hosted(store).resume("r", graph=graph)
    assert store.reasons.count("answer") == 1
    assert [saved for saved, _ in SEEN] == [True]
    with pytest.raises(NodeNotWaiting):
        await hosted(store).resume("r", graph=graph, updates={"waits": "no"})


async def test_a_resume_that_cannot_see_whether_an_answer_came_before_the_time_starts_nothing() -> None:
    store = Answering()
    graph = Graph()
    graph.output("out", graph.add(sleeps, "waits", x=graph.input("x")))
    await run(store, graph, {"x": 1})
    await asyncio.sleep(0.01)
    looks = store.looks

    def brings(waits: dict[str, Suspension]) -> Sequence[Answer]:
        if store.looks > looks + 1:  # the first is that of the resume which begins
            raise OSError("the disk is away")
        return ()

    store.brings = brings
    async with asyncio.timeout(10):
        with pytest.raises(HookError, match="the disk is away"):
            await hosted(store).resume("r", graph=graph)
        assert SEEN == []
        store.brings = lambda waits: ()
        assert (await hosted(store).resume("r", graph=graph)).outputs == {"out": ["1 None"]}


async def test_what_is_brought_by_a_resume_is_refused_where_an_answer_is_kept() -> None:
    store = Answering()
    graph = Graph()
    graph.output("out", graph.add(approve, "waits", x=graph.input("x")))
    await run(store, graph, {"x": 1})
    store.brings = each("yes")
    with pytest.raises(NodeNotWaiting, match="answered already"):
        await hosted(store).resume("r", graph=graph, updates={"waits": "no"})
    result = await hosted(store).resume("r", graph=graph)
    assert result.outputs == {"out": ["1 yes"]}


@node
async def sleeps(x: int, context: Context) -> str:
    if not context.is_resuming:
        await context.suspend("a minute", until=datetime.now(UTC) + timedelta(milliseconds=5))
    told = STORE[-1].nodes[context.node_id].suspension
    SEEN.append(told is not None and told.answered)
    MEANWHILE[-1].set()
    return f"{x} {context.answer}"


async def test_a_time_that_comes_wakes_while_another_works() -> None:
    result = await run(Answering(), beside(sleeps), {"x": 1})
    assert result.outputs == {"out": ["1 None, 1"]}
    assert SEEN == [True]


async def test_a_time_wakes_also_where_the_plugin_keeps_no_answers() -> None:
    class Saving(Memory):
        nodes: Any

    STORE.append(Saving())  # type: ignore[arg-type]
    MEANWHILE.append(asyncio.Event())
    runner = WorkflowRunner(plugins=PluginHost().register(STORE[-1], "memory", store=STORE[-1]))
    async with asyncio.timeout(10):
        assert (await runner.run(beside(sleeps), {"x": 1})).outputs == {"out": ["1 None, 1"]}


async def test_an_answer_that_came_before_it_was_durable_that_the_time_had_passed_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workflow_runner.waking.LOOK_SECONDS", 3600.0)
    store = Answering()

    def brings(waits: dict[str, Suspension]) -> Sequence[Answer]:
        told = store.nodes["waits"].suspension
        return each("just in time")(waits) if told is not None and told.answered else ()

    store.brings = brings
    result = await run(store, beside(sleeps), {"x": 1})
    assert result.outputs == {"out": ["1 just in time, 1"]}
    assert store.reasons == ["suspend", "answer", "answer", "end"]


async def test_an_answer_that_came_while_a_resume_made_it_durable_that_the_time_had_passed_counts() -> None:
    store = Answering()
    graph = Graph()
    graph.output("out", graph.add(sleeps, "waits", x=graph.input("x")))
    await run(store, graph, {"x": 1})
    await asyncio.sleep(0.01)

    def brings(waits: dict[str, Suspension]) -> Sequence[Answer]:
        told = store.nodes["waits"].suspension
        return each("just in time")(waits) if told is not None and told.answered else ()

    store.brings = brings
    result = await hosted(store).resume("r", graph=graph)
    assert result.outputs == {"out": ["1 just in time"]}
    assert store.reasons == ["suspend", "answer", "answer", "end"]


async def test_a_look_that_fails_before_a_resume_has_begun_fails_the_run_once_that_is_saved() -> None:
    class Failing(Answering):
        control: RunControl

        @hookimpl
        async def before_run(self, run: RunInfo, control: RunControl) -> None:
            self.control = control
            await super().before_run(run, control)

        @hookimpl
        async def save_checkpoint(self, run: RunInfo, snapshot: Snapshot, reason: str) -> CheckpointRef | None:
            ref = await super().save_checkpoint(run, snapshot, reason)
            await asyncio.sleep(0.005)
            SEEN.append(reason)
            return ref

        @hookimpl
        async def fetch_answers(self, run: RunInfo) -> Sequence[Answer]:
            if "answer" in SEEN:
                self.control.request("interval")
                await asyncio.sleep(0)
                raise OSError("no")
            return ()

        @hookimpl
        async def after_run(self, run: RunInfo, outcome: Outcome) -> None:
            SEEN.append("over")

    store = Failing()
    graph = Graph()
    graph.output("out", graph.add(sleeps, "waits", x=graph.input("x")))
    await run(store, graph, {"x": 1})
    await asyncio.sleep(0.01)
    with pytest.raises(HookError, match="'fetch_answers'"):
        await hosted(store).resume("r", graph=graph)
    assert SEEN == ["suspend", "over", "answer", "error", "over"]


async def test_a_time_that_has_passed_wakes_nobody_where_nothing_else_moves() -> None:
    @node
    async def hands_over(x: int, context: Context) -> int:
        if not context.is_resuming:
            await context.suspend("for another worker", until=datetime.now(UTC))
        return x

    store = Answering()
    graph = Graph()
    graph.output("out", graph.add(hands_over, "waits", x=graph.input("x")))
    assert (await run(store, graph, {"x": 1})).status == "suspended"
    assert store.reasons == ["suspend"]


async def test_an_answer_to_an_earlier_question_does_not_count_when_the_time_has_passed() -> None:
    earlier = datetime(2020, 1, 1, tzinfo=UTC)
    result = await run(Answering(lambda waits: [Answer("waits", earlier, "too late")]), beside(sleeps), {"x": 1})
    assert result.outputs == {"out": ["1 None, 1"]}


@node
async def until_tomorrow(x: int, context: Context) -> str:
    return f"{x} {await context.suspend('approve?', until=datetime.now(UTC) + timedelta(days=1))}"


async def waiting_until_tomorrow(**changed: Any) -> tuple[Graph, Answering]:
    """A run that is suspended, with another suspension of its node stored."""
    graph = Graph()
    graph.output("out", graph.add(until_tomorrow, "waits", x=1))
    store = Answering()
    assert (await hosted(store).run(graph, run_id="r")).status == "suspended"
    waits = store.nodes["waits"]
    assert waits.suspension is not None
    store.nodes["waits"] = replace(waits, suspension=replace(waits.suspension, **changed))
    return graph, store


@pytest.mark.parametrize(("stored", "counts"), [(None, "just in time"), ("yes", "yes")])
async def test_an_answer_that_was_kept_counts_where_the_cut_tells_that_the_time_had_passed(stored: Any, counts: str) -> None:
    """The process was killed when that was durable, and had not looked again."""
    graph, store = await waiting_until_tomorrow(answered=True, answer=stored)
    store.brings = each("just in time")
    assert (await hosted(store).resume("r", graph=graph)).outputs == {"out": [f"1 {counts}"]}


@pytest.mark.parametrize("brought", [False, True])
async def test_an_answer_counts_after_its_time_until_a_resume_has_gone_on_without(brought: bool) -> None:
    graph, store = await waiting_until_tomorrow(wake_at=datetime.now(UTC))
    store.brings = each("yes") if brought else lambda waits: ()
    updates = {} if brought else {"waits": "yes"}
    assert (await hosted(store).resume("r", graph=graph, updates=updates)).outputs == {"out": ["1 yes"]}


async def test_a_resume_that_goes_back_takes_no_answer_that_came_before() -> None:
    store = Answering()
    graph = Graph()
    graph.output("out", graph.add(sleeps, "waits", x=graph.input("x")))
    await run(store, graph, {"x": 1})
    await asyncio.sleep(0.01)
    store.brings = each("too early")
    result = await hosted(store).resume("r", graph=graph, checkpoint=1)
    assert (result.outputs, store.reasons) == ({"out": ["1 None"]}, ["suspend", "answer", "end"])


async def test_an_answer_that_is_found_as_the_time_comes_counts_and_is_saved_once() -> None:
    class Slow(Answering):
        @hookimpl
        async def fetch_answers(self, run: RunInfo) -> Sequence[Answer]:
            if wake_at := next((wait.wake_at for wait in self.waits.values()), None):
                await until(lambda: datetime.now(UTC) > wake_at)
            return await super().fetch_answers(run)

    store = Slow(each("in time"))
    result = await run(store, beside(sleeps), {"x": 1})
    assert (result.outputs, store.reasons) == ({"out": ["1 in time, 1"]}, ["suspend", "answer", "end"])


class Autumn(tzinfo):
    """A zone whose clocks have been put back by an hour: the second of two times may read as the earlier one."""

    def utcoffset(self, when: datetime | None) -> timedelta:
        return timedelta(hours=0 if when is not None and when.fold else 1)

    def dst(self, when: datetime | None) -> None:
        return None

    def tzname(self, when: datetime | None) -> str:
        return "autumn"


async def test_of_two_times_in_the_hour_that_comes_twice_the_first_wakes_first() -> None:
    zone, now = Autumn(), datetime.now(UTC)
    soon = (now + timedelta(milliseconds=5, hours=1)).replace(tzinfo=zone)
    later = (now + timedelta(minutes=30)).replace(tzinfo=zone, fold=1)

    @node
    async def waits_until(x: int, late: bool, context: Context) -> int:
        if not context.is_resuming:
            await context.suspend("in time", until=later if late else soon)
        MEANWHILE[-1].set()
        return x

    graph = Graph()
    x = graph.input("x")
    for node_id, late in (("late", True), ("early", False)):
        graph.output(node_id, graph.add(waits_until, node_id, x=x, late=late))
    graph.output("works", graph.add(until_approved, x=x))
    result = await run(Answering(), graph, {"x": 1})
    assert (result.outputs["early"], list(result.suspensions)) == ([1], ["late"])


async def test_what_a_suspended_node_has_set_nobody_else_sees() -> None:
    setting: ContextVar[str] = ContextVar("setting", default="nothing")
    seen: set[str] = set()

    class Looking(Answering):
        @hookimpl
        async def fetch_answers(self, run: RunInfo) -> Sequence[Answer]:
            seen.add(setting.get())
            return await super().fetch_answers(run)

    @node
    async def sets(x: int, context: Context) -> str:
        setting.set("the node's own")
        await context.suspend("approve?")
        MEANWHILE[-1].set()
        return str(x)

    await run(Looking(each("yes")), beside(sets), {"x": 1})
    assert seen == {"nothing"}


@node
async def numbers(n: int, context: Context) -> AsyncIterator[int]:
    for number in range(context.state or 0, n):
        yield number
        context.commit(number + 1)
        await asyncio.sleep(0.001)


@node
async def gate(items: Stream[int], context: Context) -> AsyncIterator[str]:
    if context.is_resuming:
        yield f"{context.saved_state} {context.answer}"
        context.commit()
    async for item in items:
        if item % 3 == 0:
            await context.suspend("may it pass?", state=item)
        yield str(item)
        context.commit()


async def test_a_stream_goes_on_where_it_stood_each_time() -> None:
    graph = Graph()
    source = graph.add(numbers, "numbers", n=graph.input("n"))
    graph.output("out", graph.add(gate, "gate", items=source))
    result = await run(Answering(each("yes")), graph, {"n": 40}, edge_capacity=2)
    assert result.outputs == {"out": [f"{n} yes" if n % 3 == 0 else str(n) for n in range(40)]}


@node
async def three_questions(x: int, context: Context) -> str:
    SEEN.append(context.idempotency_key)
    answers = [await context.suspend(f"question {n}") for n in range(3)]
    MEANWHILE[-1].set()
    return f"{x} {answers}"


async def test_answers_are_given_in_order_and_the_step_stays_one() -> None:
    count = iter(range(100))
    given: dict[datetime, int] = {}
    store = Answering(
        lambda waits: [Answer(name, wait.since, given.setdefault(wait.since, next(count))) for name, wait in waits.items()]
    )
    result = await run(store, beside(three_questions), {"x": 7})
    first, second, third = given.values()
    assert result.outputs == {"out": [f"7 [{first}, {second}, {third}], 7"]}
    assert len(SEEN) == 4 and len(set(SEEN)) == 1


async def test_a_body_in_a_thread_goes_on() -> None:
    @node
    def in_a_thread(x: int, context: ThreadContext) -> str:
        answer = context.suspend("go on?")
        loop.call_soon_threadsafe(MEANWHILE[-1].set)
        return f"{x} {answer}"

    loop = asyncio.get_running_loop()

    result = await run(Answering(each(True)), beside(in_a_thread), {"x": 1})
    assert result.outputs == {"out": ["1 True, 1"]}


async def test_one_that_must_not_be_repeated_is_answered_and_goes_on_once() -> None:
    @node(replayable=False)
    async def pays(x: int, context: Context) -> str:
        if not context.is_resuming:
            await context.suspend("pay?")
        SEEN.append("paid")
        MEANWHILE[-1].set()
        return f"{x} {context.answer}"

    result = await run(Answering(each("yes")), beside(pays), {"x": 1})
    assert (result.outputs, SEEN) == ({"out": ["1 yes, 1"]}, ["paid"])


@pytest.mark.parametrize("meanwhile", [True, False])
async def test_with_an_answer_the_retries_of_a_node_begin_anew(meanwhile: bool) -> None:
    @node(retries=1, backoff=0.001)
    async def fails_before_and_after(x: int, context: Context) -> str:
        SEEN.append((context.attempt, context.is_resuming))
        if context.attempt in (1, 2) and SEEN.count(SEEN[-1]) == 1 and context.is_resuming is (context.attempt == 2):
            raise OSError("for a moment")
        if not context.is_resuming:
            await context.suspend("go on?")
        MEANWHILE[-1].set()
        return f"{x} {context.answer}"

    store = Answering(each("yes") if meanwhile else lambda waits: ())
    graph = beside(fails_before_and_after)
    if meanwhile:
        result = await run(store, graph, {"x": 1})
    else:
        waiting = hosted(store)
        MEANWHILE[-1].set()
        assert (await waiting.run(graph, {"x": 1}, run_id="r")).status == "suspended"
        result = await hosted(store).resume("r", graph=graph, updates={"waits": "yes"})
    assert result.outputs == {"out": ["1 yes, 1"]}
    assert [attempt for attempt, _ in SEEN] == [1, 2, 2, 3]


async def test_what_could_not_be_saved_of_a_node_that_waits_is_saved_with_the_next_look() -> None:
    class Failing(Answering):
        @hookimpl
        async def save_checkpoint(self, run: RunInfo, snapshot: Snapshot, reason: str) -> CheckpointRef | None:
            ref = await super().save_checkpoint(run, snapshot, reason) if "suspend" in self.reasons else None
            self.reasons.append(reason)
            return ref

    store = Failing()
    store.brings = lambda waits: each("yes")(waits) if "waits" in store.nodes else ()
    result = await run(store, beside(approve), {"x": 1})
    assert result.outputs == {"out": ["1 yes, 1"]}


async def test_nobody_looks_when_the_time_of_a_node_comes_that_was_answered_before() -> None:
    store = Answering(each("yes"))

    @node
    async def asks(x: int, context: Context) -> str:
        answer = await context.suspend("approve?", until=TIMES[-1])
        MEANWHILE[-1].set()
        return f"{x} {answer}"

    @node
    async def beyond_it(x: int) -> int:
        await MEANWHILE[-1].wait()
        looks = store.looks
        await until(lambda: datetime.now(UTC) > TIMES[-1])
        await asyncio.sleep(0.005)
        return store.looks - looks

    TIMES = [datetime.now(UTC) + timedelta(milliseconds=400)]
    assert (await run(store, beside(asks, beyond_it), {"x": 1})).outputs == {"out": ["1 yes, 0"]}


async def test_times_of_suspensions_that_were_answered_before_are_let_go() -> None:
    class Time(datetime):
        """Can be counted as long as somebody has it."""

    times: WeakSet[Time] = WeakSet()

    @node
    async def asks(x: int, context: Context) -> int:
        if not context.is_resuming:
            times.add(tomorrow := Time.now(UTC) + timedelta(days=1))
            await context.suspend("by tomorrow", until=tomorrow)
        if x == 49:
            MEANWHILE[-1].set()
        return x

    @node
    async def several(x: int) -> AsyncIterator[int]:
        for number in range(50):
            yield number

    @node
    async def left(x: int) -> int:
        await MEANWHILE[-1].wait()
        collect()
        return len(times)

    graph = Graph()
    x = graph.input("x")
    graph.output("out", graph.add(asks, x=graph.add(several, x=x)))
    graph.output("left", graph.add(left, x=x))
    result = await run(Answering(each("yes")), graph, {"x": 1})
    assert result.outputs["out"] == list(range(50))
    assert result.outputs["left"][0] < 10


async def test_a_run_that_is_stopped_while_a_node_is_asleep_ends() -> None:
    store = Answering()

    @node
    async def stops(x: int) -> int:
        await until(lambda: store.looks >= 3)
        runner.stop("signal")
        await asyncio.sleep(3600)
        return x

    runner = hosted(store)
    with pytest.raises(RunStopped):
        async with asyncio.timeout(10):
            await runner.run(beside(approve, stops), {"x": 1}, run_id="r")
    assert store.status == "paused"


async def test_a_run_that_is_stopped_while_an_answer_is_saved_has_it_and_starts_nobody() -> None:
    class Stopping(Answering):
        @hookimpl
        async def before_node(self, run: RunInfo, node: NodeInfo) -> None:
            SEEN.append(node.node_id)

        @hookimpl
        async def save_checkpoint(self, run: RunInfo, snapshot: Snapshot, reason: str) -> CheckpointRef | None:
            if reason == "answer":
                runner.stop("signal")
            return await super().save_checkpoint(run, snapshot, reason)

    @node
    async def asks(x: int, context: Context) -> str:
        return f"{x} {await context.suspend('approve?')}"

    store = Stopping(each("yes"))
    runner = hosted(store)
    graph = beside(asks)
    with pytest.raises(RunStopped):
        async with asyncio.timeout(10):
            await runner.run(graph, {"x": 1}, run_id="r")
    assert SEEN.count("waits") == 1
    store.brings = each("no")
    later = hosted(store)
    MEANWHILE[-1].set()
    assert (await later.resume("r", graph=graph)).outputs == {"out": ["1 yes, 1"]}


async def test_a_run_that_is_stopped_waits_for_a_look_no_longer_than_for_a_body() -> None:
    class Hanging(Answering):
        @hookimpl
        async def fetch_answers(self, run: RunInfo) -> Sequence[Answer]:
            MEANWHILE[-1].set()
            await asyncio.sleep(3600)
            return ()

    @node
    async def stops(x: int) -> int:
        await MEANWHILE[-1].wait()
        runner.stop("signal")
        await asyncio.sleep(3600)
        return x

    store = Hanging()
    runner = hosted(store, grace_seconds=0.01)
    with pytest.raises(RunStopped):
        async with asyncio.timeout(5):
            await runner.run(beside(approve, stops), {"x": 1}, run_id="r")
    assert (store.status, store.nodes["waits"].status) == ("paused", "suspended")


async def test_a_body_is_stopped_though_a_look_is_under_way() -> None:
    class Slow(Answering):
        @hookimpl
        async def fetch_answers(self, run: RunInfo) -> Sequence[Answer]:
            MEANWHILE[-1].set()
            await until(lambda: "stopped" in SEEN)
            return ()

    @node
    async def stops(x: int) -> int:
        await MEANWHILE[-1].wait()
        runner.stop("signal")
        try:
            await asyncio.sleep(3600)
        finally:
            SEEN.append("stopped")
        return x

    runner = hosted(Slow())
    with pytest.raises(RunStopped):
        async with asyncio.timeout(5):
            await runner.run(beside(approve, stops), {"x": 1}, run_id="r")
    assert SEEN == ["stopped"]


async def test_a_node_that_fails_ends_the_run_while_another_is_asleep() -> None:
    store = Answering()

    @node
    async def fails(x: int) -> int:
        await until(lambda: store.looks >= 3)
        raise OSError("no")

    with pytest.raises(NodeFailed, match="works"):
        await run(store, beside(approve, fails), {"x": 1})
    looks = store.looks
    await asyncio.sleep(0.01)
    assert store.looks == looks


@pytest.mark.parametrize("read", [1, 2])
async def test_nobody_is_woken_by_a_time_before_it_is_known_that_nobody_has_answered(read: int) -> None:
    """The store cannot be read for a while: from the first look after the time, or from the one when that is durable."""
    store = Answering()
    blind = iter(range(3))

    def brings(waits: dict[str, Suspension]) -> Any:
        told = store.nodes["waits"].suspension if "waits" in store.nodes else None
        wake_at = waits["waits"].wake_at
        assert wake_at is not None
        if wake_at > datetime.now(UTC):
            return ()
        is_saved = told is not None and told.answered
        if (is_saved or read == 1) and next(blind, None) is not None:
            return None
        return each("just in time")(waits) if is_saved or read == 1 else ()

    store.brings = brings
    result = await run(store, beside(sleeps), {"x": 1})
    assert result.outputs == {"out": ["1 just in time, 1"]}


async def test_a_look_that_fails_fails_the_run() -> None:
    def brings(waits: dict[str, Suspension]) -> Sequence[Answer]:
        raise OSError("no")

    with pytest.raises(HookError, match="'fetch_answers'"):
        await run(Answering(brings), beside(approve), {"x": 1})


@pytest.mark.parametrize("given", [7, "yes", [("waits", "yes")]])
async def test_what_is_no_answer_is_refused(given: Any) -> None:
    with pytest.raises(HookError, match="Return a list of Answer"):
        await run(Answering(lambda waits: given), beside(approve), {"x": 1})


@pytest.mark.parametrize("first", ["workflow-waking", "workflow-r", "works"])
def test_an_event_loop_that_ends_while_a_node_is_asleep_leaves_the_run_paused(first: str) -> None:
    store = Answering()

    async def main() -> None:
        running = asyncio.create_task(hosted(store).run(beside(approve), {"x": 1}, run_id="r"))
        await until(lambda: store.looks >= 3)
        tasks = sorted(asyncio.all_tasks() - {asyncio.current_task()}, key=lambda task: task.get_name() != first)
        assert tasks[0].get_name() == first
        for task in tasks:  # as `asyncio.run` does, in any order
            task.cancel()
        await asyncio.wait((running,))

    asyncio.run(main())
    assert (store.status, store.nodes["waits"].status) == ("paused", "suspended")
