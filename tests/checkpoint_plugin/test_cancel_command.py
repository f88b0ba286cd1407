"""`workflow cancel RUN`, on both databases."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from click.testing import CliRunner, Result

from checkpoint_plugin import NotResumable
from checkpoint_plugin.cli.cancel import cancel
from checkpoint_plugin.cli.suspended import suspended
from hookspecs import LeaseLost, RunNotFound, WorkflowError
from workflow_runner import Context, Graph, WorkflowRunner, node


@node
async def ask(context: Context) -> Any:
    return await context.suspend("go on?")


@node
async def work() -> int:
    await asyncio.Event().wait()
    return 1


def one(definition: Any) -> Graph:
    graph = Graph()
    graph.output("out", graph.add(definition, node_id="n"))
    return graph


def enabled(url: str) -> dict[str, Any]:
    return {"checkpoint": {"url": url, "lease_seconds": 1}}


async def call(url: str, run_id: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, cancel, [run_id, "--url", url, "--json"])


async def test_a_run_that_waits_is_cancelled_and_nobody_goes_on_with_it(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await WorkflowRunner().run(one(ask), enable=enabled(store_url), run_id="r")
    for _ in range(2):
        done = await call(store_url, "r")
        assert (done.exit_code, json.loads(done.stdout)) == (0, {"run_id": "r", "status": "cancelled"})
    with pytest.raises(NotResumable, match="it is cancelled"):
        await WorkflowRunner().resume("r", graph=one(ask), updates={"n": 1}, url=store_url)
    listed = await asyncio.to_thread(CliRunner().invoke, suspended, ["--url", store_url, "--json"])
    assert json.loads(listed.stdout) == {"suspended": []}


async def test_a_run_that_is_executed_stops_when_it_is_cancelled(store_url: str) -> None:
    begun = asyncio.Event()
    runner = WorkflowRunner(on_event=lambda event: begun.set())
    running = asyncio.create_task(runner.run(one(work), enable=enabled(store_url), run_id="r"))
    await begun.wait()
    assert (await call(store_url, "r")).exit_code == 0
    with pytest.raises(LeaseLost, match="it was cancelled"):
        await running


async def test_what_cannot_be_cancelled_is_told(store_url: str) -> None:
    await WorkflowRunner().run(Graph(), enable=enabled(store_url), run_id="r")
    for run_id, code, kind in (("r", 2, WorkflowError), ("s", 5, RunNotFound)):
        done = await call(store_url, run_id)
        assert isinstance(done.exception, kind)
        assert done.exception.exit_code == code
