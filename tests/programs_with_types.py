"""Programs of users, looked at by mypy alone (`tox -e type`): each `type: ignore` stands at a use that has to be an error."""

from __future__ import annotations

from dataclasses import field
from typing import Any, assert_type

from hookspecs import CheckpointRef
from workflow_runner import Context, Graph, Node, Stream, ThreadContext, node, resume_workflow, run_workflow


class Page(Node):
    number: int
    title: str = field(repr=False)
    words: list[str] = field(default_factory=list)
    length: int = field(init=False, default=0)

    async def process(self) -> int:
        return self.number


@node
async def count(page: int) -> int:
    return page


def names_are_known() -> None:
    from checkpoint_plugin import CheckpointManger  # type: ignore[attr-defined]  # noqa: F401


def graphs_take_nodes() -> None:
    graph = Graph()
    graph.add(count, page=graph.add(Page, number=graph.input("number", value=1), title="x"))
    graph.add("shop.count", page=graph.input("page"))
    graph.add(3)  # type: ignore[arg-type]
    graph.add(Page(number=1, title="x"))  # type: ignore[arg-type]
    graph.input("number", default=1)  # type: ignore[call-arg]


def classes_of_nodes_are_made_of_their_fields() -> None:
    Page(number=1)  # type: ignore[call-arg]
    Page(number=1, title="x", length=3)  # type: ignore[call-arg]
    Page(1, title="x")  # type: ignore[call-arg]
    Page(number="1", title="x", words=["a"])  # type: ignore[arg-type]


def twins_take_the_arguments_of_the_runner() -> None:
    run_workflow(Graph(), nodes=["nodes.py"], grace_seconds=1, on_failure="fail_fast")
    run_workflow(Graph(), nodse=["nodes.py"])  # type: ignore[call-arg]
    run_workflow(Graph(), grace_seconds="1")  # type: ignore[arg-type]
    resume_workflow("run", on_failure="never")  # type: ignore[arg-type]


async def add_up(items: Stream[float]) -> float:
    return sum([item async for item in items])


async def streams_are_read_only(numbers: Stream[int], texts: Stream[str]) -> None:
    assert_type([number async for number in numbers], list[int])
    await add_up(numbers)
    await add_up(texts)  # type: ignore[arg-type]


@node
def waits(text: str, context: ThreadContext) -> str:
    context.checkpoint("here")
    assert_type(context.checkpoint(), CheckpointRef | None)
    answer: str = context.suspend(f"may {text} be sent?")
    return answer


@node
def reads(a: Stream[int], b: Stream[int], context: ThreadContext) -> None:
    for arrived in context.arrivals(a, b):
        assert_type(arrived, tuple[str, Any])


@node
async def awaits(text: str, context: Context) -> str:
    context.checkpoint("here")  # type: ignore[unused-coroutine]
    assert_type(await context.checkpoint(), CheckpointRef | None)
    answer: str = await context.suspend(f"may {text} be sent?")
    return answer
