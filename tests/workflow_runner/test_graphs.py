"""Graphs from Python and from documents: what is wrong is named, with the nearest right name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from workflow_runner import (
    EdgeSpec,
    Graph,
    GraphInvalid,
    InputInvalid,
    NodeDefinitionError,
    NodeModuleError,
    NodeSpec,
    RunIdInvalid,
    Stream,
    WorkflowRunner,
    node,
)
from workflow_runner.registry import NodeRegistry

HERE = sys.modules[__name__]


@node
async def add(a: float, b: float = 1.0) -> float:
    return a + b


@node
async def collect(rows: list) -> list:  # type: ignore[type-arg]
    return rows


@node
async def read(items: Stream[int]) -> AsyncIterator[int]:
    async for item in items:
        yield item


@node(outputs=("word", "count"))
async def split(text: str) -> dict[str, Any]:
    return {"word": text, "count": len(text)}


def document(*nodes: dict[str, Any], edges: list[dict[str, Any]] | None = None, **more: Any) -> dict[str, Any]:
    named = [{**item, "type": item["type"] if "." in item["type"] else f"{__name__}.{item['type']}"} for item in nodes]
    return {"nodes": named, "edges": edges or [], **more}


A: dict[str, Any] = {"id": "a", "type": "add", "data": {"a": 1}}
B: dict[str, Any] = {"id": "b", "type": "add"}
OUT: dict[str, Any] = {"id": "o", "type": "workflow.Output"}


def edge(source: str, target: str, handle: str, **more: Any) -> dict[str, Any]:
    return {"source": source, "target": target, "targetHandle": handle, **more}


WRONG: dict[str, tuple[Any, str]] = {
    "unknown type": (document({"id": "x", "type": "ad"}), r"node 'x': unknown type '.*\.ad'. Did you mean '.*\.add'"),
    "unknown module": (document({"id": "x", "type": "nowhere.thing"}), "unknown type.*--nodes nowhere; in Python .* graph="),
    "unknown property": (
        document({"id": "x", "type": "split", "data": {"text": "", "txt": 1}}),
        "property 'txt'.*'text'",
    ),
    "wrong property": (
        document({"id": "x", "type": "add", "data": {"a": "1"}}),
        "property 'a': expected float, got '1'",
    ),
    "missing input": (document({"id": "x", "type": "add"}), "node 'x': input 'a' is missing"),
    "missing stream": (document({"id": "x", "type": "read"}), r"node 'x': input 'items' is missing. Connect an edge to it\."),
    "property of a stream": (document({"id": "x", "type": "read", "data": {"items": []}}), "'items' is a stream"),
    "duplicate id": (document(A, {"id": "a", "type": "add"}), r"^node 'a' is there twice[^\n]*$"),
    "edge from nowhere": (document(B, edges=[edge("aa", "b", "a")]), "its source 'aa' is no node"),
    "edge to nowhere": (document(A, edges=[edge("a", "aa", "a", id="e7")]), "edge 'e7': its target 'aa' is no node.*'a'"),
    "unknown output": (
        document(A, B, edges=[edge("a", "b", "a", sourceHandle="outptu")]),
        "'outptu'. Did you mean 'output'",
    ),
    "no single output": (
        document({"id": "s", "type": "split", "data": {"text": ""}}, B, edges=[edge("s", "b", "a")]),
        "no output 'output'.*word, count",
    ),
    "unknown input": (document(A, B, edges=[edge("a", "b", "c")]), "no input 'c'.*Its inputs: a, b"),
    "edge and property": (
        document(A, {**B, "data": {"a": 1}}, edges=[edge("a", "b", "a")]),
        "'a' has both an edge and a property",
    ),
    "two edges": (document(A, B, edges=[edge("a", "b", "a"), edge("a", "b", "a")]), "takes one edge and has 2"),
    "duplicate edge": (
        document(A, B, edges=[edge("a", "b", "a", id="e"), edge("a", "b", "b", id="e")]),
        "edge 'e' is there twice",
    ),
    "cycle": (
        document(B, {**B, "id": "c"}, edges=[edge("b", "c", "a"), edge("c", "b", "a")]),
        "cycle: (b -> c -> b|c -> b -> c)",
    ),
    "sync mode": (document({**A, "sync_mode": "zip"}), "sync_mode 'zip' is unknown"),
    "outputs of one name": (
        document(A, OUT, {**OUT, "id": "p", "data": {"name": "o"}}, edges=[edge("a", "o", "value"), edge("a", "p", "value")]),
        "both named 'o'",
    ),
    "edge into an input": (
        document(A, {"id": "i", "type": "workflow.Input", "data": {"value": 1}}, edges=[edge("a", "i", "value")]),
        "no input 'value'",
    ),
    "output without edge": (document(OUT), r"input 'value' is missing. Connect an edge to it\."),
    "no id": ({"nodes": [{"type": "x.y"}], "edges": []}, r'nodes\[0\]: "id" is text'),
    "empty id": (document({**A, "id": ""}), r'nodes\[0\]: "id" is text and needed, found \'\''),
    "id no text": (document({**A, "id": [1]}), r'nodes\[0\]: "id" is text and needed, found \[1\]'),
    "type no text": ({"nodes": [{"id": "a", "type": {}}]}, "node 'a': \"type\" is text and needed, found {}"),
    "empty source": (document(A, B, edges=[edge("", "b", "a")]), '"source" is text and needed'),
    "empty edge id": (document(A, B, edges=[edge("a", "b", "a", id="")]), r'edges\[0\]: "id" is text'),
    "sync mode no text": (document({**A, "sync_mode": ["zip_all"]}), "sync_mode .* is unknown"),
    "key of a property no text": (
        {"tagged": True, **document({**A, "data": {"$type": "dict", "value": [["a", 1.0], [1, 2]]}})},
        "node 'a': unknown property 1. '.*.add' has: a, b",
    ),
    "no target handle": (document(A, B, edges=[{"source": "a", "target": "b"}]), '"targetHandle" is text'),
    "nodes no list": ({"nodes": {}}, '"nodes" is a list'),
    "tagged as no object": ({"tagged": True, "$type": "set", "value": [1]}, "a graph is an object with nodes and edges, not set"),
    "no object": ([A], "a graph is an object with nodes and edges, not list"),
    "no nodes": ({"edges": []}, 'a graph needs "nodes"'),
    "node no object": ({"nodes": [A, "b"]}, r"nodes\[1\] is an object with id and type, not str"),
    "edge no object": ({"nodes": [A, B], "edges": [["a", "b"]]}, r"edges\[0\] is an object with source, target and .*, not list"),
    "edge id no text": (document(A, B, edges=[edge("a", "b", "a", id=7)]), r'edges\[0\]: "id" is text, found 7'),
    "data no object": (document({**A, "data": [1]}), '"data" is an object'),
    "enable an empty list": ({"nodes": [], "enable": []}, '"enable" is an object'),
    "enable no object": ({"nodes": [], "enable": ["checkpoint"]}, '"enable" is an object'),
}


@pytest.mark.parametrize(("wrong", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_named(wrong: Any, message: str) -> None:
    with pytest.raises(GraphInvalid, match=message):
        WorkflowRunner(nodes=[HERE]).validate(wrong)


class Unshown:
    def __repr__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize("value", [10**5_000, Unshown()], ids=["a number of more digits than are shown", "its repr raises"])
@pytest.mark.parametrize(
    "wrong",
    [
        lambda value: document({**A, "id": value}),
        lambda value: document({**A, "sync_mode": value}),
        lambda value: document({**A, "data": {value: 1}}),
        lambda value: document(A, B, edges=[edge("a", "b", "a", id=value)]),
        lambda value: {**document(A), "on_failure": value},
        lambda value: {**document(A), "tagged": value},
        *(lambda value, name=name: document({**A, "failure": {name: value}}) for name in ("timeout", "replayable", "backoff")),
        lambda value: Graph(nodes=[NodeSpec("a", f"{__name__}.add", sync_mode=value)]),
        lambda value: Graph(nodes=[NodeSpec(value, f"{__name__}.add")]),
    ],
)
def test_what_is_wrong_is_told_though_it_cannot_be_shown(wrong: Callable[[Any], Any], value: Any) -> None:
    with pytest.raises(GraphInvalid, match=r"<\w+, whose repr raises \w+>"):
        WorkflowRunner(nodes=[HERE]).validate(wrong(value))


def test_two_nodes_of_one_name_in_a_graph_are_refused() -> None:
    def named_alike(factor: int) -> Any:
        @node
        async def scaled(x: int) -> int:
            return x * factor

        return scaled

    graph = Graph()
    graph.add(named_alike(1), x=1)
    with pytest.raises(NodeDefinitionError, match=r"two different nodes are named '.*scaled'\. Name one of them"):
        graph.add(named_alike(2), x=1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "the graph is not JSON: Expecting"),
        (
            '{"nodes": [{"id": "x", "type": "t"}], "nodes": []}',
            "the graph is not JSON: the key 'nodes' stands twice in one object",
        ),
    ],
)
def test_a_text_that_is_no_document_is_refused(text: str, message: str) -> None:
    """Of a key that stands twice, the last value was taken without a word: here a graph without nodes, which completes."""
    with pytest.raises(GraphInvalid, match=message):
        Graph.from_json(text)


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(GraphInvalid) as caught:
        WorkflowRunner(nodes=[HERE]).validate(document({"id": "x", "type": "add", "data": {"c": 1}}, {"id": "y", "type": "nope"}))
    assert len(caught.value.problems) == 3
    with pytest.raises(GraphInvalid) as caught:
        WorkflowRunner(nodes=[HERE]).validate(document({"id": "y", "type": "nope"}, B, edges=[edge("y", "b", "a")]))
    assert len(caught.value.problems) == 1, "what is not there is not missing twice"
    assert caught.value.exit_code == 2


def test_cycles_are_told_beside_other_problems_and_each_other() -> None:
    nodes = [{**B, "id": node_id} for node_id in "cdefg"]
    edges = [edge(source, target, "a") for source, target in ("ab", "bc", "cd", "dc", "ef", "fe", "fg", "gg")]
    with pytest.raises(GraphInvalid) as caught:
        WorkflowRunner(nodes=[HERE]).validate(document({"id": "x", "type": "nope"}, A, B, *nodes, edges=edges))
    cycles = [problem.split(": ")[1] for problem in caught.value.problems if "cycle" in problem]
    found = {frozenset(cycle.split(". ")[0].split(" -> ")) for cycle in cycles}
    assert found == {frozenset("cd"), frozenset("ef"), frozenset("g")} and len(cycles) == 3
    assert any("unknown type" in problem for problem in caught.value.problems)


def test_of_many_problems_the_first_are_told() -> None:
    with pytest.raises(GraphInvalid) as caught:
        WorkflowRunner(nodes=[HERE]).validate(document(*({"id": f"n{n}", "type": "nope"} for n in range(1_000))))
    assert len(caught.value.problems) == 1_000
    assert len(str(caught.value).splitlines()) == 21
    assert str(caught.value).endswith("… and 980 more. Mend these first.")


def test_the_nearest_names_of_many_wrong_ones_are_not_all_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []

    def look(name: str, known: list[str], n: int) -> list[str]:
        compared.append(len(known))
        return [known[0]]

    monkeypatch.setattr("workflow_runner.planning.get_close_matches", look)
    nodes = [{"id": f"n{i}", "type": "add", "data": {"a": 1}} for i in range(3000)]
    edges = [{"source": f"n{i}", "target": f"m{i}", "targetHandle": "b"} for i in range(3000)]
    with pytest.raises(GraphInvalid) as caught:
        WorkflowRunner(nodes=[HERE]).validate(document(*nodes, edges=edges))
    assert len(caught.value.problems) == 3000
    assert caught.value.problems[0].endswith("Did you mean 'n0'?")
    assert caught.value.problems[-1].endswith("'m2999' is no node of the graph.")
    assert sum(compared) < 20_000


async def test_what_editors_add_is_ignored() -> None:
    made = document(
        {**A, "ui_properties": {"x": 1}, "parent_id": "p"},
        OUT,
        {"id": "c", "type": "workflow.Comment", "data": {"anything": [1]}},
        {"id": "v", "type": "workflow.Preview", "data": {"note": 1}},
        edges=[edge("a", "o", "value", ui_properties={}), edge("a", "v", "value")],
        name="mine",
    )
    assert (await WorkflowRunner(nodes=[HERE]).run(made)).outputs == {"o": [2.0]}


async def test_what_editors_leave_empty_is_as_if_it_were_left_out() -> None:
    empty: dict[str, Any] = {"failure": None, "sync_mode": None}
    made = document({**A, **empty}, {**OUT, **empty, "data": None}, edges=[edge("a", "o", "value", id=None, sourceHandle=None)])
    assert (await WorkflowRunner(nodes=[HERE]).run({**made, "enable": None, "on_failure": None})).outputs == {"o": [2.0]}


async def test_a_document_round_trips() -> None:
    graph = Graph(enable={})
    one = graph.add(add, a=1.0)
    graph.output("rows", graph.add(collect, rows=[one, graph.add(add, a=one)]))
    copy = Graph.from_tagged_json(graph.to_json())
    assert copy.to_document() == graph.to_document()
    assert not graph.differences(copy)
    found = await WorkflowRunner(nodes=[HERE]).run(copy)
    assert found.outputs == {"rows": [[2.0, 3.0]]}


@node
async def given(value: object, moment: datetime | None = None) -> list[object]:
    return [value, moment]


@pytest.mark.parametrize(
    "value", [{1, 2}, (1, 2), b"bytes", float("inf"), {1: "one"}, {"$type": "set", "value": [1]}, [1, "plain"]]
)
async def test_a_graph_that_is_written_as_text_has_its_values_when_it_is_run(value: object) -> None:
    """What JSON lacks arrived as the mapping that it was written as, without a word."""
    graph, moment = Graph(enable={"checkpoint": {"before": ("a",)}}), datetime(2027, 1, 1, tzinfo=UTC)
    graph.output("o", graph.add(given, value=value, moment=moment))
    written = graph.to_json()
    for copy in (Graph.from_json(written), Graph.from_tagged_json(written), Graph.from_document(json.loads(written))):
        assert copy.enable == graph.enable
        assert (await WorkflowRunner(nodes=[HERE]).run(copy, enable={"checkpoint": False})).outputs == {"o": [[value, moment]]}


def test_a_document_of_plain_values_says_nothing_of_tags_and_one_without_the_word_is_taken_as_it_stands() -> None:
    assert "tagged" not in json.loads(Graph.from_document(document(A, OUT)).to_json())
    looks_tagged = {"$type": "set", "value": [1]}
    made = document({"id": "x", "type": "given", "data": {"value": looks_tagged}}, tagged=False)
    assert Graph.from_json(json.dumps(made)).nodes[0].data == {"value": looks_tagged}


def test_tags_that_are_none_are_told_by_place() -> None:
    wrong = document({"id": "x", "type": "given", "data": {"value": {"$type": "nonsense"}}})
    with pytest.raises(GraphInvalid, match=r"'nodes'\]\[0\]\['data'\]\['value'\].*'nonsense' is unknown"):
        Graph.from_document({**wrong, "tagged": True})
    with pytest.raises(GraphInvalid, match="\"tagged\" is true or false, not 'yes'"):
        Graph.from_document({**wrong, "tagged": "yes"})


def test_differences_are_told_by_line() -> None:
    before = Graph.from_document(document(A, B, edges=[edge("a", "b", "a")]))
    after = Graph.from_document(
        document({**A, "data": {"a": 2}}, {**B, "id": "c", "sync_mode": "zip_all"}, edges=[edge("a", "c", "b")])
    )
    text = "\n".join(before.differences(after))
    for part in ("node 'b' is gone", "node 'c' is new", "property 'a' was 1 and is 2", "edges into b.a", "edges into c.b"):
        assert part in text
    assert before.differences(Graph.from_document(document({**A, "data": {"a": True}}, B, edges=[edge("a", "b", "a")])))
    other = Graph.from_document(document(A, {**B, "type": "more", "sync_mode": "zip_all"}, edges=[edge("a", "b", "a")]))
    assert before.differences(other) == [
        f"node 'b': type '{__name__}.add' became '{__name__}.more'",
        "node 'b': sync_mode 'on_any' became 'zip_all'",
    ]


def test_keys_and_their_order_in_a_property_are_no_difference_by_themselves() -> None:
    def tagged(first: str, second: str) -> Graph:
        data = f'{{"$type": "dict", "value": [[1, 2], ["value", {{"{first}": 1, "{second}": 1}}]]}}'
        return Graph.from_tagged_json(f'{{"nodes": [{{"id": "n", "type": "given", "data": {data}}}]}}')

    assert not tagged("a", "b").differences(tagged("b", "a"))
    assert tagged("a", "b").differences(tagged("a", "c"))


def test_a_list_is_one_of_outputs_or_of_values() -> None:
    graph = Graph()
    source = graph.add(add, a=1.0)
    with pytest.raises(GraphInvalid, match="handle 'rows': outputs of nodes stand beside other values"):
        graph.add(collect, rows=[source, 2.0])
    assert [node.id for node in graph.nodes] == ["add"]
    assert not graph.edges


@pytest.mark.parametrize("use", [lambda ref: list(ref), lambda ref: "word" in ref, lambda ref: dict([ref])])
def test_a_node_is_no_list_of_its_outputs(use: Callable[[Any], object]) -> None:
    with pytest.raises(TypeError):
        use(Graph().add(split, text="a"))


@pytest.mark.parametrize("nest", [lambda one: {"k": one}, lambda one: [[one]], lambda one: [1, {"k": (one,)}]])
def test_an_output_inside_a_value_is_refused(nest: Callable[[Any], Any]) -> None:
    graph = Graph()
    source = graph.add(split, text="a")
    for output in (source, source["word"]):
        with pytest.raises(GraphInvalid, match="node 'collect', handle 'rows': outputs of nodes stand inside a value"):
            graph.add(collect, rows=nest(output))
    assert [node.id for node in graph.nodes] == ["split"]


def test_a_property_may_hold_itself() -> None:
    value: list[object] = [1]
    value.append(value)
    graph = Graph()
    graph.add("workflow.Preview", "seen", value=value)
    assert graph.nodes[0].data["value"] is value


def test_parts_of_a_property_that_hold_one_another_are_looked_through_once() -> None:
    tree: dict[str, Any] = {"children": []}
    tree["children"] += [{"parent": tree}, {"parent": tree}]
    graph = Graph()
    graph.add("workflow.Preview", "seen", value=tree)  # else this takes years
    assert graph.nodes[0].data["value"] is tree
    tree["children"].append(graph.input("x"))
    with pytest.raises(GraphInvalid, match="stand inside a value"):
        graph.add("workflow.Preview", "other", value=tree)


def test_an_edge_from_another_node_differs_whatever_the_ids_are() -> None:
    graphs = [Graph(edges=[EdgeSpec(source, handle, "b", "a")]) for source, handle in (("a", "x.y"), ("a.x", "y"))]
    assert graphs[0].differences(graphs[1])


@dataclass
class Price:
    amount: float


@node
async def pay(price: Price, more: list) -> None: ...  # type: ignore[type-arg]


@pytest.mark.parametrize(
    ("price", "more", "name"),
    [(1.0, True, None), (2.0, True, "price"), (1.0, 1, "more")],
)
def test_properties_of_any_type_are_compared(price: float, more: object, name: str | None) -> None:
    def paid(price: float, more: object) -> Graph:
        graph = Graph()
        graph.add(pay, price=Price(price), more=[Price(0.0), {"x": more}])
        return graph

    lines = paid(1.0, True).differences(paid(price, more))
    assert not lines if name is None else [f"property {name!r}" in line for line in lines] == [True]


TABLES: Mapping[str, tuple[str, Callable[[Any, int], Any]]] = {
    "array": ("numpy", lambda numpy, more: numpy.array([numpy.nan, more])),
    "arrays of another type": ("numpy", lambda numpy, more: numpy.array([2], "u4" if more else "i4")),
    "arrays of another shape": ("numpy", lambda numpy, more: numpy.zeros((2, 2) if more else 4)),
    "a longer list": ("numpy", lambda numpy, more: [numpy.array([1])] * (1 + more)),
    "a shorter list": ("numpy", lambda numpy, more: [numpy.array([1])] * (2 - more)),
    "a key more": ("numpy", lambda numpy, more: {"a": numpy.array([1]), **({"b": None} if more else {})}),
    "a key less": ("numpy", lambda numpy, more: {"a": numpy.array([1]), **({} if more else {"b": None})}),
    "another type": ("numpy", lambda numpy, more: [numpy.array([1])] if more else (numpy.array([1]),)),
    "records": ("numpy", lambda numpy, more: numpy.array([(numpy.nan, more)], [("a", "f8"), ("b", "i8")])),
    "number": ("numpy", lambda numpy, more: numpy.float32(2 if more else "nan")),
    "frame": ("pandas", lambda pandas, more: pandas.DataFrame({"a": [1, None], "b": ["x", more]})),
    "series": ("pandas", lambda pandas, more: pandas.Series([pandas.NA, more], dtype="Int64")),
    "missing": ("pandas", lambda pandas, more: pandas.NaT if more else pandas.NA),
    "table": ("pyarrow", lambda pyarrow, more: pyarrow.table({"a": [1, more]})),
    "inside": ("numpy", lambda numpy, more: {"k": [numpy.array([1, 2]), (numpy.array([more]),)]}),
}


@pytest.mark.parametrize("name", TABLES)
def test_properties_that_are_arrays_or_tables_are_compared(name: str) -> None:
    library, make = TABLES[name]
    module = pytest.importorskip(library)

    def seen(more: int) -> Graph:
        graph = Graph()
        graph.add("workflow.Preview", "seen", value=make(module, more))
        return graph

    assert not seen(0).differences(seen(0))
    assert seen(1).differences(seen(0))


async def test_inputs() -> None:
    graph = Graph()
    graph.output("x", graph.input("x"))
    graph.output("y", graph.input("y", value=5))
    runner = WorkflowRunner()
    assert (await runner.run(graph, {"x": None})).outputs == {"x": [None], "y": [5]}
    with pytest.raises(InputInvalid, match=r"no input 'z'\. Its inputs: x, y"):
        await runner.run(graph, {"x": 1, "z": 1})
    with pytest.raises(InputInvalid, match="'x' is missing"):
        await runner.run(graph, {})


async def test_an_input_keeps_its_name_where_a_node_has_it_as_its_id() -> None:
    graph = Graph()
    graph.add(add, node_id="n", a=1.0)
    graph.output("out", graph.input("n"))
    assert (await WorkflowRunner().run(graph, {"n": 5})).outputs == {"out": [5]}


@pytest.mark.parametrize(
    "run_id", ["", "x" * 201, "a/b", ".", "..", "a\nb", "a\0", "\x7f", "\ud800", 5, pytest.param(10**5_000, id="long")]
)
async def test_run_ids_have_a_rule(run_id: Any) -> None:
    with pytest.raises(RunIdInvalid):
        await WorkflowRunner().run(Graph(), run_id=run_id)


async def test_run_ids_are_uuid7_unless_given() -> None:
    runner = WorkflowRunner()
    first, second = (await runner.run(Graph())).run_id, (await runner.run(Graph())).run_id
    assert first[14] == second[14] == "7"
    assert first != second
    assert (await runner.run(Graph(), run_id="Ünï 'quoted' 100%")).run_id == "Ünï 'quoted' 100%"


# Modules of node types.

MODULE = """
from __future__ import annotations
from dataclasses import dataclass
from workflow_runner import node

@dataclass
class Row:
    x: int

@node
async def one() -> int:
    return 1

again = one
"""


async def test_a_file_is_named_by_its_stem(tmp_path: Path) -> None:
    path = tmp_path / "my_nodes.py"
    path.write_text(MODULE)
    made = {"nodes": [{"id": "x", "type": "my_nodes.one"}, OUT], "edges": [edge("x", "o", "value")]}
    before = list(sys.path)
    assert (await WorkflowRunner(nodes=[path]).run(made)).outputs == {"o": [1]}
    assert (await WorkflowRunner(nodes=[str(path)]).run(made)).outputs == {"o": [1]}
    assert sys.path == before
    assert "my_nodes" not in sys.modules


async def test_a_graph_that_is_made_in_a_file_of_nodes_names_its_types_as_any_other(tmp_path: Path) -> None:
    path = tmp_path / "my_nodes.py"
    path.write_text(
        "from workflow_runner import Graph, node\n"
        "@node\nasync def one() -> int: return 1\n"
        "@node\nasync def child() -> dict:\n    graph = Graph()\n    graph.add(one)\n    return graph.to_document()\n"
    )
    made = {"nodes": [{"id": "x", "type": "my_nodes.child"}, OUT], "edges": [edge("x", "o", "value")]}
    [child] = (await WorkflowRunner(nodes=[path]).run(made)).outputs["o"]
    assert [item["type"] for item in child["nodes"]] == ["my_nodes.one"]


PROGRAM = """
import multiprocessing, sys
from workflow_runner import Graph, node

@node
async def one() -> int: return 1

def types():
    graph = Graph()
    graph.add(one)
    return [item.type for item in graph.nodes]

if __name__ == "__main__":
    if "spawn" in sys.argv:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            print(pool.apply(types))
    else:
        print(types())
"""


@pytest.mark.parametrize("worker", [[], ["spawn"]], ids=["itself", "spawned"])
@pytest.mark.parametrize(("started", "name"), [(["shop/flow.py"], "flow.one"), (["-m", "shop.flow"], "shop.flow.one")])
def test_types_of_a_program_are_named_as_where_it_is_imported(
    tmp_path: Path, started: list[str], name: str, worker: list[str]
) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "flow.py").write_text(PROGRAM)
    done = subprocess.run([sys.executable, *started, *worker], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == f"['{name}']\n"


def test_a_file_may_lie_in_a_folder_whose_name_is_no_text(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"a\xff")
    try:
        folder.mkdir()
    except OSError:  # a file system that takes names of another kind only
        pytest.skip("no folder can have such a name here")
    (folder / "odd.py").write_text("from workflow_runner import node\n@node\nasync def one() -> int: return 1\n")
    assert NodeRegistry([folder / "odd.py"]).find("odd.one") is not None


def test_a_file_is_loaded_once_for_all_threads(tmp_path: Path) -> None:
    path = tmp_path / "slow.py"
    path.write_text(MODULE.replace("@dataclass", "import time; time.sleep(0.1)\n\n@dataclass"), encoding="utf-8")
    document = {"nodes": [{"id": "a", "type": "slow.one"}], "edges": []}
    runner = WorkflowRunner(nodes=[path])
    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(runner.validate, document) for _ in range(4)]:
            done.result()


def test_modules_that_cannot_be_loaded_are_named(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for folder in ("a", "b"):
        (tmp_path / folder / "same.py").write_text(MODULE)
    broken = tmp_path / "broken.py"
    broken.write_text("1/0")
    script = tmp_path / "script.py"
    script.write_text("raise SystemExit(3)")
    skipped = tmp_path / "skipped.py"
    skipped.write_text("import pytest\npytest.skip('not here', allow_module_level=True)")  # what it raises is no Exception
    mute = tmp_path / "mute.py"
    mute.write_text("class Mute(Exception):\n    def __str__(self):\n        raise RuntimeError\nraise Mute")
    gone = tmp_path / "gone.py"
    gone.write_text("import sys\ndel sys.modules[__name__]\n1/0")
    asks = tmp_path / "asks.py"
    asks.write_text("import beside")
    (tmp_path / "beside.py").touch()
    for sources, message in (
        ([tmp_path / "a" / "same.py", tmp_path / "b" / "same.py"], "two node modules are named 'same'"),
        ([broken], "broken.py.*ZeroDivisionError"),
        ([script], "script.py.*SystemExit: 3"),
        ([script], "script.py.*SystemExit: 3"),
        ([skipped], "skipped.py.*Skipped: not here"),
        ([mute], r"mute.py.*Mute: \(its text cannot be had: RuntimeError\)"),
        ([gone], "gone.py.*ZeroDivisionError"),
        ([tmp_path / "none.py"], r"no node file .*Check the path\."),
        ([tmp_path / f"{'n' * 300}.py"], r"node file .* cannot be read: File name too long\. Check the path\."),
        (["no_such_module_at_all"], "no module 'no_such_module_at_all'"),
        ([""], "'' is neither a file of nodes nor the dotted name of a module. Give one like "),
        ([".nodes"], "'.nodes' is neither a file of nodes nor"),
        (["no_such.nodes"], r"no module 'no_such\.nodes' on .* with PYTHONPATH; .* --nodes path/to/no_such/nodes\.py"),
        ([asks], r"No module named 'beside'\. Install it, or name the folder it is in with PYTHONPATH: "),
        ([broken], r"ZeroDivisionError: division by zero\. Mend it where that was raised\."),
    ):
        with pytest.raises(NodeModuleError, match=message):
            WorkflowRunner(nodes=sources).validate(Graph([], []).to_document() | {"nodes": [{"id": "x", "type": "same.one"}]})


def test_what_a_module_needs_and_lacks_is_not_told_as_the_module_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "absent_library_nodes.py").write_text("import absent_library\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(NodeModuleError, match=r"'absent_library_nodes' cannot be imported: No module named 'absent_library'\. "):
        WorkflowRunner(nodes=["absent_library_nodes"]).validate({"nodes": [{"id": "x", "type": "y"}]})


def test_a_file_that_was_interrupted_while_it_was_loaded_is_loaded_again(tmp_path: Path) -> None:
    file = tmp_path / "interrupted.py"
    file.write_text("raise KeyboardInterrupt\n")
    runner, document = WorkflowRunner(nodes=[file]), {"nodes": [{"id": "x", "type": "interrupted.one"}]}
    with pytest.raises(KeyboardInterrupt):
        runner.validate(document)
    file.write_text(MODULE)
    runner.validate(document)


def test_an_object_that_stands_for_another_which_cannot_be_had_is_no_node(tmp_path: Path) -> None:
    file = tmp_path / "lazy.py"
    proxy = "class Proxy:\n    @property\n    def __class__(self):\n        raise RuntimeError('not configured')\n"
    file.write_text(f"{MODULE}\n{proxy}\nsettings = Proxy()\n")
    WorkflowRunner(nodes=[file]).validate({"nodes": [{"id": "x", "type": "lazy.one"}]})


def test_a_text_that_is_nested_too_deeply_is_no_graph() -> None:
    with pytest.raises(GraphInvalid, match="nested too deeply"):
        Graph.from_json("[" * 100_000)
    with pytest.raises(ValueError, match="not JSON"):
        Graph.from_tagged_json("[" * 100_000)


def test_a_document_never_imports_what_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "evil_nodes.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(GraphInvalid, match="unknown type"):
        WorkflowRunner().validate({"nodes": [{"id": "x", "type": "evil_nodes.one"}]})
    assert "evil_nodes" not in sys.modules


@pytest.mark.parametrize(
    ("nodes", "edges", "options", "message"),
    [
        ([NodeSpec("a", "workflow.Preview", sync_mode="zip")], [], {}, "node 'a': sync_mode 'zip' is unknown"),  # type: ignore[arg-type]
        ([NodeSpec("", "workflow.Preview")], [], {}, "a node has the id ''"),
        ([NodeSpec(7, "workflow.Preview")], [], {}, "a node has the id 7"),  # type: ignore[arg-type]
        ([], [], {"on_failure": "finish_all"}, "\"on_failure\" is one of fail_fast, finish_independent, not 'finish_all'"),
        (
            [NodeSpec("a", "workflow.Input", {"value": 1}), NodeSpec("b", "workflow.Output")],
            [EdgeSpec("a", "output", "b", "value", "")],
            {},
            "edge 0 has the id ''",
        ),
    ],
)
def test_a_graph_that_was_built_in_python_is_checked_as_its_document(
    nodes: list[NodeSpec], edges: list[EdgeSpec], options: Any, message: str
) -> None:
    with pytest.raises(GraphInvalid) as caught:
        WorkflowRunner().validate(Graph(nodes, edges, **options))
    assert message in str(caught.value)


def test_ids_of_many_nodes_of_one_function_are_found_at_once() -> None:
    graph = Graph([NodeSpec("first_3", "x")])
    graph.nodes.append(NodeSpec("first", "x"))
    looked: list[str] = []

    class Counted(set[str]):
        def __contains__(self, item: object) -> bool:
            looked.append(str(item))
            return super().__contains__(item)

    assert [graph.add("m.first").node_id for _ in range(3)] == ["first_2", "first_4", "first_5"]
    graph._taken = Counted(graph._taken)
    for number in range(200):
        assert graph.add("m.first").node_id == f"first_{number + 6}"
    assert len(looked) < 1_000


def test_an_output_in_the_place_of_an_id_is_told_that_inputs_have_names() -> None:
    graph = Graph()
    first = graph.add(add, a=1)
    for output in (first, first["output"]):
        with pytest.raises(GraphInvalid, match="Say by name which input"):
            graph.add(add, output)  # type: ignore[arg-type]
