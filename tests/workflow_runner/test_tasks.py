"""Event loops with a task factory, such as services set: a run goes the same way."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any

import pytest

from hookspecs import PluginHost
from tests.workflow_runner.test_runs import Saving
from workflow_runner import Context, Graph, Stream, WorkflowRunner, node
from workflow_runner.task import start_task

PATIENCE_SECONDS = 20


@pytest.fixture(params=["plain", "eager"])
async def factory(request: pytest.FixtureRequest) -> Any:
    """A task factory of the test's event loop."""

    def plain(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **named: Any) -> asyncio.Task[Any]:
        return asyncio.Task(work, loop=loop, **named)

    if request.param == "eager" and sys.version_info < (3, 12):
        pytest.skip("the task factory came with Python 3.12")
    made: Any = plain if request.param == "plain" else vars(asyncio)["eager_task_factory"]
    asyncio.get_running_loop().set_task_factory(made)
    return made


@node
async def upto(n: int) -> AsyncIterator[int]:
    for number in range(n):
        yield number


@node
async def totals(items: Stream[int], context: Context) -> AsyncIterator[int]:
    total = context.state or 0
    async for item in items:
        total += item
        yield total
        context.commit(total)


@node
def twice(n: int) -> Iterator[int]:
    yield n
    yield n


def chain() -> Graph:
    graph = Graph()
    graph.output("out", graph.add(twice, n=graph.add(totals, items=graph.add(upto, n=200))))
    return graph


@pytest.mark.usefixtures("factory")
@pytest.mark.parametrize("saves", [False, True], ids=["plain", "saved"])
async def test_a_run_goes_the_same_way(saves: bool) -> None:
    saving = Saving()
    runner = WorkflowRunner(plugins=PluginHost().register(saving, name="saving") if saves else None)
    async with asyncio.timeout(PATIENCE_SECONDS):
        result = await runner.run(chain())
    assert result.outputs == {"out": [n * (n + 1) // 2 for n in range(200) for _ in range(2)]}
    assert bool(saving.cuts) == saves


@pytest.mark.usefixtures("factory")
async def test_a_task_has_not_begun_when_it_is_made() -> None:
    heard: list[str] = []

    async def work() -> None:
        heard.append("begun")

    task = start_task(asyncio.get_running_loop(), work(), "w")
    assert (heard, task.get_name()) == ([], "w")
    await task
    assert heard == ["begun"]


@pytest.mark.usefixtures("factory")
async def test_a_task_that_is_cancelled_before_it_begins_never_does() -> None:
    heard: list[str] = []

    async def work() -> None:
        heard.append("begun")

    task = start_task(asyncio.get_running_loop(), work(), "w")
    task.cancel()
    await asyncio.wait((task,))
    assert (heard, task.cancelled()) == ([], True)
