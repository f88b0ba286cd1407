"""The page about suspending: its approval with a deadline, run as it stands."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from workflow_runner import Context, Graph, WorkflowRunner, node

pytestmark = pytest.mark.plugin
PAGE = (Path(__file__).parents[2] / "docs" / "suspension.md").read_text(encoding="utf-8")
BLOCK = next(block for block in re.findall(r"```python\n(.*?)```", PAGE, re.S) if "sleep_until" in block)


def approval(days: float) -> Graph:
    names: dict[str, Any] = {"Context": Context, "node": node, "datetime": datetime, "UTC": UTC, "timedelta": timedelta}
    names["__name__"] = __name__
    exec(BLOCK, names)
    graph = Graph()
    graph.output("approved", graph.add(names["approve"], node_id="approve", amount=1, days=days))
    return graph


@pytest.mark.parametrize("answer", [True, False])
async def test_an_approval_with_a_deadline_is_answered_before_it(answer: bool, store_url: str) -> None:
    graph, enable = approval(days=2), {"checkpoint": {"url": store_url}}
    assert (await WorkflowRunner().run(graph, enable=enable, run_id="r")).status == "suspended"
    done = await WorkflowRunner().resume("r", graph=graph, updates={"approve": answer}, enable=enable)
    assert done.outputs["approved"] == [answer]


async def test_an_approval_with_a_deadline_ends_when_nobody_answers(store_url: str) -> None:
    graph, enable = approval(days=0.05 / 86_400), {"checkpoint": {"url": store_url}}
    assert (await WorkflowRunner().run(graph, enable=enable, run_id="r")).status == "suspended"
    await asyncio.sleep(0.1)
    done = await WorkflowRunner().resume("r", graph=graph, enable=enable)
    assert done.outputs["approved"] == [False]
