"""`docs/nodes.md`: its body of many steps, run as it stands."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from workflow_runner import Context, Graph, Node, NodeFailed, NodeRef, Stream, WorkflowRunner, node, run_workflow

pytestmark = pytest.mark.plugin
PAGE = (Path(__file__).parents[2] / "docs" / "nodes.md").read_text(encoding="utf-8")


def defined(word: str, **more: Any) -> dict[str, Any]:
    """What the block of the page that holds this word defines."""
    [block] = [text for text in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if word in text]
    names: dict[str, Any] = {"node": node, "Context": Context, "Stream": Stream, "AsyncIterator": AsyncIterator, **more}
    names["__name__"] = __name__
    exec(block, names)
    return names


async def test_a_body_of_many_steps_repeats_none_that_was_saved(store_url: str) -> None:
    calls: list[tuple[int, str]] = []
    broken = [True]

    async def answer(messages: list[str], key: str) -> str:
        calls.append((len(messages), key))
        if len(messages) == 3 and broken:
            raise OSError(broken.pop())
        return f"answer {len(messages)}"

    graph = Graph()
    graph.output("messages", graph.add(defined("def agent", answer=answer)["agent"], node_id="a", task="go", turns=4))
    enable = {"checkpoint": {"url": store_url, "explicit": True}}
    with pytest.raises(NodeFailed):
        await WorkflowRunner().run(graph, enable=enable, run_id="r")
    done = await WorkflowRunner().resume("r", graph=graph, enable=enable)
    assert done.outputs == {"messages": [["go", "answer 1", "answer 2", "answer 3", "answer 4"]]}
    assert [turn for turn, _ in calls] == [1, 2, 3, 3, 4]
    assert calls[2] == calls[3], "the step that failed has the same key"
    assert len({key for _, key in calls}) == 4


async def test_a_list_goes_through_lanes_and_comes_out_as_one() -> None:
    async def ask(prompt: str, document: str, key: str) -> str:
        return f"{prompt} {document}"

    graph = Graph()
    summarize = defined("def summarize", ask=ask, graph=Graph(), documents=NodeRef("none"))["summarize"]
    defined("documents = graph.each", summarize=summarize, graph=graph)
    documents = [f"document {number}" for number in range(30)]
    result = await WorkflowRunner().run(graph, {"documents": documents, "prompt": "see"})
    assert result.outputs == {"summaries": [[f"see {document}" for document in documents]]}


@node
async def counts(n: int) -> AsyncIterator[str]:
    for i in range(n):
        yield f"item {i}"


async def test_a_body_of_many_steps_begins_each_task_anew(store_url: str) -> None:
    async def answer(messages: list[str], key: str) -> str:
        return f"{len(messages)} of {messages[0]}"

    graph = Graph()
    agent = defined("def agent", answer=answer)["agent"]
    graph.output("messages", graph.add(agent, task=graph.add(counts, n=2), turns=2))
    done = await WorkflowRunner().run(graph, enable={"checkpoint": {"url": store_url, "explicit": True}})
    assert done.outputs == {"messages": [[f"item {i}", f"1 of item {i}", f"2 of item {i}"] for i in range(2)]}


@pytest.mark.parametrize("items", [0, 1, 2, 3, 6])
async def test_several_calls_at_once_repeat_those_that_were_under_way(items: int, store_url: str) -> None:
    calls: list[tuple[str, str]] = []
    at_once, most = 0, 0
    broken = [True]

    async def fetch(url: str, key: str) -> bytes:
        nonlocal at_once, most
        calls.append((url, key))
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0)
        at_once -= 1
        if url == "item 4" and broken:
            raise OSError(broken.pop())
        return url.encode()

    graph = Graph()
    node_type = defined("def fetch_all", asyncio=asyncio, fetch=fetch)["fetch_all"]
    graph.output("pages", graph.add(node_type, urls=graph.add(counts, n=items), at_once=2))
    enable = {"checkpoint": {"url": store_url, "explicit": True, "on_error": True}}
    if items > 5:
        with pytest.raises(NodeFailed):
            await WorkflowRunner().run(graph, enable=enable, run_id="r")
        done = await WorkflowRunner().resume("r", graph=graph, enable=enable)
    else:
        done = await WorkflowRunner().run(graph, enable=enable, run_id="r")
    assert done.outputs == {"pages": [f"item {i}".encode() for i in range(items)]}
    assert most == min(items, 2)
    assert len(calls) == items + 2 * (items > 5)
    assert len(set(calls)) == len({key for _, key in calls}) == items


async def test_a_call_begins_while_others_are_under_way_and_nothing_else_comes() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def fetch(url: str, key: str) -> bytes:
        begun.set()
        await ended.wait()
        return url.encode()

    @node
    async def pauses() -> AsyncIterator[str]:
        yield "first"
        await begun.wait()
        yield "second"
        ended.set()

    graph = Graph()
    node_type = defined("def fetch_all", asyncio=asyncio, fetch=fetch)["fetch_all"]
    graph.output("pages", graph.add(node_type, urls=graph.add(pauses), at_once=5))
    assert (await WorkflowRunner().run(graph)).outputs == {"pages": [b"first", b"second"]}


class Queue:
    """Gives what was not acknowledged again, and never in the same order."""

    def __init__(self, *texts: str) -> None:
        self.left = list(texts)

    async def receive(self, queue: str) -> AsyncIterator[Any]:
        self.left.reverse()
        for text in list(self.left):
            await asyncio.sleep(0)
            yield SimpleNamespace(text=text, acknowledge=partial(self.left.remove, text))


UNTIL_IT_FAILS: list[int] = []


@node
async def fails_once(text: str) -> str:
    for _ in range(20):  # meanwhile the source has yielded the next message, and waits for room
        await asyncio.sleep(0)
    if UNTIL_IT_FAILS:
        UNTIL_IT_FAILS[0] -= 1
        if UNTIL_IT_FAILS[0] < 0:
            UNTIL_IT_FAILS.clear()
            raise OSError(text)
    return text


@pytest.mark.parametrize("fails_after", range(6))
async def test_a_source_that_acknowledges_loses_no_message(fails_after: int, store_url: str) -> None:
    queue = Queue("a", "b", "c", "d", "e")
    UNTIL_IT_FAILS[:] = [fails_after]
    graph = Graph()
    source = defined("async def messages", receive=queue.receive)["messages"]
    graph.output("texts", graph.add(fails_once, text=graph.add(source, queue="q")))
    enable = {"checkpoint": {"url": store_url, "explicit": True, "on_error": True}}
    if fails_after < 5:
        with pytest.raises(NodeFailed):
            await WorkflowRunner(edge_capacity=1).run(graph, enable=enable, run_id="r")
        done = await WorkflowRunner(edge_capacity=1).resume("r", graph=graph, enable=enable)
    else:
        done = await WorkflowRunner(edge_capacity=1).run(graph, enable=enable, run_id="r")
    assert sorted(set(done.outputs["texts"])) == ["a", "b", "c", "d", "e"]
    assert len(done.outputs["texts"]) <= 5 + 4, "only what was not acknowledged comes twice"
    assert not queue.left


async def test_a_body_finds_its_client_in_a_context_variable() -> None:
    async def tokens_about(topic: str) -> AsyncIterator[str]:
        for token in (topic, " ", "again"):
            yield token

    names = defined("show.get", ContextVar=ContextVar, Callable=Callable, tokens_about=tokens_about)
    shown: list[str] = []
    names["show"].set(shown.append)
    graph = Graph()
    graph.output("text", graph.add(names["write"], topic="rain"))
    assert (await WorkflowRunner().run(graph)).outputs == {"text": ["rain again"]}
    assert shown == ["rain", " ", "again"]


@pytest.mark.parametrize("failures", [0, 2, 3])
async def test_a_step_that_fails_for_good_may_give_a_value(failures: int) -> None:
    keys: list[str] = []

    async def charge(order: int, key: str) -> str:
        keys.append(key)
        if len(keys) <= failures:
            raise OSError("declined")
        return "paid"

    graph = Graph()
    pay = defined("async def pay", charge=charge)["pay"]
    graph.output("paid", graph.add(pay, order=7, failure={"backoff": [0.0]}))
    told = {"receipt": "paid"} if failures < 3 else {"failed": "declined"}
    assert (await WorkflowRunner().run(graph)).outputs == {"paid": [{"order": 7, **told}]}
    assert (len(keys), len(set(keys))) == (min(failures, 2) + 1, 1)


def test_the_tests_of_nodes_pass() -> None:
    names = defined("async def running_total", Node=Node)
    names = defined("def test_running_total", asyncio=asyncio, Graph=Graph, run_workflow=run_workflow, **names)
    names["test_add"]()
    names["test_running_total"]()
