"""The page about suspending: its approval with a deadline and its approval of each item, run as they stand."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from workflow_runner import Context, Graph, Stream, WorkflowRunner, node

pytestmark = pytest.mark.plugin
PAGE = (Path(__file__).parents[2] / "docs" / "suspension.md").read_text(encoding="utf-8")


def defined(word: str, **more: Any) -> dict[str, Any]:
    """What the block of the page that holds this word defines."""
    block = next(block for block in re.findall(r"```python\n(.*?)```", PAGE, re.S) if word in block)
    names: dict[str, Any] = {"Context": Context, "node": node, "datetime": datetime, "UTC": UTC, "timedelta": timedelta}
    names |= {"__name__": __name__, "AsyncIterator": AsyncIterator, "Stream": Stream, **more}
    exec(block, names)
    return names


def approval(days: float) -> Graph:
    graph = Graph()
    graph.output("approved", graph.add(defined("deadline")["approve"], node_id="approve", amount=1, days=days))
    return graph


@node
async def orders(amounts: list[int]) -> AsyncIterator[dict[str, int]]:
    for amount in amounts:
        yield {"amount": amount}


async def test_an_approval_of_each_item_loses_none(store_url: str) -> None:
    graph, enable = Graph(), {"checkpoint": {"url": store_url}}
    graph.output("let go", graph.add(defined("async def gate")["gate"], orders=graph.add(orders, amounts=[1, 200, 300, 2, 400])))
    result = await WorkflowRunner().run(graph, enable=enable, run_id="r")
    for answer in (True, False, True):
        assert result.status == "suspended"
        result = await WorkflowRunner().resume("r", graph=graph, updates={"gate": answer}, enable=enable)
    assert [order["amount"] for order in result.outputs["let go"]] == [1, 200, 2, 400]


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


@pytest.mark.parametrize(("signed_on", "told"), [(2, "yes"), (None, "nobody signed")])
async def test_a_contract_of_which_people_are_reminded_each_day(signed_on: int | None, told: str, store_url: str) -> None:
    reminded: list[str] = []

    async def remind(contract: str, key: str) -> None:
        reminded.append(key)

    graph, enable = Graph(), {"checkpoint": {"url": store_url}}
    sign = defined("async def sign", remind=remind)["sign"]
    sent = datetime.now(UTC) - timedelta(days=9)  # so each day is over as soon as it begins
    graph.output("told", graph.add(sign, node_id="sign", contract="c", sent=sent, days=3))
    result = await WorkflowRunner().run(graph, enable=enable, run_id="r")
    for day in range(1, 4):
        assert (result.status, result.suspensions["sign"].wake_at) == ("suspended", sent + timedelta(days=day))
        updates = {"sign": "yes"} if day == signed_on else None
        result = await WorkflowRunner().resume("r", graph=graph, updates=updates, enable=enable)
        if day == signed_on:
            break
    assert result.outputs == {"told": [f"c: {told}"]}
    assert len(set(reminded)) == len(reminded) == (signed_on or 3) - 1
