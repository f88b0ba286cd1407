"""How bodies are called: with an argument alone, by name, beside properties and defaults."""

from __future__ import annotations

from typing import Any

import pytest

from workflow_runner import Context, Graph, WorkflowRunner, node


@node
async def alone(x: float) -> Any:
    return ("alone", x)


@node
async def by_name_only(*, x: float) -> Any:
    return ("by_name_only", x)


@node
async def second(a: int = 3, x: float = 4.0) -> Any:
    return ("second", a, x)


@node
async def only_second(a: Any, x: float) -> Any:
    return ("only_second", a, x)


@node
async def with_context(context: Context, x: float) -> Any:
    return ("with_context", context.node_id, x)


@node
async def untyped(x):  # type: ignore[no-untyped-def]
    return ("untyped", x)


@pytest.mark.parametrize(
    ("body", "properties", "found"),
    [
        (alone, {}, ("alone", 5.0)),
        (by_name_only, {}, ("by_name_only", 5.0)),
        (second, {}, ("second", 3, 5.0)),
        (only_second, {"a": None}, ("only_second", None, 5.0)),
        (with_context, {}, ("with_context", "n", 5.0)),
        (untyped, {}, ("untyped", 5)),
    ],
)
async def test_an_argument_reaches_its_parameter(body: Any, properties: dict[str, Any], found: Any) -> None:
    graph = Graph()
    graph.output("end", graph.add(body, node_id="n", x=graph.input("given", value=5), **properties))
    (value,) = (await WorkflowRunner().run(graph)).outputs["end"]
    assert value == found
    assert [type(part) for part in value] == [type(part) for part in found]
