"""The page about recovery: its service, run as it stands."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from checkpoint_plugin import RecoveryService
from hookspecs import RunExists
from workflow_runner import Context, Graph, WorkflowRunner, node

pytestmark = pytest.mark.plugin
PAGE = (Path(__file__).parents[2] / "docs" / "recovery.md").read_text(encoding="utf-8")


@node
async def approve(order: int, context: Context) -> str:
    return f"order {order}: {await context.suspend('approve the order')}"


async def test_a_service_begins_runs_and_leaves_them_to_workers(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    [source] = [block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "class Orders" in block]
    module = ModuleType("a_service")
    monkeypatch.setitem(sys.modules, "a_service", module)
    exec(compile(source, "recovery.md", "exec"), vars(module))
    graph = Graph()
    graph.output("line", graph.add(approve, node_id="approve", order=graph.add(module.queued, order=graph.input("order"))))
    async with WorkflowRunner() as runner:
        orders = module.Orders(runner, graph, store_url)
        workers = RecoveryService(url=store_url, execute=lambda run_id: runner.resume(run_id, graph=graph, url=store_url))
        for order in (1, 2):
            await orders.begin(f"order-{order}", order)
        with pytest.raises(RunExists):
            await orders.begin("order-1", 1)
        assert sorted((each.run_id, each.status) for each in await workers.recover_all()) == [
            ("order-1", "suspended"),
            ("order-2", "suspended"),
        ]
        assert await orders.outputs("order-1") is None
        await orders.answer("order-1", "approve", "yes")
        await orders.cancel("order-2")
        assert [(each.run_id, each.status) for each in await workers.recover_all()] == [("order-1", "completed")]
        assert await orders.outputs("order-1") == {"line": ["order 1: yes"]}
        assert await orders.status("order-2") == "cancelled"
