"""A run from its first hook to its last: success, failure, cancellation, stopping, and who hears of it."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import os
import re
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from inspect import BoundArguments, signature
from types import SimpleNamespace
from typing import Any

import pytest

import workflow_runner
from hookspecs import (
    Cancelled,
    CheckpointRef,
    Completed,
    Failed,
    HookError,
    LeaseLost,
    NodeInfo,
    Outcome,
    PluginHost,
    PluginMissing,
    RunControl,
    RunInfo,
    Snapshot,
    StoreError,
    hookimpl,
)
from workflow_runner import (
    CheckpointSaved,
    Context,
    Event,
    Graph,
    InputInvalid,
    LogOverflow,
    NodeChanged,
    NodeFailed,
    Progressed,
    Result,
    RunEnded,
    RunStarted,
    RunStopped,
    StateNotCopyable,
    Stream,
    WorkflowRunner,
    node,
    resume_workflow,
    run_workflow,
)
from workflow_runner.actor import Actor
from workflow_runner.saver import LONGEST_REST


@node
async def upto(n: int) -> AsyncIterator[int]:
    for i in range(n):
        yield i


@node
async def double(x: int) -> int:
    return 2 * x


@node
async def boom(x: int) -> int:
    raise LookupError("boom")


@node
async def forever(x: int) -> int:
    await asyncio.sleep(3600)
    return x


@node
async def one_and_no_more() -> AsyncIterator[int]:
    yield 1
    await asyncio.sleep(3600)


class Witness:
    """A plugin that writes down what it hears."""

    def __init__(self, *, hold: bool = False) -> None:
        self.heard: list[tuple[Any, ...]] = []
        self.cuts: list[tuple[str, Snapshot]] = []
        self.hold = hold

    @hookimpl
    async def before_run(self, run: RunInfo, control: RunControl) -> None:
        self.heard.append(("before_run",))
        control.save_at("error", "cancel", "signal")
        if self.hold:
            control.hold_outputs("hold")

    @hookimpl
    async def after_run(self, run: RunInfo, outcome: Outcome) -> None:
        self.heard.append(("after_run", outcome))

    @hookimpl
    async def before_node(self, node: NodeInfo, inputs: Mapping[str, Any]) -> None:
        self.heard.append(("before_node", node.node_id, node.firing, dict(inputs)))

    @hookimpl
    async def after_node(self, node: NodeInfo, outcome: Outcome) -> None:
        self.heard.append(("after_node", node.node_id, node.firing, outcome))


class Saving(Witness):
    """One that saves too."""

    @hookimpl
    async def save_checkpoint(self, run: RunInfo, snapshot: Snapshot, reason: str) -> CheckpointRef:
        self.cuts.append((reason, snapshot))
        await asyncio.sleep(0)
        return CheckpointRef(run.run_id, len(self.cuts), reason, datetime.now(UTC))

    @hookimpl
    async def restore_checkpoint(self, run: RunInfo, checkpoint_id: int | None) -> Snapshot | None:
        return None


def hosted(plugin: object, **settings: Any) -> WorkflowRunner:
    return WorkflowRunner(plugins=PluginHost().register(plugin, "witness"), **settings)


def failing() -> Graph:
    graph = Graph()
    graph.add(forever, node_id="forever", x=1)
    graph.add(boom, node_id="boom", x=graph.add(double, node_id="double", x=4))
    return graph


def other_tasks() -> set[asyncio.Task[Any]]:
    current = asyncio.current_task()
    return {task for task in asyncio.all_tasks() if task is not current}


async def test_a_failing_node_ends_the_run_and_leaves_nothing() -> None:
    with pytest.raises(NodeFailed) as caught:
        await WorkflowRunner().run(failing(), run_id="r")
    assert (caught.value.run_id, caught.value.node_id) == ("r", "boom")
    assert repr(caught.value.__cause__) == "LookupError('boom')"
    assert not hasattr(caught.value.__cause__, "__notes__"), "there is nothing to add"
    assert not other_tasks()
    gc.collect()


@node
async def asks_again(context: Context) -> AsyncIterator[CheckpointRef | None]:
    found = [await context.checkpoint()]
    context.commit(1)
    found += [await context.checkpoint(), await context.checkpoint()]
    for ref in found:
        yield ref


class LosingTheSecond(Saving):
    """Its second save is lost, and the run goes on."""

    @hookimpl
    async def save_checkpoint(self, run: RunInfo, snapshot: Snapshot, reason: str) -> CheckpointRef | None:  # type: ignore[override]
        ref = await super().save_checkpoint(run, snapshot, reason)
        return None if ref.number == 2 else ref


async def test_what_a_save_has_lost_is_saved_when_it_is_asked_for_again_though_nothing_has_changed() -> None:
    saving = LosingTheSecond()
    graph = Graph()
    graph.output("refs", graph.add(asks_again, "asks"))
    refs = (await hosted(saving).run(graph)).outputs["refs"]
    assert [None if ref is None else ref.number for ref in refs] == [1, None, 3]
    assert [node.commits for node in saving.cuts[2][1].nodes if node.node_id == "asks"] == [1]


async def test_what_is_to_be_called_at_a_save_that_was_lost_is_called_at_the_next_that_is_not() -> None:
    called: list[int] = []
    found: list[list[int]] = []

    @node
    async def saves_thrice(context: Context) -> AsyncIterator[int]:
        for number in range(3):
            yield number
            context.on_durable(partial(called.append, number))
            context.commit()
            await context.checkpoint()
            found.append([*called])

    graph = Graph()
    graph.add(saves_thrice)
    await hosted(LosingTheSecond()).run(graph)
    assert found == [[0], [0], [0, 1, 2]]


async def test_what_is_to_be_called_is_called_in_its_order_where_some_came_while_a_save_was_being_lost() -> None:
    called: list[int] = []
    began, committed = asyncio.Event(), asyncio.Event()

    class LosingLate(LosingTheSecond):
        @hookimpl
        async def save_checkpoint(self, run: RunInfo, snapshot: Snapshot, reason: str) -> CheckpointRef | None:  # type: ignore[override]
            if reason == "lost":
                began.set()
                await committed.wait()
            return await super().save_checkpoint(run, snapshot, reason)

    @node
    async def commits_meanwhile(context: Context) -> AsyncIterator[int]:
        await context.checkpoint()
        yield 0
        context.on_durable(partial(called.append, 0))
        context.commit()
        lost = asyncio.create_task(context.checkpoint("lost"))
        await began.wait()
        yield 1
        context.on_durable(partial(called.append, 1))
        context.commit()
        committed.set()
        assert await lost is None and called == []
        await context.checkpoint()

    graph = Graph()
    graph.add(commits_meanwhile)
    await hosted(LosingLate()).run(graph)
    assert called == [0, 1]


async def test_a_checkpoint_that_two_ask_for_has_the_reason_of_who_asked_first() -> None:
    @node
    async def asks_twice(context: Context) -> list[CheckpointRef | None]:
        return [*await asyncio.gather(context.checkpoint("first"), context.checkpoint("second"))]

    saving = Saving()
    graph = Graph()
    graph.output("refs", graph.add(asks_twice))
    (refs,) = (await hosted(saving).run(graph)).outputs["refs"]
    assert [ref.reason for ref in refs] == ["first", "first"]
    assert [reason for reason, _ in saving.cuts] == ["first", "end"]


class FollowingAndFailing:
    """Saves behind the run, of which nobody may be ahead; its last save comes when all is over, and fails."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    @hookimpl
    async def before_run(self, run: RunInfo, control: RunControl) -> None:
        control.follow_outputs("follow", 0, 1 << 30)
        control.save_at("end")

    @hookimpl
    async def save_checkpoint(self, run: RunInfo, snapshot: Snapshot, reason: str) -> CheckpointRef:
        self.reasons.append(reason)
        if snapshot.status == "completed":
            raise StoreError("the last save failed")
        for _ in range(20):  # meanwhile the others come to their end
            await asyncio.sleep(0)
        return CheckpointRef(run.run_id, len(self.reasons), reason, datetime.now(UTC))

    @hookimpl
    async def restore_checkpoint(self, run: RunInfo, checkpoint_id: int | None) -> Snapshot | None:
        return None


@node
async def double_in_a_while(x: int) -> int:
    for _ in range(5):  # the save that its predecessor asked for has begun, and is not over
        await asyncio.sleep(0)
    return x * 2


async def test_a_last_save_that_fails_keeps_nobody_waiting() -> None:
    graph = Graph()
    graph.output("end", graph.add(double_in_a_while, node_id="second", x=graph.add(double, node_id="first", x=1)))
    plugin = FollowingAndFailing()
    async with asyncio.timeout(20):
        with pytest.raises(StoreError, match="the last save failed"):
            await hosted(plugin).run(graph)
    assert not other_tasks()
    assert plugin.reasons[-1] == "end"


class Following(Saving):
    """Saves behind the run, of which nobody may be ahead; it hears of firings."""

    @hookimpl
    async def before_run(self, run: RunInfo, control: RunControl) -> None:
        control.follow_outputs("follow", 0, 1 << 30)


class FarBehind(Following):
    """As that, with a bound that is far away; its beginning and its saves take a second of a clock that stands still."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0

    @hookimpl
    async def before_run(self, run: RunInfo, control: RunControl) -> None:
        control.follow_outputs("follow", 1_000, 1 << 30)
        self.now += 1

    @hookimpl
    async def save_checkpoint(self, run: RunInfo, snapshot: Snapshot, reason: str) -> CheckpointRef:
        self.now += 1
        ref = await super().save_checkpoint(run, snapshot, reason)
        for _ in range(10):
            await asyncio.sleep(0)
        return ref


async def test_what_nobody_waits_for_is_saved_at_most_half_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    saving = FarBehind()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: saving.now)
    saved: list[list[str]] = []

    async def look() -> None:
        for _ in range(50):
            await asyncio.sleep(0)
        saved.append([reason for reason, _ in saving.cuts])

    @node
    async def emits(context: Context) -> AsyncIterator[int]:
        yield 1
        await look()
        saving.now += LONGEST_REST
        await look()
        yield 2
        await look()
        asked = asyncio.create_task(context.checkpoint("asked"))
        for _ in range(5):
            await asyncio.sleep(0)
        again = asyncio.create_task(context.checkpoint("asked while that is saved"))
        await look()
        assert asked.done() and again.done()
        yield 3

    graph = Graph()
    graph.output("out", graph.add(emits))
    await hosted(saving).run(graph)
    follow, asked = ["follow"], ["follow", "asked"]
    assert saved == [[], follow, follow, asked], "the second asked for nothing new"
    assert [reason for reason, _ in saving.cuts] == [*asked, "end"]


async def test_what_is_durable_is_ahead_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    saving = FarBehind()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: saving.now)
    behind: list[tuple[str, int]] = []

    def hear(event: Event) -> None:
        if isinstance(event, CheckpointSaved):
            behind.append((event.ref.reason, event.steps_behind))

    @node
    async def emits() -> AsyncIterator[int]:
        for number in range(3):
            yield number
            saving.now += LONGEST_REST
            for _ in range(50):
                await asyncio.sleep(0)

    graph = Graph()
    graph.output("out", graph.add(emits))
    await hosted(saving, on_event=hear).run(graph)
    assert behind == [*[("follow", 0)] * 3, ("end", 0)]


class OneAhead(FarBehind):
    """As that, but one emission may be ahead."""

    @hookimpl
    async def before_run(self, run: RunInfo, control: RunControl) -> None:
        control.follow_outputs("follow", 1, 1 << 30)
        self.now += 1


async def test_as_many_emissions_as_the_bound_says_may_be_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    saving = OneAhead()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: saving.now)
    saved: list[int] = []

    @node
    async def emits() -> AsyncIterator[int]:
        for number in range(2):
            yield number
            saved.append(len(saving.cuts))

    graph = Graph()
    graph.output("out", graph.add(emits))
    await hosted(saving).run(graph)
    assert saved == [0, 1]


class OfSixtyBytes(FarBehind):
    """Each of its checkpoints has sixty bytes, and a hundred may be ahead."""

    @hookimpl
    async def before_run(self, run: RunInfo, control: RunControl) -> None:
        control.follow_outputs("follow", 1_000, 100)
        self.now += 1

    @hookimpl
    async def save_checkpoint(self, run: RunInfo, snapshot: Snapshot, reason: str) -> CheckpointRef:
        return replace(await super().save_checkpoint(run, snapshot, reason), details={"bytes": 60})


async def test_who_is_too_many_bytes_ahead_of_what_is_durable_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    saving = OfSixtyBytes()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: saving.now)
    saved: list[int] = []

    @node
    async def emits() -> AsyncIterator[int]:
        yield 1
        saving.now += LONGEST_REST
        for _ in range(50):
            await asyncio.sleep(0)
        saved.append(len(saving.cuts))
        yield 2
        saved.append(len(saving.cuts))
        yield 3
        saved.append(len(saving.cuts))

    graph = Graph()
    graph.output("out", graph.add(emits))
    await hosted(saving).run(graph)
    assert saved == [1, 1, 2]


class LosingBehind(FarBehind):
    """Its first save is lost, and the run goes on."""

    @hookimpl
    async def save_checkpoint(self, run: RunInfo, snapshot: Snapshot, reason: str) -> CheckpointRef | None:  # type: ignore[override]
        ref = await super().save_checkpoint(run, snapshot, reason)
        return None if ref.number == 1 else ref


async def test_what_was_lost_behind_the_run_is_not_saved_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next save holds it: that is the one of the next emission."""
    saving = LosingBehind()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: saving.now)
    saved: list[int] = []

    async def look() -> None:
        saving.now += LONGEST_REST
        for _ in range(50):
            await asyncio.sleep(0)
        saved.append(len(saving.cuts))

    @node
    async def emits() -> AsyncIterator[int]:
        for number in range(2):
            yield number
            await look()
            await look()

    graph = Graph()
    graph.output("out", graph.add(emits, "emits"))
    await hosted(saving).run(graph)
    assert saved == [1, 1, 2, 2]
    assert [node.emitted for node in saving.cuts[1][1].nodes if node.node_id == "emits"] == [2]


async def test_a_step_that_fails_as_it_suspends_takes_back_its_own_calls_of_on_durable_and_no_others() -> None:
    called: list[Any] = []
    suspending, answered = asyncio.Event(), asyncio.Event()

    @node
    async def is_over_meanwhile(context: Context) -> None:
        await suspending.wait()
        context.on_durable(partial(called.append, "the other"))
        answered.set()

    @node
    async def fails_as_it_suspends(items: Stream[int], context: Context) -> AsyncIterator[int]:
        async for x in items:
            yield x
            context.on_durable(partial(called.append, x))
            if x == 1:
                try:
                    await context.suspend("may I?")
                finally:
                    suspending.set()
                    await answered.wait()
                    raise OSError("it cannot be closed")
            context.commit()

    graph = Graph()
    graph.output("out", graph.add(fails_as_it_suspends, items=graph.add(upto, n=3)))
    graph.add(is_over_meanwhile)
    with pytest.raises(NodeFailed, match="it cannot be closed"):
        await hosted(Saving()).run(graph)
    assert called == [0, "the other"]


async def test_a_node_that_waits_when_its_call_of_on_durable_raises_has_failed_in_the_last_cut() -> None:
    def refuse() -> None:
        raise OSError("the queue is away")

    @node
    async def acknowledges(items: Stream[int], context: Context) -> AsyncIterator[int]:
        async for item in items:
            context.on_durable(refuse)
            yield item
            context.commit(item)

    @node
    async def relays(items: Stream[int]) -> AsyncIterator[int]:
        async for item in items:
            yield item

    @node
    async def one_and_a_checkpoint(context: Context) -> AsyncIterator[int]:
        yield 1
        for _ in range(20):  # those below it wait for the next
            await asyncio.sleep(0)
        await context.checkpoint("taken")
        await asyncio.sleep(3600)

    graph, saving = Graph(), Saving()
    graph.output("out", graph.add(acknowledges, "it", items=graph.add(relays, items=graph.add(one_and_a_checkpoint))))
    with pytest.raises(NodeFailed, match="the queue is away"):
        await hosted(saving).run(graph)
    reasons = [reason for reason, _ in saving.cuts]
    assert reasons == ["taken", "error"]
    (last,) = [found for found in saving.cuts[-1][1].nodes if found.node_id == "it"]
    assert (last.status, last.error) == ("failed", "OSError: the queue is away")


async def test_a_body_that_only_reads_streams_begins_before_anything_arrives() -> None:
    begun = asyncio.Event()

    @node
    async def listens(items: Stream[int]) -> AsyncIterator[int]:
        begun.set()
        async for item in items:
            yield item

    @node
    async def waits_for_its_consumer() -> AsyncIterator[int]:
        await begun.wait()
        yield 1

    graph = Graph()
    graph.output("out", graph.add(listens, items=graph.add(waits_for_its_consumer)))
    async with asyncio.timeout(20):
        assert (await WorkflowRunner().run(graph)).outputs == {"out": [1]}


async def test_what_is_saved_behind_the_run_is_saved_too_where_somebody_hears_of_firings() -> None:
    saving = Following()
    durable: list[int] = []

    @node
    async def look(x: int) -> int:
        durable.append(max([0, *(found.commits for _, cut in saving.cuts for found in cut.nodes if found.node_id == "look")]))
        await asyncio.sleep(0.02)  # its source is over meanwhile, and asks for nothing any more
        return x

    graph = Graph()
    graph.output("out", graph.add(look, "look", x=graph.add(upto, n=4)))
    async with asyncio.timeout(20):
        await hosted(saving).run(graph)
    assert durable == [0, 1, 2, 3]


class Losing(Saving):
    @hookimpl
    async def before_run(self, run: RunInfo, control: RunControl) -> None:
        control.save_at("suspend")
        self.control = control

    @hookimpl
    async def before_node(self, node: NodeInfo, inputs: Mapping[str, Any]) -> None:
        if node.node_id == "loses":
            self.control.fail(LeaseLost("r", 1))


@pytest.mark.parametrize(
    ("first", "reason"), [("suspends", "suspend"), ("fails", "failure"), ("loses", "lost"), ("stops", "mine")]
)
async def test_a_firing_that_is_cancelled_hears_why(first: str, reason: str) -> None:
    @node
    async def ends(x: int, context: Context) -> int:
        if first == "suspends":
            await context.suspend("wait", None)
        if first == "stops":
            runner.stop("mine")
            await asyncio.sleep(3600)
        raise LookupError("boom")

    @node
    async def reads(items: Stream[int]) -> AsyncIterator[int]:
        async for x in items:
            yield x

    graph = Graph()
    graph.add(reads, "reads", items=graph.add(ends, first, x=1))
    witness = Losing()
    runner = hosted(witness)
    async with asyncio.timeout(20):
        with suppress(NodeFailed, LeaseLost, RunStopped):
            await runner.run(graph)
    (outcome,) = [entry[3] for entry in witness.heard if entry[:2] == ("after_node", "reads")]
    assert outcome == Cancelled(reason)
    assert f'"{reason}"' in (Cancelled.__doc__ or "") or reason == "mine"


class Sized(Following):
    """Tells the size of a checkpoint in its own way."""

    def __init__(self, size: object) -> None:
        super().__init__()
        self.size = size

    @hookimpl
    async def save_checkpoint(self, run: RunInfo, snapshot: Snapshot, reason: str) -> CheckpointRef:
        return replace(await super().save_checkpoint(run, snapshot, reason), details={"bytes": self.size})


@pytest.mark.parametrize("size", ["3 KiB", None, 10, 10.5])
async def test_what_a_store_tells_of_a_checkpoint_is_for_people(size: object) -> None:
    graph = Graph()
    graph.output("out", graph.add(double, x=graph.add(upto, n=4)))
    assert (await hosted(Sized(size)).run(graph)).outputs["out"] == [0, 2, 4, 6]


async def test_every_before_has_one_after() -> None:
    witness = Witness()
    with pytest.raises(NodeFailed):
        await hosted(witness).run(failing())
    befores = [entry[1:3] for entry in witness.heard if entry[0] == "before_node"]
    afters = {entry[1]: entry[3] for entry in witness.heard if entry[0] == "after_node"}
    assert sorted(befores) == [("boom", 1), ("double", 1), ("forever", 1)]
    assert afters["double"] == Completed({"output": 8})
    assert afters["boom"] == Failed(afters["boom"].error, "boom")
    assert afters["forever"] == Cancelled("failure")
    assert witness.heard[0] == ("before_run",)
    assert [entry[0] for entry in witness.heard].count("after_run") == 1
    assert isinstance(witness.heard[-1][1], Failed)
    assert witness.heard[-1][1].node_id == "boom"


async def test_a_firing_tells_what_its_body_returned() -> None:
    @node
    async def total(items: Stream[int]) -> int:
        return sum([x async for x in items])

    @node(outputs=("half", "rest"))
    async def parts(x: int) -> dict[str, int]:
        return {"half": x // 2}

    witness = Witness()
    graph = Graph()
    summed = graph.add(total, "total", items=graph.add(upto, "upto", n=4))
    graph.output("out", graph.add(parts, "parts", x=summed)["half"])
    await hosted(witness).run(graph)
    told = {entry[1]: entry[3] for entry in witness.heard if entry[0] == "after_node"}
    assert (told["upto"], told["total"]) == (Completed({}), Completed({"output": 6}))
    assert told["parts"] == Completed({"half": 3})
    assert "empty where it yields" in (Completed.__doc__ or "")


async def test_hooks_around_a_run_that_completes() -> None:
    witness = Witness()
    graph = Graph()
    graph.output("out", graph.add(double, node_id="d", x=graph.add(upto, node_id="u", n=2)))
    await hosted(witness).run(graph)
    assert ("before_node", "d", 2, {"x": 1}) in witness.heard
    assert ("after_node", "u", 1, Completed({})) in witness.heard
    assert witness.heard[-1] == ("after_run", Completed({"out": [0, 2]}))


@pytest.mark.parametrize("hook", ["after_run", "before_node", "after_node", "checkpoint_saved"])
async def test_every_hook_is_told_the_whole_of_its_run(hook: str) -> None:
    told: list[RunInfo] = []

    async def hear(run: RunInfo) -> None:
        told.append(run)

    class Storing:
        @hookimpl
        async def save_checkpoint(self, run: RunInfo, snapshot: Snapshot, reason: str) -> CheckpointRef:
            told.append(run)
            return CheckpointRef(run.run_id, 1, reason, datetime.now(UTC))

        @hookimpl
        async def restore_checkpoint(self) -> Snapshot | None:
            return None

    graph = Graph()
    graph.output("out", graph.add(double, x=1))
    host = PluginHost().register(Storing(), "store").register(SimpleNamespace(**{hook: hookimpl(hear)}), "hears")
    await WorkflowRunner(plugins=host).run(graph)
    assert len(told) > 1
    for run in told:
        assert run.graph == graph.to_document()
        assert run.teach is not None


async def test_outputs_are_not_seen_before_after_node_returned() -> None:
    order: list[str] = []

    class Slow:
        @hookimpl
        async def after_node(self, node: NodeInfo) -> None:
            await asyncio.sleep(0.01)
            order.append(f"after {node.node_id}")

    @node
    async def sees(x: int) -> None:
        order.append("seen")

    graph = Graph()
    graph.add(sees, node_id="s", x=graph.add(double, node_id="d", x=1))
    await hosted(Slow()).run(graph)
    assert order == ["after d", "seen", "after s"]


@pytest.mark.parametrize("hook", ["before_run", "before_node", "after_node", "after_run"])
async def test_a_hook_that_raises_fails_the_run_by_name(hook: str) -> None:
    async def bad(self: object) -> None:
        raise ValueError("bad")

    plugin = type("Bad", (), {hook: hookimpl(bad)})()
    graph = Graph()
    graph.add(double, x=1)
    with pytest.raises(HookError) as caught:
        await hosted(plugin).run(graph)
    assert (caught.value.plugin, caught.value.hook) == ("witness", hook)
    assert isinstance(caught.value.__cause__, ValueError)
    assert not other_tasks()


async def test_a_hook_that_raises_after_the_last_node_is_over_is_told() -> None:
    class Bad(Saving):
        @hookimpl
        async def after_node(self, node: NodeInfo, outcome: Outcome) -> None:
            await asyncio.sleep(0.01)
            raise ValueError("bad")

    plugin = Bad()
    graph = Graph()
    graph.add(upto, n=2)
    with pytest.raises(HookError, match="'after_node': ValueError: bad"):
        await hosted(plugin).run(graph)
    assert isinstance(plugin.heard[-1][1], Failed)
    assert [(reason, cut.status) for reason, cut in plugin.cuts] == [("end", "completed")], "it is stored as it ended"


async def test_cancelling_takes_the_cut_first() -> None:
    saving = Saving()
    graph = Graph()
    graph.add(forever, node_id="f", x=1)
    task = asyncio.ensure_future(hosted(saving).run(graph))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    ((reason, cut),) = saving.cuts
    assert (reason, cut.status) == ("cancel", "paused")
    assert [(found.node_id, found.status, found.arguments) for found in cut.nodes] == [("f", "running", {})]
    assert saving.heard[-1] == ("after_run", Cancelled("cancel"))
    assert not other_tasks()


@pytest.mark.parametrize(("kind", "name"), [(Witness, "workflow-r"), (Saving, "workflow-r"), (Saving, "workflow-saver")])
async def test_cancelling_the_tasks_of_a_run_stops_it(kind: type[Witness], name: str) -> None:
    plugin = kind()
    graph = Graph()
    graph.add(forever, node_id="f", x=1)
    caller = asyncio.ensure_future(hosted(plugin).run(graph, run_id="r"))
    await asyncio.sleep(0.02)
    (task,) = (task for task in other_tasks() if task.get_name() == name)
    task.cancel()
    async with asyncio.timeout(10):
        with pytest.raises(RunStopped):
            await caller
    assert [(reason, cut.status) for reason, cut in plugin.cuts] == [("cancel", "paused")] * (kind is Saving)
    assert plugin.heard[-1] == ("after_run", Cancelled("cancel"))
    assert not other_tasks()


@pytest.mark.parametrize("order", list(itertools.permutations(("caller", "workflow-r", "f"))))
@pytest.mark.parametrize("waits", [False, True])
async def test_a_run_ends_in_order_where_all_tasks_are_cancelled(order: tuple[str, ...], waits: bool) -> None:
    """An event loop that ends cancels them in any order: a node may hear of it before its run does."""
    saving = Saving()
    graph = Graph()
    if waits:
        graph.add(double, node_id="f", x=graph.add(one_and_no_more, node_id="s"))
    else:
        graph.add(forever, node_id="f", x=1)
    caller = asyncio.create_task(hosted(saving).run(graph, run_id="r"), name="caller")
    await asyncio.sleep(0.02)
    tasks = {task.get_name(): task for task in other_tasks()}
    for name in (*order, *(tasks.keys() - order)):
        tasks[name].cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert [(reason, cut.status) for reason, cut in saving.cuts] == [("cancel", "paused")]
    assert saving.heard[-1] == ("after_run", Cancelled("cancel"))
    assert saving.heard[-2] == ("after_node", "s" if waits else "f", 1, Cancelled("cancel"))
    assert not other_tasks()


def test_an_event_loop_that_ends_complains_of_no_run_that_it_stops() -> None:
    """It told of each as of an unhandled exception, on standard error."""
    told: list[dict[str, Any]] = []
    saving = Saving()
    graph = Graph()
    graph.add(forever, node_id="f", x=1)

    async def main() -> asyncio.Task[Result]:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        caller = asyncio.create_task(hosted(saving).run(graph, run_id="r"))
        await asyncio.sleep(0.02)
        return caller

    assert asyncio.run(main()).cancelled()
    assert told == []
    assert saving.heard[-1] == ("after_run", Cancelled("cancel"))


async def test_a_save_that_is_cancelled_ends_the_run_and_is_the_last() -> None:
    class Waits(Saving):
        @hookimpl
        async def save_checkpoint(self, run: RunInfo, snapshot: Snapshot, reason: str) -> CheckpointRef:
            await super().save_checkpoint(run, snapshot, reason)
            return await asyncio.sleep(3600, CheckpointRef(run.run_id, 1, reason, datetime.now(UTC)))

    waits = Waits()
    graph = Graph()
    graph.add(double, x=1)
    caller = asyncio.ensure_future(hosted(waits).run(graph))
    await asyncio.sleep(0.02)
    (saver,) = (task for task in other_tasks() if task.get_name() == "workflow-saver")
    saver.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert [reason for reason, _ in waits.cuts] == ["end"]
    name, outcome = waits.heard[-1]
    assert name == "after_run" and isinstance(outcome, Failed)
    assert not other_tasks()


async def test_a_run_whose_save_is_cancelled_with_it_was_stopped() -> None:
    """As at the end of an event loop, which cancels all tasks."""

    class Waits(Saving):
        @hookimpl
        async def save_checkpoint(self, run: RunInfo, snapshot: Snapshot, reason: str) -> CheckpointRef:
            reached.set()
            await asyncio.Event().wait()
            raise AssertionError

    reached = asyncio.Event()
    waits = Waits()
    graph = Graph()
    graph.add(double, x=1)
    caller = asyncio.ensure_future(hosted(waits).run(graph))
    await reached.wait()
    for task in other_tasks():
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert waits.heard[-1] == ("after_run", Cancelled("cancel"))
    assert not other_tasks()


async def test_a_failed_run_whose_last_save_is_cancelled_with_it_says_so() -> None:
    class Waits(Saving):
        @hookimpl
        async def save_checkpoint(self, run: RunInfo, snapshot: Snapshot, reason: str) -> CheckpointRef:
            reached.set()
            await asyncio.Event().wait()
            raise AssertionError

    reached = asyncio.Event()
    ended: list[Event] = []
    graph = Graph()
    graph.add(boom, x=1)
    caller = asyncio.ensure_future(hosted(Waits(), on_event=ended.append).run(graph))
    await reached.wait()
    for task in other_tasks():
        if task is not caller:
            task.cancel()
    with pytest.raises(NodeFailed) as raised:
        await caller
    (note,) = raised.value.__notes__
    assert note.startswith("and the last cut could not be saved: CancelledError")


async def test_stop_says_whether_the_run_can_be_resumed() -> None:
    for runner, text in ((WorkflowRunner(), "Nothing was stored"), (hosted(Saving()), "workflow resume")):
        graph = Graph()
        graph.add(forever, x=1)
        task = asyncio.ensure_future(runner.run(graph))
        await asyncio.sleep(0.02)
        runner.stop("signal")
        with pytest.raises(RunStopped, match=text):
            await task


BEGUN = threading.Event()


@node
async def wait(x: int) -> int:
    BEGUN.set()
    await asyncio.sleep(3600)
    return x


def waiting() -> Graph:
    BEGUN.clear()
    graph = Graph()
    graph.add(wait, x=1)
    return graph


async def test_a_stop_is_heard_by_runs_of_other_threads() -> None:
    runner, graph = WorkflowRunner(), waiting()
    other = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(runner.run(graph))))
    await asyncio.to_thread(BEGUN.wait, 10)
    runner.stop("signal")
    async with asyncio.timeout(10):
        with pytest.raises(RunStopped):
            await other


def test_a_stop_of_a_signal_handler_is_heard_at_once() -> None:
    runner, graph = WorkflowRunner(), waiting()

    def kill() -> None:
        BEGUN.wait(10)
        time.sleep(0.1)  # the loop sleeps until then
        os.kill(os.getpid(), signal.SIGUSR1)

    async def run() -> None:
        async with asyncio.timeout(10):
            await runner.run(graph)

    before = signal.signal(signal.SIGUSR1, lambda number, frame: runner.stop("signal"))
    killer = threading.Thread(target=kill)
    try:
        killer.start()
        with pytest.raises(RunStopped):
            asyncio.run(run())
    finally:
        signal.signal(signal.SIGUSR1, before)
        killer.join()


@pytest.mark.parametrize(
    ("body", "error", "notes"),
    [
        (double, MemoryError, []),
        (boom, NodeFailed, ["and the last cut could not be saved: MemoryError: none is left"]),
        (forever, MemoryError, []),
    ],
    ids=["completed", "failed", "stopped"],
)
async def test_a_run_ends_though_there_is_no_memory_for_its_last_cut(
    body: Any, error: type[Exception], notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(run: Any) -> Any:
        raise MemoryError("none is left")

    graph = Graph()
    graph.add(body, x=1)
    saving = Saving()
    runner = hosted(saving)
    task = asyncio.ensure_future(runner.run(graph))
    monkeypatch.setattr("workflow_runner.saver.take_cut", refuse)
    if body is forever:
        await asyncio.sleep(0.02)
        runner.stop("signal")
    async with asyncio.timeout(10):
        await asyncio.wait((task,))
    assert type(task.exception()) is error
    assert getattr(task.exception(), "__notes__", []) == notes
    assert saving.cuts == []
    ((_, outcome),) = [heard for heard in saving.heard if heard[0] == "after_run"]
    assert isinstance(outcome, Failed)


async def test_a_stop_after_the_last_node_is_over_stops_nothing() -> None:
    class Slow(Saving):
        @hookimpl
        async def save_checkpoint(self, run: RunInfo, snapshot: Snapshot, reason: str) -> CheckpointRef:
            if snapshot.status == "completed":
                runner.stop("signal")
            return await super().save_checkpoint(run, snapshot, reason)

    slow = Slow()
    runner = hosted(slow)
    graph = Graph()
    graph.output("out", graph.add(double, x=2))
    assert (await runner.run(graph)).outputs == {"out": [4]}
    assert slow.heard[-1] == ("after_run", Completed({"out": [4]}))


async def test_a_body_that_does_not_end_is_left_after_the_grace_period(caplog: pytest.LogCaptureFixture) -> None:
    let_go = asyncio.Event()

    @node
    async def stubborn(x: int) -> None:
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue

    graph = Graph()
    graph.add(stubborn, node_id="stubborn", x=1)
    runner = WorkflowRunner(grace_seconds=0.05)
    task = asyncio.ensure_future(runner.run(graph))
    await asyncio.sleep(0.02)
    with caplog.at_level(logging.WARNING, "workflow_runner"):
        runner.stop("signal")
        with pytest.raises(RunStopped):
            await task
    assert runner.abandoned
    assert "still running: stubborn" in caplog.text
    let_go.set()
    await asyncio.sleep(0.01)


class Stuck:
    """Waits when it is told of a node."""

    def __init__(self) -> None:
        self.let_go = asyncio.Event()
        self.returned = False
        self.outcomes: list[Outcome] = []

    @hookimpl
    async def after_node(self, run: RunInfo, node: NodeInfo, outcome: Outcome) -> None:
        if node.node_id == "upto":
            await self.let_go.wait()
            self.returned = True

    @hookimpl
    async def after_run(self, run: RunInfo, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


async def test_a_hook_that_never_returns_after_the_last_node_is_left_after_the_grace_period(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stuck = Stuck()
    graph = Graph()
    graph.output("out", graph.add(upto, n=2))
    runner = hosted(stuck, grace_seconds=0.05)
    over = asyncio.Event()
    runner.subscribe(lambda event: over.set() if event == NodeChanged(run_id, "out", "completed", 0) else None)
    for run_id in ("stopped", "stopped while it waits", "cancelled", "cancelled while it waits"):
        over.clear()
        task = asyncio.ensure_future(runner.run(graph, run_id=run_id))
        await over.wait()
        for _ in range(10 if run_id.endswith("while it waits") else 0):
            await asyncio.sleep(0)
        with caplog.at_level(logging.WARNING, "workflow_runner"):
            if run_id.startswith("cancelled"):
                task.cancel()
            else:
                runner.stop("signal")
            await asyncio.wait((task,), timeout=10)
        assert task.cancelled() if run_id.startswith("cancelled") else task.result().outputs == {"out": [0, 1]}
        assert f"run {run_id}: left after 0.05 s of grace, still running: upto" in caplog.text
    assert runner.abandoned
    assert stuck.outcomes == [Completed({"out": [0, 1]})] * 4, "its nodes were over"
    stuck.let_go.set()
    await asyncio.sleep(0)


@pytest.mark.parametrize("way", ["it is stopped", "its caller is cancelled", "its own task is cancelled"])
async def test_a_hook_that_returns_within_the_grace_period_after_the_last_node_is_waited_for(way: str) -> None:
    stuck = Stuck()
    graph = Graph()
    graph.output("out", graph.add(upto, n=2))
    runner = hosted(stuck)
    over = asyncio.Event()
    runner.subscribe(lambda event: over.set() if isinstance(event, NodeChanged) and event.status == "completed" else None)
    task = asyncio.create_task(runner.run(graph, run_id="r"), name="caller")
    await over.wait()
    tasks = {task.get_name(): task for task in other_tasks()}
    ways: dict[str, Callable[[], object]] = {
        "it is stopped": partial(runner.stop, "signal"),
        "its caller is cancelled": tasks["caller"].cancel,
        "its own task is cancelled": tasks["workflow-r"].cancel,
    }
    for then in (ways[way], stuck.let_go.set):
        for _ in range(10):
            await asyncio.sleep(0)
        assert not task.done()
        then()
    await asyncio.wait((task,), timeout=10)
    assert task.done() and stuck.returned and not runner.abandoned


async def test_a_thread_that_does_not_end_is_left_too() -> None:
    began, let_go, over = threading.Event(), threading.Event(), threading.Event()

    @node
    def waits(x: int) -> None:
        began.set()
        let_go.wait(20)
        over.set()

    graph = Graph()
    graph.add(waits, x=1)
    runner = WorkflowRunner(grace_seconds=0.05)
    task = asyncio.ensure_future(runner.run(graph))
    assert await asyncio.to_thread(began.wait, 20)
    runner.stop("signal")
    with pytest.raises(RunStopped):
        await task
    assert not over.is_set()
    let_go.set()
    assert await asyncio.to_thread(over.wait, 20)


async def test_a_thread_that_cleans_up_for_want_of_consumers_is_refused_when_the_run_stops() -> None:
    cleaning, let_go, over = threading.Event(), threading.Event(), threading.Event()
    heard: list[BaseException] = []

    @node
    def source(n: int, context: Context) -> Iterator[int]:
        try:
            yield from range(n)
        finally:
            cleaning.set()
            let_go.wait(20)
            try:
                context.commit()
            except BaseException as error:
                heard.append(error)
                raise
            finally:
                over.set()

    @node
    async def first(items: Stream[int]) -> int:
        return await anext(items)

    graph = Graph()
    graph.add(first, items=graph.add(source, n=1_000))
    graph.add(forever, x=1)
    runner = WorkflowRunner(grace_seconds=10)
    task = asyncio.ensure_future(runner.run(graph))
    assert await asyncio.to_thread(cleaning.wait, 20)
    runner.stop("signal")
    for _ in range(20):  # who waits for the thread hears of it
        await asyncio.sleep(0)
    let_go.set()
    with pytest.raises(RunStopped):
        await task
    assert over.is_set(), "the run waits for it as for any body"
    assert not runner.abandoned
    assert [type(error) for error in heard] == [workflow_runner.Cancelled]


async def test_a_cleanup_after_the_cut_counts_for_nothing() -> None:
    saving = Saving()
    tried: list[str] = []

    @node
    async def tidy(n: int, context: Context) -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.sleep(3600)
        finally:
            late: dict[str, Callable[[], None]] = {
                "commit": lambda: context.commit("late"),
                "durable": lambda: context.on_durable(print),
            }
            for name, call in late.items():
                try:
                    call()
                except asyncio.CancelledError:
                    tried.append(name)

    graph = Graph()
    graph.output("out", graph.add(tidy, node_id="t", n=1))
    graph.add(boom, x=graph.add(double, x=1))
    with pytest.raises(NodeFailed):
        await hosted(saving).run(graph)
    assert tried == ["commit", "durable"]
    states = {found.node_id: found.state for _, cut in saving.cuts for found in cut.nodes}
    assert states["t"] is None


async def test_a_body_that_cleans_up_after_its_failure_is_not_cut_short() -> None:
    done: list[str] = []

    @node(outputs=("a", "b"))
    async def tidy(n: int) -> AsyncIterator[dict[str, int]]:
        try:
            yield {"unknown": n}
        finally:
            await asyncio.sleep(0.01)
            done.append("cleaned up")

    graph = Graph()
    graph.add(tidy, n=1)
    with pytest.raises(NodeFailed, match="unknown output"):
        await WorkflowRunner().run(graph)
    assert done == ["cleaned up"]


@pytest.mark.parametrize("name", ["in its body", "waiting"])
async def test_an_actor_that_is_thrown_away_is_no_failure(name: str) -> None:
    """As the interpreter does with what is left of an event loop that nobody runs any more."""

    @node
    async def endless(n: int) -> AsyncIterator[int]:
        yield n
        await asyncio.sleep(3600)

    graph = Graph()
    graph.add(double, node_id="waiting", x=graph.add(endless, node_id="in its body", n=1))
    run = asyncio.ensure_future(WorkflowRunner().run(graph))
    await asyncio.sleep(0.01)
    (thrown,) = (task for task in asyncio.all_tasks() if task.get_name() == name)
    body = thrown.get_coro()
    assert body is not None
    body.close()
    await asyncio.sleep(0.01)
    assert not run.done()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert isinstance(thrown.exception(), RuntimeError)  # of asyncio, which finds nothing to go on with


async def test_a_body_that_ends_in_peace_after_the_stop_does_not_count() -> None:
    begun: list[int] = []

    @node
    async def calm(n: int) -> AsyncIterator[int]:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            return
        yield n

    @node
    async def after(items: list) -> None:  # type: ignore[type-arg]
        begun.append(1)

    @node
    async def late(items: Stream[int]) -> None:
        begun.extend([x async for x in items] or [2])

    graph = Graph()
    source = graph.add(calm, node_id="calm", n=1)
    graph.add(late, node_id="late", items=source, sync_mode="zip_all")
    graph.add(after, items=[source])
    saving = Saving()
    runner = hosted(saving)
    task = asyncio.ensure_future(runner.run(graph))
    await asyncio.sleep(0.02)
    runner.stop("signal")
    with pytest.raises(RunStopped):
        await task
    assert begun == []
    assert ("after_node", "calm", 1, Cancelled("signal")) in saving.heard
    assert not other_tasks()


async def test_a_run_that_is_not_stored_holds_nothing_of_nodes_that_are_over() -> None:
    @node
    async def counts_actors(values: list[int]) -> int:
        # Not `isinstance`, which asks each object for its class: another test may have left one that raises then.
        return sum(issubclass(type(each), Actor) and each.run.run_id == "kept nowhere" for each in gc.get_objects())

    graph = Graph()
    values = [graph.add(double, x=graph.add(upto, n=1)) for _ in range(20)]
    graph.output("actors", graph.add(counts_actors, values=values))
    assert (await WorkflowRunner().run(graph, run_id="kept nowhere")).outputs == {"actors": [1]}


async def test_what_a_body_yields_where_it_is_cancelled_leaves_with_what_is_held() -> None:
    @node
    async def goes_on() -> AsyncIterator[int]:
        task = asyncio.current_task()
        assert task is not None
        for number in range(3):
            asyncio.get_running_loop().call_soon(task.cancel)
            try:
                yield number
            except asyncio.CancelledError:
                task.uncancel()
                yield 10 + number

    graph = Graph()
    graph.output("out", graph.add(goes_on))
    assert (await hosted(Saving(hold=True)).run(graph)).outputs == {"out": [0, 10, 1, 11, 2, 12]}


async def test_held_outputs_leave_when_a_cut_that_holds_them_is_durable() -> None:
    saving = Saving(hold=True)
    seen: list[tuple[int, int]] = []

    @node
    async def look(x: int) -> int:
        durable = [item for _, cut in saving.cuts for found in cut.nodes for edge in found.inbox for item in edge.items]
        seen.append((x, durable.count(x)))
        return x

    graph = Graph()
    graph.add(look, node_id="look", x=graph.add(upto, n=3))
    await hosted(saving).run(graph)
    assert [x for x, _ in seen] == [0, 1, 2]
    assert all(times for _, times in seen)


@pytest.mark.parametrize(("steer", "options"), [("hold_outputs", ("all",)), ("follow_outputs", ("all", 0, 1 << 30))])
async def test_a_plugin_may_have_every_emission_saved_from_the_middle_of_a_run_on(steer: str, options: tuple[Any, ...]) -> None:
    class Later:
        def __init__(self) -> None:
            self.cuts: list[tuple[str, Snapshot]] = []

        @hookimpl
        async def before_run(self, run: RunInfo, control: RunControl) -> None:
            self.control = control

        save_checkpoint, restore_checkpoint = Saving.save_checkpoint, Saving.restore_checkpoint

    saving = Later()

    @node
    async def steers(x: int) -> int:
        if x == 2:
            getattr(saving.control, steer)(*options)
        return x

    graph = Graph()
    graph.output("out", graph.add(double, x=graph.add(steers, node_id="steers", x=graph.add(upto, n=5))))
    assert (await hosted(saving).run(graph)).outputs == {"out": [0, 2, 4, 6, 8]}
    told = [each.firing for reason, cut in saving.cuts for each in cut.nodes if (reason, each.node_id) == ("all", "steers")]
    assert told[:2] == [3, 4], "the emission of the firing that steered, and the next"


async def test_a_plugin_that_asks_for_a_checkpoint_where_nobody_saves_is_given_none() -> None:
    found: list[CheckpointRef | None] = []

    class Asks:
        @hookimpl
        async def before_run(self, control: RunControl) -> None:
            self.control = control
            found.append(await control.request("at the start"))

        @hookimpl
        async def after_node(self, outcome: Outcome) -> None:
            found.append(await self.control.request("after a node"))

    graph = Graph()
    graph.add(upto, n=1)
    await hosted(Asks()).run(graph)
    assert found == [None, None]


async def test_on_durable_waits_for_a_cut() -> None:
    saving = Saving()
    calls: list[str] = []

    @node
    async def ask(x: int, context: Context) -> None:
        context.on_durable(lambda: calls.append("called"))
        ref = await context.checkpoint("mine")
        assert ref is not None
        assert ref.reason == "mine"
        assert calls == [], "the step that asks is not final yet"

    graph = Graph()
    graph.add(ask, x=1)
    await hosted(saving).run(graph)
    assert calls == ["called"]
    assert [reason for reason, _ in saving.cuts] == ["mine", "end"]


async def test_the_log_of_taken_items_is_bounded_where_a_plugin_saves() -> None:
    @node
    async def hoards(items: Stream[int]) -> list[int]:
        return [x async for x in items]

    graph = Graph()
    graph.add(hoards, node_id="h", items=graph.add(upto, n=50))
    with pytest.raises(NodeFailed) as caught:
        await hosted(Saving(), max_log=10).run(graph)
    assert isinstance(caught.value.__cause__, LogOverflow)
    await WorkflowRunner(max_log=10).run(graph)


async def test_a_state_that_cannot_be_copied_fails_at_its_commit() -> None:
    @node
    async def keeps(x: int, context: Context) -> None:
        context.commit(iter([1]) if x else (i for i in range(3)))

    graph = Graph()
    graph.add(keeps, node_id="k", x=0)
    with pytest.raises(NodeFailed) as caught:
        await hosted(Saving()).run(graph)
    assert isinstance(caught.value.__cause__, StateNotCopyable)


async def test_state_is_private() -> None:
    @node
    async def grows(items: Stream[int], context: Context) -> AsyncIterator[list[int]]:
        state: list[int] = []
        async for x in items:
            state.append(x)
            context.commit(state)
            state.append(99)
            state = context.state
            assert context.state is not context.state
            yield list(state)
        context.commit(state)

    graph = Graph()
    graph.output("out", graph.add(grows, items=graph.add(upto, n=3)))
    result = await hosted(Saving()).run(graph)
    assert result.outputs["out"] == [[0], [0, 1], [0, 1, 2]]


async def test_events() -> None:
    events: list[Event] = []

    @node
    async def tells(x: int, context: Context) -> None:
        context.progress(1, 4)
        context.log.debug("hello")
        await context.checkpoint()

    graph = Graph()
    graph.add(tells, node_id="t", x=1)
    runner = hosted(Saving(), on_event=events.append)
    more: list[Event] = []
    end = runner.subscribe(more.append)
    await runner.run(graph, run_id="r")
    end()
    assert more == events
    assert events[0] == RunStarted("r", 1, 1, 0)
    changes = [event for event in events if isinstance(event, NodeChanged)]
    assert [(change.status, change.firings) for change in changes] == [("running", 0), ("running", 1), ("completed", 1)]
    assert Progressed("r", "t", 1, 4) in events
    saved = [event for event in events if isinstance(event, CheckpointSaved)]
    assert saved
    assert all(event.seconds >= 0 and event.steps_behind == 0 for event in saved)
    assert events[-1] == RunEnded("r", "completed")
    await runner.run(graph)
    assert len(events) > len(more)


@pytest.mark.parametrize("listens", [False, True], ids=["nobody", "a plugin"])
async def test_who_watches_is_told_each_firing_whether_a_plugin_hears_of_it_or_not(listens: bool) -> None:
    graph = Graph()
    graph.output("out", graph.add(double, "doubles", x=graph.add(upto, n=3)))
    runner = hosted(Witness()) if listens else WorkflowRunner()
    events: list[Event] = []
    runner.subscribe(events.append)
    await runner.run(graph)
    changes = [event for event in events if isinstance(event, NodeChanged) and event.node_id == "doubles"]
    assert [change.firings for change in changes if change.status == "running"] == [0, 1, 2, 3]


async def test_unsubscribing_twice_ends_one_subscription() -> None:
    heard: list[Event] = []
    runner = WorkflowRunner()
    end, other = runner.subscribe(heard.append), runner.subscribe(heard.append)
    end()
    end()
    graph = Graph()
    graph.add(double, x=1)
    await runner.run(graph)
    assert sum(isinstance(event, RunStarted) for event in heard) == 1
    other()
    other()
    end()


async def test_enabling_what_is_not_installed_does_not_start() -> None:
    graph = Graph(enable={"no_such_plugin": True})
    graph.add(boom, x=1)
    with pytest.raises(PluginMissing, match="no_such_plugin"):
        await WorkflowRunner().run(graph)


async def test_a_plugin_registered_in_code_can_be_switched_off() -> None:
    graph = Graph()
    graph.add(double, x=1)
    witness = Witness()
    await hosted(witness).run(graph, enable={"witness": False})
    assert witness.heard == []
    await hosted(witness).run(graph)
    assert witness.heard


SPAN = ContextVar("SPAN", default="none")


@node
async def span(x: str) -> str:
    return SPAN.get()


@node
def span_in_a_thread(x: str) -> str:
    return SPAN.get()


@node
async def set_span(x: str) -> str:
    SPAN.set(x)
    return x


async def test_a_node_does_not_see_the_context_variables_of_the_one_that_wakes_it() -> None:
    graph = Graph()
    setter = graph.add(set_span, x="of the setter")
    graph.output("span", graph.add(span, x=setter))
    graph.output("thread", graph.add(span_in_a_thread, x=setter))
    SPAN.set("of the caller")
    result = await WorkflowRunner().run(graph)
    assert result.outputs == {"span": ["of the caller"], "thread": ["of the caller"]}


class Tracer:
    """A plugin that sets a context variable for what the run does."""

    @hookimpl
    async def before_run(self, run: RunInfo, control: RunControl) -> None:
        SPAN.set(run.run_id)


async def test_a_node_sees_the_context_variables_that_a_plugin_set_for_the_run() -> None:
    graph = Graph()
    graph.output("span", graph.add(span, x=graph.add(set_span, x="of the setter")))
    result = await WorkflowRunner(plugins=PluginHost().register(Tracer(), "tracer")).run(graph, run_id="traced")
    assert result.outputs == {"span": ["traced"]}


def test_the_synchronous_twin() -> None:
    graph = Graph()
    graph.output("out", graph.add(double, x=2))
    result = run_workflow(graph, run_id="r")
    assert (result.run_id, result.status, result.outputs) == ("r", "completed", {"out": [4]})


@pytest.mark.parametrize("enable", [["checkpoint"], {"ab"}, "checkpoint"], ids=["list", "set", "text"])
async def test_plugins_are_enabled_by_name(enable: Any) -> None:
    told = r"enable takes plugins by name, like {'checkpoint': True}, not "
    with pytest.raises(InputInvalid, match=told):
        Graph(enable=enable)
    with pytest.raises(InputInvalid, match=told):
        await WorkflowRunner().run(Graph(), enable=enable)
    with pytest.raises(InputInvalid, match=told):
        await hosted(Saving()).resume("r", enable=enable)


@pytest.mark.parametrize("wanted", ["yes", 1, ["every_firing"]])
async def test_a_plugin_is_enabled_by_true_or_by_its_options(wanted: Any) -> None:
    with pytest.raises(InputInvalid, match="enable 'witness': give true, false or an object of options, not "):
        await hosted(Saving()).run(Graph(), enable={"witness": wanted})


@pytest.mark.parametrize("given", [["n"], {"n"}, "n"], ids=["list", "set", "text"])
async def test_inputs_and_answers_are_given_by_name(given: Any) -> None:
    graph = Graph()
    graph.output("out", graph.add(double, x=graph.input("n", value=2)))
    with pytest.raises(InputInvalid, match=r"inputs takes values by name, like {'count': 3}, not "):
        await WorkflowRunner().run(graph, given)
    with pytest.raises(InputInvalid, match=r"inputs takes values by name, like {'count': 3}, not "):
        WorkflowRunner().validate(graph, given)
    with pytest.raises(InputInvalid, match=r"updates takes answers by node, like {'approve': True}, not "):
        await hosted(Saving()).resume("r", updates=given)


@pytest.mark.parametrize("checkpoint", ["newest", "41", True, 1.0], ids=repr)
async def test_a_checkpoint_that_is_no_choice_is_refused(checkpoint: Any) -> None:
    told = f"checkpoint is the number of one, 'latest-intact', or None for the newest, not {checkpoint!r}"
    with pytest.raises(InputInvalid, match=re.escape(told)):
        await hosted(Saving()).resume("r", checkpoint=checkpoint)


def test_an_async_listener_is_refused() -> None:
    async def hear(event: Event) -> None: ...

    with pytest.raises(TypeError, match=r"`async def` .*hear"):
        WorkflowRunner(on_event=hear)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"asyncio\.Queue"):
        WorkflowRunner().subscribe(hear)  # type: ignore[arg-type]


@pytest.mark.parametrize(("twin", "method"), [(run_workflow, "run"), (resume_workflow, "resume")], ids=["run", "resume"])
async def test_a_synchronous_twin_in_an_event_loop_says_what_to_write(twin: Callable[[Any], Any], method: str) -> None:
    with pytest.raises(RuntimeError, match=rf"await WorkflowRunner\(\)\.{method}\("):
        twin("r")
    gc.collect()  # a coroutine that nobody awaited would warn


@pytest.mark.parametrize(
    ("twin", "method"), [(run_workflow, WorkflowRunner.run), (resume_workflow, WorkflowRunner.resume)], ids=["run", "resume"]
)
def test_synchronous_twins_take_what_the_methods_take(twin: Callable[..., Any], method: Callable[..., Any]) -> None:
    of_runner, *taken = signature(method).parameters.values()
    *offered, settings = signature(twin).parameters.values()
    assert offered == taken
    assert (of_runner.name, settings.kind) == ("self", settings.VAR_KEYWORD)
    own = set(signature(WorkflowRunner).parameters)
    assert not own & {parameter.name for parameter in offered}, "a setting of the same name could not be given"


def test_what_a_twin_is_given_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[BoundArguments] = []

    async def hear(*arguments: Any, **named: Any) -> None:
        heard.append(bind(*arguments, **named))

    for twin, method in ((run_workflow, "run"), (resume_workflow, "resume")):
        bind = signature(getattr(WorkflowRunner, method)).bind
        monkeypatch.setattr(WorkflowRunner, method, hear)
        given: dict[str, Any] = {name: object() for name in list(signature(twin).parameters)[:-1]}
        twin(**given)
        arguments = dict(heard.pop().arguments)
        assert isinstance(arguments.pop("self"), WorkflowRunner)
        assert arguments == given


@pytest.mark.parametrize(
    "settings",
    [
        {"edge_capacity": 0},
        {"edge_capacity": 9, "max_edge_capacity": 8},
        {"validate": "no"},
        {"edge_capacity": float("nan")},
        {"max_edge_capacity": float("inf")},
        {"max_threads": 0},
        {"max_threads": 1.5},
        {"max_log": 0},
        {"max_log": "10"},
        {"grace_seconds": -1},
        {"grace_seconds": float("nan")},
        {"grace_seconds": "5"},
        {"on_failure": "go on"},
    ],
)
def test_settings_are_checked(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not"):
        WorkflowRunner(**settings)


def test_a_listener_is_a_function() -> None:
    with pytest.raises(TypeError, match="each event, not 3"):
        WorkflowRunner(on_event=3)  # type: ignore[arg-type]
