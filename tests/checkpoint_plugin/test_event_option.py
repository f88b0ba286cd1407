"""The option `events`: the plugin logs what happens to a run and its nodes."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from checkpoint_plugin import EventLogger, EventRecord, JobRepository
from checkpoint_plugin.errors import StoreUnreadable
from checkpoint_plugin.plugin import checkpoint
from checkpoint_plugin.policy import Policy
from hookspecs import PluginOptionsInvalid
from tests.checkpoint_plugin.test_plugin import Host
from workflow_runner import CheckpointSaved, Context, Event, Graph, NodeFailed, NodeNotWaiting, RunStopped, WorkflowRunner, node

FAIL: list[bool] = []


@node
async def one(x: int) -> int:
    return x


@node
async def fragile(x: int) -> int:
    if FAIL:
        raise RuntimeError("no")
    return x


def chain() -> Graph:
    graph = Graph()
    graph.output("out", graph.add(fragile, node_id="b", x=graph.add(one, node_id="a", x=1)))
    return graph


async def logged(url: str) -> list[EventRecord]:
    return await EventLogger("r", url).events()


def told(events: list[EventRecord], node_id: str | None) -> list[str]:
    return [event.kind for event in events if event.node_id == node_id]


@pytest.mark.parametrize("key", ["", base64.b64encode(bytes(32)).decode()])
async def test_a_run_that_deletes_itself_at_its_end_leaves_no_events(
    store_url: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKFLOW_CHECKPOINT_KEY", key)
    enable = {"checkpoint": {"events": True, "retention": {"drop_finished": 0}}}
    result = await WorkflowRunner(plugins=Host(store_url)).run(chain(), enable=enable, run_id="r")
    assert result.status == "completed"
    assert (await JobRepository(store_url).find()).total == 0
    assert await logged(store_url) == []


async def test_a_run_and_its_nodes_are_logged(store_url: str) -> None:
    runner = WorkflowRunner(plugins=Host(store_url))
    FAIL.append(True)
    with pytest.raises(NodeFailed):
        await runner.run(chain(), enable={"checkpoint": {"events": True}}, run_id="r")
    FAIL.clear()
    first = await logged(store_url)
    assert [event.seq for event in first] == list(range(len(first)))
    assert told(first, None) == ["created", "checkpointed", "failed"]
    assert told(first, "a") == ["scheduled", "started", "completed"]
    assert told(first, "b") == ["scheduled", "started", "failed"]
    failed = next(event for event in first if event.kind == "failed")
    assert (failed.node_id, failed.payload) == ("b", {"firing": 1, "attempt": 1, "error": "RuntimeError: no"})
    await runner.resume("r", graph=chain())
    second = (await logged(store_url))[len(first) :]
    assert told(second, None) == ["resumed", "checkpointed", "completed"]
    assert (told(second, "a"), told(second, "b")) == ([], ["started", "completed"])
    assert second[0].payload == {"attempt": 2}
    assert [event.payload["reason"] for event in (*first, *second) if event.kind == "checkpointed"] == ["error", "end"]


@node
async def yields(x: int) -> AsyncIterator[int]:
    yield x


@pytest.mark.parametrize("options", [{"every_nodes": 1}, {"after": ["last"]}])
async def test_the_end_of_the_last_node_is_logged_where_it_yields(store_url: str, options: dict[str, Any]) -> None:
    graph = Graph()
    graph.add(yields, node_id="last", x=1)
    runner = WorkflowRunner(plugins=Host(store_url))
    await runner.run(graph, enable={"checkpoint": {"events": True, **options}}, run_id="r")
    found = await logged(store_url)
    assert told(found, "last") == ["scheduled", "started", "completed"]
    assert told(found, None) == ["created", "checkpointed", "completed"]


async def test_a_run_with_a_log_tells_of_its_checkpoints_and_leaves_nothing_running(store_url: str) -> None:
    saved: list[str] = []

    def hear(event: Event) -> None:
        if isinstance(event, CheckpointSaved):
            saved.append(event.ref.reason)

    runner = WorkflowRunner(plugins=Host(store_url), on_event=hear)
    await runner.run(chain(), enable={"checkpoint": {"events": True, "after": ["a"]}}, run_id="r")
    assert saved == ["after", "end"]
    assert [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def test_why_a_run_was_stopped_is_logged(store_url: str) -> None:
    runner = WorkflowRunner(plugins=Host(store_url))

    @node
    async def stops(x: int) -> int:
        runner.stop("no more")
        await asyncio.sleep(60)
        return x

    graph = Graph()
    graph.add(stops, x=1)
    with pytest.raises(RunStopped):
        await runner.run(graph, enable={"checkpoint": {"events": True}}, run_id="r")
    last = (await logged(store_url))[-1]
    assert (last.kind, last.node_id, last.payload) == ("cancelled", None, {"reason": "no more", "attempt": 1})


async def test_without_the_option_nothing_is_logged_and_no_node_is_listened_to(store_url: str) -> None:
    await WorkflowRunner(plugins=Host(store_url)).run(chain(), enable={"checkpoint": True}, run_id="r")
    assert await logged(store_url) == []


@pytest.mark.parametrize("events", [False, True])
def test_a_run_without_a_log_pays_for_no_hook_of_nodes(events: bool) -> None:
    assert hasattr(checkpoint({"events": events}), "before_node") is events


def test_the_option_is_checked() -> None:
    assert not Policy.from_options({}).events
    with pytest.raises(PluginOptionsInvalid, match="'events' is true or false"):
        Policy.from_options({"events": "yes"})


async def test_a_log_that_cannot_begin_leaves_nothing_open(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(self: EventLogger, *arguments: object, **more: object) -> None:
        raise StoreUnreadable("no log")

    monkeypatch.setattr(EventLogger, "log", refuse)
    with pytest.raises(StoreUnreadable, match="no log"):
        await WorkflowRunner(plugins=Host(store_url)).run(chain(), enable={"checkpoint": {"events": True}}, run_id="r")
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("workflow-checkpoint")] == []
    assert [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("workflow-")] == []
    assert (await JobRepository(store_url).get("r")).status == "failed"


async def test_a_run_that_is_cancelled_while_its_log_begins_is_paused(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def cancelled(*arguments: object, **more: object) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    monkeypatch.setattr(EventLogger, "log", cancelled)
    with pytest.raises(asyncio.CancelledError):
        await WorkflowRunner(plugins=Host(store_url)).run(chain(), enable={"checkpoint": {"events": True}}, run_id="r")
    job = await JobRepository(store_url).get("r")
    assert (job.status, job.error) == ("paused", None)


@node
async def waits(context: Context) -> str:
    return str(await context.suspend("a word"))


@pytest.mark.parametrize("checkpoint", [None, 1])
async def test_a_suspended_run_that_is_refused_stays_so_though_its_log_is_lost(
    store_url: str, monkeypatch: pytest.MonkeyPatch, checkpoint: int | None
) -> None:
    graph = Graph()
    graph.output("out", graph.add(waits, node_id="n"))
    runner = WorkflowRunner(plugins=Host(store_url))
    await runner.run(graph, enable={"checkpoint": {"events": True, "best_effort": True}}, run_id="r")
    log = EventLogger.log

    async def refuse(self: EventLogger, kind: str, *arguments: Any, **more: Any) -> None:
        if kind != "resumed":
            raise StoreUnreadable("no log")
        await log(self, kind, *arguments, **more)

    monkeypatch.setattr(EventLogger, "log", refuse)
    with pytest.raises(NodeNotWaiting):
        await runner.resume("r", graph=graph, checkpoint=checkpoint, updates={"out": 1})
    job = await JobRepository(store_url).get("r")
    assert (job.status, job.suspended_node_id, job.error) == ("suspended", "n", None)
    assert job.degraded == "events could not be logged: no log"


@pytest.mark.parametrize("best_effort", [False, True])
async def test_a_log_that_is_lost_on_the_way(store_url: str, monkeypatch: pytest.MonkeyPatch, best_effort: bool) -> None:
    whole = EventLogger.log

    async def refuse(self: EventLogger, kind: str, node_id: str | None = None, payload: Any = None) -> None:
        if kind == "completed" and node_id == "a":
            raise StoreUnreadable("no log")
        await whole(self, kind, node_id, payload)

    monkeypatch.setattr(EventLogger, "log", refuse)
    options = {"events": True, "best_effort": True} if best_effort else {"events": True}
    run = WorkflowRunner(plugins=Host(store_url)).run(chain(), enable={"checkpoint": options}, run_id="r")
    if best_effort:
        assert (await run).outputs == {"out": [1]}
        assert (await JobRepository(store_url).get("r")).degraded == "events could not be logged: no log"
    else:
        with pytest.raises(StoreUnreadable, match="no log"):
            await run
