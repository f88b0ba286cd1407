"""Nodes that must not be repeated unasked, on both databases: what is durable first, and who decides after a crash."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine
from datetime import UTC, datetime
from typing import Any

import pytest

from checkpoint_plugin.database.location import locate
from checkpoint_plugin.store import Store
from hookspecs import StoreError, SuspensionChanged
from tests.checkpoint_plugin.test_encryption import OLD, everything, text
from tests.checkpoint_plugin.test_plugin import Host, checkpoints, status
from tests.checkpoint_plugin.test_policy import look_at
from workflow_runner import (
    CheckpointSaved,
    Context,
    Event,
    Graph,
    InputInvalid,
    NodeFailed,
    NodeNotWaiting,
    NodeTimeout,
    OutcomeUnknown,
    RunStopped,
    Stream,
    WorkflowRunner,
    node,
)

CALLS: list[Any] = []
HANG: set[str] = set()
HANGING: list[asyncio.Event] = []
FREE = threading.Event()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    CALLS.clear()
    HANG.clear()
    HANGING[:] = [asyncio.Event()]
    FREE.clear()


async def act(name: str, context: Context) -> None:
    CALLS.append((name, context.idempotency_key))
    if "fail" in HANG:
        raise RuntimeError("declined")
    if name in HANG:
        HANGING[0].set()
        await asyncio.sleep(1_000)


@node(replayable=False)
async def charge(x: int, context: Context) -> int:
    await act("charge", context)
    return 10 * x


@node(replayable=False, outputs=("left", "right"))
async def split(x: int, context: Context) -> dict[str, int]:
    await act("split", context)
    return {"left": x, "right": x}


@node(replayable=False)
async def pump(x: int, context: Context) -> AsyncIterator[int]:
    yield x
    await act("pump", context)


@node(replayable=False)
async def drain(x: Stream[int], context: Context) -> int:
    await act("drain", context)
    return 1


@node(replayable=False)
async def asks_of_first(x: int, context: Context) -> int:
    if x == 0:
        await context.suspend("may I?")
    else:
        await act("asks_of_first", context)
    return x


@node
async def after(x: int) -> int:
    CALLS.append("after")
    return x + 1


@node
async def counts(n: int) -> AsyncIterator[int]:
    for number in range(n):
        yield number


def graph(target: Any = charge, **options: Any) -> Graph:
    made = Graph()
    ref = made.add(target, node_id="it", x=made.add(after, node_id="first", x=0), **options)
    made.output("out", made.add(after, node_id="last", x=ref["left"] if target is split else ref))
    return made


def runner(url: str) -> WorkflowRunner:
    return WorkflowRunner(plugins=Host(url))


async def cut_short(work: Coroutine[Any, Any, Any]) -> None:
    """Stop a run while a node is in progress."""
    task = asyncio.ensure_future(work)
    await HANGING[0].wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def crash(url: str, target: Any = charge, options: Any = True) -> None:
    """Stop a run while the node is in progress, as a crash would: no last cut."""
    HANG.add(target.__name__)
    enable = {"checkpoint": {"on_signal": False, **({} if options is True else options)}}
    await cut_short(runner(url).run(graph(target), enable=enable, run_id="r"))
    HANG.clear()


@pytest.mark.parametrize("options", [True, {"explicit": True}, {"durability": "exit"}, {"durability": "async"}], ids=str)
async def test_the_beginning_is_durable_before_the_body_starts(store_url: str, options: Any) -> None:
    await crash(store_url, options=options)
    assert await checkpoints(store_url) == ["not replayable"]
    assert (await look_at(store_url))["it"].arguments == {"x": 1}
    ((_, key),) = [call for call in CALLS if call[0] == "charge"]
    CALLS.clear()
    with pytest.raises(OutcomeUnknown) as unknown:
        await runner(store_url).resume("r", graph=graph())
    assert unknown.value.node_ids == ("it",) and unknown.value.exit_code == 1
    assert "--replay it" in str(unknown.value) and "--set it=JSON" in str(unknown.value)
    assert CALLS == []
    assert unknown.value.arguments == {"it": {"x": 1}} and unknown.value.keys == {"it": key}
    assert f"See what happened outside ('it' with x=1, idempotency key {key})" in str(unknown.value)
    assert await status(store_url) == "failed"


async def test_a_body_whose_beginning_cannot_be_saved_is_not_started(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the run may go on without its store: nobody could tell later whether it had acted."""

    async def refuse(*given: object) -> None:
        raise StoreError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("checkpoint_plugin.store.Store.save", refuse)
        with pytest.raises(NodeFailed, match="node 'it' is not replayable, and could not be started") as failed:
            await runner(store_url).run(graph(), enable={"checkpoint": {"best_effort": True}}, run_id="r")
    assert isinstance(failed.value.__cause__, StoreError)
    assert CALLS == ["after"]
    assert (await runner(store_url).resume("r", graph=graph())).outputs == {"out": [11]}
    assert [call[0] for call in CALLS if isinstance(call, tuple)] == ["charge"]


@node(replayable=False, retries=1, backoff=0)
async def declined_at_first(x: int, context: Context) -> int:
    if context.attempt == 1:
        raise OSError("declined")
    await act("declined_at_first", context)
    return 10 * x


async def test_a_try_after_one_that_failed_is_of_unknown_outcome_too(store_url: str) -> None:
    """The error of the one before says nothing of it."""
    await crash(store_url, declined_at_first)
    with pytest.raises(OutcomeUnknown):
        await runner(store_url).resume("r", graph=graph(declined_at_first))
    assert len([call for call in CALLS if call != "after"]) == 1
    assert (await runner(store_url).resume("r", graph=graph(declined_at_first), updates={"it": 3})).outputs == {"out": [4]}


async def test_replay_runs_it_again_with_the_same_key(store_url: str) -> None:
    await crash(store_url)
    with pytest.raises(OutcomeUnknown):
        await runner(store_url).resume("r", graph=graph())
    assert (await runner(store_url).resume("r", graph=graph(), replay=["it"])).outputs == {"out": [11]}
    keys = [call[1] for call in CALLS if call[0] == "charge"]
    assert len(keys) == 2 and len(set(keys)) == 1


async def test_a_given_value_stands_for_what_it_returned(store_url: str) -> None:
    await crash(store_url)
    CALLS.clear()
    assert (await runner(store_url).resume("r", graph=graph(), updates={"it": 500})).outputs == {"out": [501]}
    assert CALLS == ["after"]


async def test_a_crash_in_the_replay_asks_again(store_url: str) -> None:
    await crash(store_url)
    HANG.add("charge")
    HANGING[:] = [asyncio.Event()]
    await cut_short(runner(store_url).resume("r", graph=graph(), replay=["it"]))
    HANG.clear()
    with pytest.raises(OutcomeUnknown):
        await runner(store_url).resume("r", graph=graph())


async def test_a_body_that_raised_is_known(store_url: str) -> None:
    HANG.add("fail")
    with pytest.raises(NodeFailed):
        await runner(store_url).run(graph(failure={"retries": 1, "backoff": 0}), enable={"checkpoint": True}, run_id="r")
    HANG.clear()
    result = await runner(store_url).resume("r", graph=graph())
    assert result.outputs == {"out": [11]}


async def test_a_body_cut_short_by_its_timeout_is_not_known(store_url: str) -> None:
    HANG.add("charge")
    made = graph(failure={"retries": 1, "backoff": 0, "timeout": 0.01})
    with pytest.raises(NodeFailed) as failed:
        await runner(store_url).run(made, enable={"checkpoint": True}, run_id="r")
    assert isinstance(failed.value.__cause__, NodeTimeout)
    HANG.clear()
    with pytest.raises(OutcomeUnknown):
        await runner(store_url).resume("r", graph=graph())
    assert [call[0] for call in CALLS if call[0] == "charge"] == ["charge"]
    assert (await runner(store_url).resume("r", graph=graph(), updates={"it": 500})).outputs == {"out": [501]}


async def test_outputs_of_several_handles_are_checked_before_anything_runs(store_url: str) -> None:
    await crash(store_url, split)
    before = await status(store_url)
    for wrong in (5, {"lft": 1}):
        with pytest.raises(InputInvalid, match="left, right"):
            await runner(store_url).resume("r", graph=graph(split), updates={"it": wrong})
    assert await status(store_url) == before
    assert (await runner(store_url).resume("r", graph=graph(split), updates={"it": {"left": 7}})).outputs == {"out": [8]}


async def test_all_outputs_of_a_node_of_several_may_be_given(store_url: str) -> None:
    await crash(store_url, split)
    given = {"it": {"left": 7, "right": 8}}
    assert (await runner(store_url).resume("r", graph=graph(split), updates=given)).outputs == {"out": [8]}


@pytest.mark.parametrize(
    ("target", "message", "output"), [(pump, "yields its items", 2), (drain, "reads streams and may have emitted", 2)]
)
async def test_a_generator_and_a_streaming_body_can_only_be_replayed(
    store_url: str, target: Any, message: str, output: int
) -> None:
    await crash(store_url, target)
    with pytest.raises(InputInvalid, match=message):
        await runner(store_url).resume("r", graph=graph(target), updates={"it": 1})
    assert (await runner(store_url).resume("r", graph=graph(target), replay=["it"])).outputs == {"out": [output]}


async def test_what_is_unknown_waits_since_no_time_and_is_given_for_none(store_url: str) -> None:
    await crash(store_url)
    with pytest.raises(SuspensionChanged):
        await runner(store_url).resume("r", graph=graph(), updates={"it": 500}, since={"it": datetime.now(UTC)})
    assert (await runner(store_url).resume("r", graph=graph(), updates={"it": 500})).outputs == {"out": [501]}


@pytest.mark.parametrize(
    ("decision", "message"),
    [
        ({"replay": ["last"]}, "node .last. of run .r. waits for no answer, nor for a decision.*: it is idle"),
        ({"updates": {"nobody": 1}}, "not in its graph"),
        ({"replay": ["nobody"]}, "not in its graph"),
        ({"updates": {"first": 1}}, "it is completed"),
        ({"replay": ["it"], "updates": {"it": 1}}, "decided twice"),
    ],
)
async def test_decisions_must_fit(store_url: str, decision: dict[str, Any], message: str) -> None:
    await crash(store_url)
    with pytest.raises((InputInvalid, NodeNotWaiting), match=message):
        await runner(store_url).resume("r", graph=graph(), **decision)


async def test_without_a_plugin_nothing_is_saved() -> None:
    assert (await WorkflowRunner().run(graph())).outputs == {"out": [11]}


@node(replayable=False)
async def asks_first(x: int, context: Context) -> int:
    if not context.is_resuming:
        await context.suspend("may I?")
    await act("asks_first", context)
    return x * int(context.answer)


@node
async def breaks(x: int) -> int:
    await HANGING[0].wait()
    raise ValueError("broken")


@node(replayable=False)
def charge_in_a_thread(x: int, context: Context) -> int:
    CALLS.append(("charge_in_a_thread", context.idempotency_key))
    return 10 * x


@node
def occupies(x: int) -> int:
    """The only thread there is, until it is let go."""
    assert FREE.wait(30)
    return 1 // x


@node(replayable=False, retries=3, backoff=60)
async def refused(x: int) -> int:
    CALLS.append("refused")
    HANGING[0].set()
    if len(CALLS) == 1:
        raise OSError("refused")
    return x


async def test_a_body_that_raised_and_waits_for_its_next_try_is_known(store_url: str) -> None:
    flow = Graph(enable={"checkpoint": {"on_signal": True}})
    flow.output("out", flow.add(refused, x=3))
    runs = runner(store_url)
    run = asyncio.ensure_future(runs.run(flow, run_id="r"))
    await HANGING[0].wait()
    await asyncio.sleep(0.05)
    runs.stop("signal")
    with pytest.raises(RunStopped):
        await run
    assert (await runner(store_url).resume("r", graph=flow)).outputs == {"out": [3]}


async def test_a_run_that_was_stopped_and_saved_its_last_cut_asks_too(store_url: str) -> None:
    await crash(store_url, options={"on_signal": True})
    assert (await checkpoints(store_url))[-1] == "cancel"
    with pytest.raises(OutcomeUnknown):
        await runner(store_url).resume("r", graph=graph())
    assert [name for name, *_ in CALLS if name == "charge"] == ["charge"]


BEGAN = threading.Event()


@node(replayable=False)
def charges_until_let_go(x: int) -> int:
    BEGAN.set()
    assert FREE.wait(30)
    return 10 * x


@pytest.mark.parametrize("timeout", [None, 60])
async def test_a_step_that_had_begun_in_a_thread_when_its_run_was_stopped_is_unknown(
    store_url: str, timeout: float | None
) -> None:
    BEGAN.clear()
    made, runs = graph(charges_until_let_go, failure={"timeout": timeout}), runner(store_url)
    task = asyncio.ensure_future(runs.run(made, enable={"checkpoint": True}, run_id="r"))
    assert await asyncio.to_thread(BEGAN.wait, 20)
    runs.stop("signal")
    FREE.set()
    with pytest.raises(RunStopped):
        await task
    with pytest.raises(OutcomeUnknown):
        await runner(store_url).resume("r", graph=made)


async def test_what_the_failure_of_another_node_cut_short_is_unknown(store_url: str) -> None:
    HANG.add("charge")
    made = graph()
    made.add(breaks, x=1)
    with pytest.raises(NodeFailed, match="broken"):
        await runner(store_url).run(made, enable={"checkpoint": True}, run_id="r")
    with pytest.raises(OutcomeUnknown) as unknown:
        await runner(store_url).resume("r", graph=made)
    assert unknown.value.node_ids == ("it",)


@pytest.mark.parametrize("is_encrypted", [False, True])
async def test_what_is_told_of_a_step_is_stored_as_errors_are(
    store_url: str, monkeypatch: pytest.MonkeyPatch, is_encrypted: bool
) -> None:
    if is_encrypted:
        monkeypatch.setenv("WORKFLOW_CHECKPOINT_KEY", text(OLD))
    await crash(store_url, options={"events": True})
    with pytest.raises(OutcomeUnknown, match="with x=1, idempotency key"):
        await runner(store_url).resume("r", graph=graph())
    store = Store(locate(store_url), create=False)
    assert ("with x=1, idempotency key" in await everything(store)) is not is_encrypted
    await store.close()


async def test_a_key_is_told_where_a_firing_has_no_other(store_url: str) -> None:
    await crash(store_url, pump)
    with pytest.raises(OutcomeUnknown) as unknown:
        await runner(store_url).resume("r", graph=graph(pump))
    assert unknown.value.arguments == {"it": {"x": 1}} and unknown.value.keys == {}
    assert "See what happened outside ('it' with x=1), then" in str(unknown.value)


async def test_a_node_that_reads_a_stream_has_a_key_for_each_item(store_url: str) -> None:
    await crash(store_url, drain)
    with pytest.raises(OutcomeUnknown) as unknown:
        await runner(store_url).resume("r", graph=graph(drain))
    assert unknown.value.keys == {}


async def test_what_was_asked_at_an_earlier_item_is_no_part_of_the_key(store_url: str) -> None:
    made = Graph()
    made.output("out", made.add(asks_of_first, "it", x=made.add(counts, n=2)))
    assert (await runner(store_url).run(made, enable={"checkpoint": {"on_signal": False}}, run_id="r")).status == "suspended"
    HANG.add("asks_of_first")
    await cut_short(runner(store_url).resume("r", graph=made, updates={"it": None}))
    with pytest.raises(OutcomeUnknown) as unknown:
        await runner(store_url).resume("r", graph=made)
    assert unknown.value.keys == {"it": CALLS[-1][1]}


async def test_of_lanes_each_step_is_told_by_its_item(store_url: str) -> None:
    HANG.add("charge")
    made = Graph()
    made.output("out", made.add(charge, "it", x=made.add(counts, n=20), lanes=7))
    task = asyncio.ensure_future(runner(store_url).run(made, enable={"checkpoint": {"on_signal": False}}, run_id="r"))
    for _ in range(10_000):
        if len(CALLS) == 7:
            break
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    HANG.clear()
    with pytest.raises(OutcomeUnknown, match=r"'it/5' with x=4, idempotency key [0-9a-f]{32}; and 2 more") as unknown:
        await runner(store_url).resume("r", graph=made)
    assert unknown.value.arguments == {f"it/{lane}": {"x": lane - 1} for lane in range(1, 8)}
    assert sorted(unknown.value.keys.values()) == sorted(key for _, key in CALLS)
    replay = unknown.value.node_ids
    assert (await runner(store_url).resume("r", graph=made, replay=replay)).outputs == {"out": [10 * x for x in range(20)]}


async def test_what_is_to_be_decided_together_is_told_in_one_command(store_url: str) -> None:
    HANG.add("charge")
    made = Graph()
    for node_id in ("first", "second"):
        made.output(f"{node_id}_out", made.add(charge, node_id, x=1))
    made.add(breaks, x=1)
    with pytest.raises(NodeFailed, match="broken"):
        await runner(store_url).run(made, enable={"checkpoint": True}, run_id="r")
    HANG.clear()
    with pytest.raises(OutcomeUnknown, match="`workflow resume r --replay first --replay second`"):
        await runner(store_url).resume("r", graph=made)
    with pytest.raises(OutcomeUnknown, match="`workflow resume r --replay second --replay first`") as unknown:
        await runner(store_url).resume("r", graph=made, replay=["first"])
    assert unknown.value.node_ids == ("second",)
    assert unknown.value.arguments == {"second": {}} and unknown.value.keys.keys() == {"second"}


async def test_an_answered_node_that_dies_is_unknown_and_its_value_is_not_its_answer(store_url: str) -> None:
    made = graph(asks_first)
    assert (await runner(store_url).run(made, enable={"checkpoint": {"on_signal": False}}, run_id="r")).status == "suspended"
    HANG.add("asks_first")
    await cut_short(runner(store_url).resume("r", graph=made, updates={"it": 5}))
    with pytest.raises(OutcomeUnknown) as unknown:
        await runner(store_url).resume("r", graph=made)
    assert unknown.value.keys == {}  # of the step before the answer or of that after it: the body alone knows how it is written
    assert (await runner(store_url).resume("r", graph=made, updates={"it": 500})).outputs == {"out": [501]}
    assert [name for name, *_ in CALLS if name == "asks_first"] == ["asks_first"]


async def test_a_replay_after_an_answer_has_the_answer(store_url: str) -> None:
    made = graph(asks_first)
    await runner(store_url).run(made, enable={"checkpoint": {"on_signal": False}}, run_id="r")
    HANG.add("asks_first")
    await cut_short(runner(store_url).resume("r", graph=made, updates={"it": 5}))
    HANG.clear()
    assert (await runner(store_url).resume("r", graph=made, replay=["it"])).outputs == {"out": [6]}


@pytest.mark.parametrize("target", [charge, pump, charge_in_a_thread])
async def test_a_step_that_was_stopped_before_its_body_began_is_known(
    store_url: str, target: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is stopped while it is made durable that the step begins."""
    runs, save = runner(store_url), Store.save

    async def stop_and_save(store: Store, history: Any, snapshot: Any, reason: str) -> Any:
        if reason == "not replayable":
            runs.stop("signal")
        return await save(store, history, snapshot, reason)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "save", stop_and_save)
        with pytest.raises(RunStopped):
            await runs.run(graph(target), enable={"checkpoint": True}, run_id="r")
        with pytest.raises(RunStopped):
            await runs.resume("r", graph=graph(target))
    assert (await checkpoints(store_url))[-2:] == ["not replayable", "signal"]
    CALLS.clear()
    assert (await runner(store_url).resume("r", graph=graph(target))).status == "completed"
    assert [call[0] for call in CALLS if isinstance(call, tuple)] == [target.__name__]


async def test_a_try_that_waited_for_a_thread_when_its_run_was_stopped_has_not_begun(store_url: str) -> None:
    """The one before it raised, so nothing is unknown."""
    loop, queued = asyncio.get_running_loop(), threading.Event()

    @node(replayable=False, retries=1, backoff=0)
    def refused_at_first(x: int) -> int:
        CALLS.append("refused_at_first")
        if len(CALLS) == 1:
            loop.call_soon_threadsafe(HANGING[0].set)
            assert queued.wait(30)
            raise OSError("refused")
        return 10 * x

    @node
    async def lets_it_wait(x: int) -> AsyncIterator[int]:
        await HANGING[0].wait()
        yield x
        await asyncio.sleep(0.01)  # by now what takes the only thread stands in its queue
        queued.set()

    def hear(event: Event) -> None:
        if isinstance(event, CheckpointSaved) and event.ref.reason == "not replayable" and queued.is_set():
            runs.stop("signal")
            loop.call_soon(FREE.set)

    made, runs = Graph(), WorkflowRunner(plugins=Host(store_url), max_threads=1, on_event=hear)
    made.output("out", made.add(refused_at_first, node_id="it", x=1))
    made.add(occupies, x=made.add(lets_it_wait, x=1))
    with pytest.raises(RunStopped):
        async with asyncio.timeout(30):
            await runs.run(made, enable={"checkpoint": True}, run_id="r")
    assert CALLS == ["refused_at_first"]
    assert (await runner(store_url).resume("r", graph=made)).outputs == {"out": [10]}


@pytest.mark.parametrize("x", [1, 0], ids=["stopped", "failed"])
async def test_a_step_that_waited_for_a_thread_when_its_run_ended_has_not_begun(store_url: str, x: int) -> None:
    """Also where the one before it lets go of its thread in the very step in which it fails."""

    def hear(event: Event) -> None:
        if isinstance(event, CheckpointSaved):
            HANGING[0].set()

    made, runs = Graph(), WorkflowRunner(plugins=Host(store_url), max_threads=1, on_event=hear)
    made.add(occupies, x=x)
    made.output("out", made.add(charge_in_a_thread, node_id="it", x=1))
    task = asyncio.ensure_future(runs.run(made, enable={"checkpoint": True}, run_id="r"))
    await HANGING[0].wait()
    if x:
        runs.stop("signal")
        await asyncio.sleep(0)
    FREE.set()
    with pytest.raises(RunStopped if x else NodeFailed):
        await task
    assert CALLS == []
    if x:
        assert (await runner(store_url).resume("r", graph=made)).outputs == {"out": [10]}
    else:
        with pytest.raises(NodeFailed, match="occupies"):
            await runner(store_url).resume("r", graph=made)
