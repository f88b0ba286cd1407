"""Values of a document on their way to a body: what already fits is taken as pydantic would take it, without pydantic."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Optional

import pytest
from pydantic import BaseModel, Field, StringConstraints, TypeAdapter, ValidationError

from workflow_runner.handle import Handle
from workflow_runner.properties import MANY, PropertyInvalid, convert_property


class Settings(BaseModel):
    a: int = 7


VALUES: list[Any] = [
    None,
    0,
    3,
    True,
    1.5,
    "",
    "3",
    "a",
    [],
    {},
    [1, 2],
    [1, True],
    [1, 2.5],
    ["a", "b"],
    [[1], [2, 3]],
    [{"a": 1}, {}],
    [None, 1],
    {"a": 1},
    {"a": True},
    {"a": [1, None]},
    {"a": {"b": "c"}},
    {"a": "b", "c": 1},
    list(range(MANY + 1)),
]
ANNOTATIONS: list[Any] = [
    Any,
    None,
    int,
    float,
    bool,
    str,
    list,
    dict,
    object,
    list[int],
    list[float],
    list[Any],
    list[list[int]],
    list[dict[str, int]],
    list[int | None],
    dict[str, int],
    dict[str, Any],
    dict[str, list[int | None]],
    dict[str, dict[str, str]],
    dict[str, int | str],
    int | str,
    str | int | None,
    Optional[list[int]],  # noqa: UP045 - another origin
    list[int] | dict[str, int],
    float | int | None,
    Settings | dict[str, Any],
    dict[str, Any] | Settings | None,
    list[Settings | dict[str, Any]],
    Annotated[str, StringConstraints(to_upper=True)] | str,
    int | Any,
    list[Any] | list[int],
    Annotated[int, Field(gt=1)],
    list[Annotated[int, Field(gt=1)]],
    Literal["3", 3],
    Sequence[int],
    tuple[int, ...],
    set[int],
]


def expected(annotation: Any, value: Any) -> Any:
    """As pydantic has it: as a value of Python, or else as one of JSON."""
    adapter = TypeAdapter(annotation)
    try:
        return adapter.validate_python(value, strict=True)
    except ValidationError:
        return adapter.validate_json(TypeAdapter(Any).dump_json(value), strict=True)


def shape(value: Any) -> Any:
    """A value with the types of all that it holds: 1, 1.0 and True are equal."""
    if isinstance(value, dict):
        return type(value), [(shape(key), shape(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return type(value), list(map(shape, value))
    return type(value), value


@pytest.mark.parametrize("annotation", ANNOTATIONS, ids=str)
def test_what_fits_is_what_pydantic_makes_of_it(annotation: Any) -> None:
    handle = Handle("x", annotation, stream=False)
    for value in VALUES:
        try:
            wanted = expected(annotation, value)
        except ValidationError:
            with pytest.raises(PropertyInvalid):
                convert_property(handle, value)
            continue
        found = convert_property(handle, value)
        assert shape(found) == shape(wanted), (annotation, value)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (list[list[int]], [[1]]),
        (dict[str, list[int]], {"a": [1]}),
        (dict[str, Any] | dict[str, list[int]], {"a": [1]}),
        (Any | list[list[int]], [[1]]),
        (list, [1]),
    ],
)
def test_what_a_body_changes_is_not_the_graph(annotation: Any, value: Any) -> None:
    found = convert_property(Handle("x", annotation, stream=False), value)
    assert found == value
    assert found is not value
    if annotation is not list:
        (inner,) = found.values() if isinstance(found, dict) else found
        assert inner is not (value["a"] if isinstance(value, dict) else value[0])


PROGRAM = """
import sys
from workflow_runner import Graph, node, run_workflow

@node
def work(texts: list[str], options: dict[str, int | None], limit: float | None = None) -> int:
    return len(texts) + len(options)

graph = Graph()
graph.output("end", graph.add(work, texts=["a", "b"], options={"c": 1, "d": None}, limit=1.5))
print(run_workflow(graph).outputs, "pydantic" in sys.modules)
"""


def test_a_graph_whose_values_fit_needs_no_pydantic() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "{'end': [4]} False\n", done.stderr
