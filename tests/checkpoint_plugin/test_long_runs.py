"""A run of which most is over: what is left is planned and built, and what seems to be over is not believed."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from checkpoint_plugin.database.location import locate
from checkpoint_plugin.loader import CheckpointLoader
from checkpoint_plugin.store import RunHistory, Store
from hookspecs import StoredRun
from workflow_runner import Event, NodeFailed, WorkflowRunner, node
from workflow_runner import runner as runner_module
from workflow_runner.events import RunStarted
from workflow_runner.plan import Plan
from workflow_runner.planning import make_plan

CALLS: list[int] = []
BROKEN: list[int] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    CALLS.clear()
    BROKEN.clear()


@node
async def begin(n: int) -> AsyncIterator[int]:
    for number in range(n):
        yield number


@node
async def more(x: int) -> int:
    CALLS.append(x)
    if x in BROKEN:
        raise ValueError(x)
    return x + 1


@node
async def both(x: list[int]) -> int:
    return sum(x)


LENGTH = 40


def chain() -> dict[str, Any]:
    """A chain that is over until its last node but two; a short way around it; and an output in the middle."""
    here = __name__
    nodes: list[dict[str, Any]] = [{"id": "s", "type": f"{here}.begin", "data": {"n": 1}}]
    nodes += [{"id": f"n{place}", "type": f"{here}.more", "data": {}} for place in range(LENGTH)]
    nodes.append({"id": "sum", "type": f"{here}.both", "data": {}})
    nodes += [{"id": name, "type": "workflow.Output", "data": {"name": name}} for name in ("middle", "end")]
    nodes.append({"id": "note", "type": "workflow.Comment", "data": {}})
    ends = [("s", "n0", "x"), *((f"n{place}", f"n{place + 1}", "x") for place in range(LENGTH - 1))]
    ends += [("n3", "middle", "value"), (f"n{LENGTH - 1}", "sum", "x"), ("n3", "sum", "x"), ("sum", "end", "value")]
    return {"nodes": nodes, "edges": [{"source": a, "target": b, "targetHandle": handle} for a, b, handle in ends]}


async def stop_late(url: str) -> None:
    BROKEN[:] = [LENGTH - 3]
    enable = {"checkpoint": {"url": url, "every_firing": True}}
    with pytest.raises(NodeFailed):
        await WorkflowRunner(nodes=[sys.modules[__name__]]).run(chain(), enable=enable, run_id="r")
    BROKEN.clear()
    CALLS.clear()


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    plans: list[Plan] = []

    def remember(*arguments: Any) -> Plan:
        plans.append(make_plan(*arguments))
        return plans[-1]

    monkeypatch.setattr(runner_module, "make_plan", remember)
    return plans


async def go_on(url: str) -> tuple[dict[str, list[Any]], list[Event]]:
    events: list[Event] = []
    runner = WorkflowRunner(nodes=[sys.modules[__name__]])
    runner.subscribe(events.append)
    return (await runner.resume("r", url=url)).outputs, events


EXPECTED = {"middle": [4], "end": [LENGTH + 4]}


async def test_what_is_over_is_not_planned(store_url: str, planned: list[Plan]) -> None:
    await stop_late(store_url)
    planned.clear()
    outputs, events = await go_on(store_url)
    assert outputs == EXPECTED
    assert CALLS == [LENGTH - 3, LENGTH - 2, LENGTH - 1]
    assert len(planned) == 1 and len(planned[0].nodes) < 10
    (started,) = (event for event in events if isinstance(event, RunStarted))
    assert (started.nodes, started.completed) == (LENGTH + 4, LENGTH - 1)
    store = Store(locate(store_url), create=False)
    whole = await store.restore(RunHistory("r", 2, 2), None)
    brief = await store.restore(RunHistory("r", 2, 2), None, brief=True)
    await store.close()
    assert whole is not None and brief is not None
    over = {found.node_id for found in whole.nodes if found.status == "completed"}
    assert over == brief.over | {found.node_id for found in brief.nodes}
    assert {found.node_id for found in brief.nodes} == {"middle", "end"}, "all that hold something"


@pytest.mark.parametrize("all_over", [True, False])
async def test_a_look_from_another_moment_changes_nothing(
    store_url: str, planned: list[Plan], all_over: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stop_late(store_url)
    planned.clear()
    seen = frozenset(each["id"] for each in chain()["nodes"]) if all_over else frozenset()
    load = CheckpointLoader.load

    async def look(loader: CheckpointLoader, run_id: str, *, outputs: bool = True) -> StoredRun:
        return replace(await load(loader, run_id, outputs=outputs), over=seen)

    monkeypatch.setattr(CheckpointLoader, "load", look)
    assert (await go_on(store_url))[0] == EXPECTED
    assert CALLS == [LENGTH - 3, LENGTH - 2, LENGTH - 1]
    assert len(planned) == (2 if all_over else 1)
