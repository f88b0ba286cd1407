"""`docs/nodes.md`: its body of many steps, run as it stands."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from workflow_runner import Context, Graph, NodeFailed, WorkflowRunner, node

pytestmark = pytest.mark.plugin
PAGE = (Path(__file__).parents[2] / "docs" / "nodes.md").read_text(encoding="utf-8")


async def test_a_body_of_many_steps_repeats_none_that_was_saved(store_url: str) -> None:
    calls: list[tuple[int, str]] = []
    broken = [True]

    async def answer(messages: list[str], key: str) -> str:
        calls.append((len(messages), key))
        if len(messages) == 3 and broken:
            raise OSError(broken.pop())
        return f"answer {len(messages)}"

    [block] = [text for text in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "def agent" in text]
    names: dict[str, Any] = {"node": node, "Context": Context, "AsyncIterator": AsyncIterator, "answer": answer}
    names["__name__"] = __name__
    exec(block, names)
    graph = Graph()
    graph.output("messages", graph.add(names["agent"], node_id="a", task="go", turns=4))
    enable = {"checkpoint": {"url": store_url, "explicit": True}}
    with pytest.raises(NodeFailed):
        await WorkflowRunner().run(graph, enable=enable, run_id="r")
    done = await WorkflowRunner().resume("r", graph=graph, enable=enable)
    assert done.outputs == {"messages": [["go", "answer 1", "answer 2", "answer 3", "answer 4"]]}
    assert [turn for turn, _ in calls] == [1, 2, 3, 3, 4]
    assert calls[2] == calls[3], "the step that failed has the same key"
    assert len({key for _, key in calls}) == 4
