"""Documents by column: they equal what they were made of, and what is bent is refused."""

from __future__ import annotations

import copy
import random
import sys
from collections.abc import Callable
from typing import Any

import pytest

from hookspecs import GraphColumns


def document(rng: random.Random) -> dict[str, Any]:
    """Any document of the form that `Graph.to_document` gives."""
    ids = [f"n{number}" for number in range(rng.randrange(1, 30))]
    nodes: list[dict[str, Any]] = []
    for node_id in ids:
        node = {"id": node_id, "type": rng.choice(["a.b", "c", "workflow.Output"]), "data": {}, "sync_mode": "on_any"}
        if rng.random() < 0.3:
            node["data"] = {"x": rng.choice([1, 1.0, True, None, "t", [1, {"y": 2}]])}
        if rng.random() < 0.2:
            node["sync_mode"] = "zip_all"
        if rng.random() < 0.2:
            node["failure"] = {"retries": 2}
        nodes.append(node)
    edges: list[dict[str, Any]] = []
    for number in range(rng.randrange(40)):
        ends = {"source": rng.choice(ids), "sourceHandle": rng.choice("ab")}
        ends |= {"target": rng.choice(ids), "targetHandle": rng.choice("ab")}
        edges.append({**({"id": f"edge {number}"} if rng.random() < 0.4 else {}), **ends})
    return {"nodes": nodes, "edges": edges, **({"on_failure": "fail_fast"} if rng.random() < 0.5 else {})}


def columns(seed: int = 1) -> tuple[dict[str, Any], GraphColumns]:
    whole = document(random.Random(seed))
    found = GraphColumns.of(whole)
    assert found is not None
    return whole, found


@pytest.mark.parametrize("seed", range(40))
def test_it_is_the_document(seed: int) -> None:
    whole, made = columns(seed)
    read = GraphColumns.read(copy.deepcopy(made.stored()))
    for found in (made, read):
        assert found == whole and dict(found) == whole and GraphColumns.of(found) is found
        assert repr(found["nodes"]) == repr(whole["nodes"]), "1, 1.0 and True are three values"
        assert set(found) == set(whole) and len(found) == len(whole)
        assert found["nodes"] is found["nodes"]
    assert read.stored() == made.stored()


@pytest.mark.parametrize("seed", range(40))
def test_parts_of_it(seed: int) -> None:
    whole, found = columns(seed)
    rng = random.Random(seed)
    over = {node["id"] for node in whole["nodes"] if rng.random() < 0.7}
    left = found.left(over)
    assert [found.node(place) for place in left] == [node for node in whole["nodes"] if node["id"] not in over]
    names = {whole["nodes"][place]["id"] for place in left}
    touching = [place for place, edge in enumerate(whole["edges"]) if edge["source"] in names or edge["target"] in names]
    assert found.touching(left) == touching
    assert [found.edge(place) for place in touching] == [whole["edges"][place] for place in touching]
    ends = {whole["edges"][place][end] for place in touching for end in ("source", "target")}
    assert {whole["nodes"][place]["id"] for place in found.ends(touching)} == ends
    some = {"c", "workflow.Output", "unknown"}
    assert [found.node(place) for place in found.of_types(some)] == [node for node in whole["nodes"] if node["type"] in some]
    usual = [
        place
        for place, node in enumerate(whole["nodes"])
        if len(node) == 4 and not node["data"] and node["sync_mode"] == "on_any"
    ]
    assert sorted({*range(len(whole["nodes"]))}.difference(found.told)) == usual
    assert list(found.edge_ids) == [edge["id"] for edge in whole["edges"] if "id" in edge]


def test_what_most_nodes_hold_is_not_stored() -> None:
    nodes = [{"id": f"n{n}", "type": "a", "data": {}, "sync_mode": "on_any"} for n in range(5)]
    found = GraphColumns.of({"nodes": nodes, "edges": []})
    assert found is not None
    assert found.stored()["held"] == [] and found.stored()["types"] == ["a"]


@pytest.mark.parametrize("order", ["little", "big"])
def test_numbers_are_stored_with_the_lowest_byte_first(order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [{"id": f"n{n}", "type": "a", "data": {}, "sync_mode": "on_any"} for n in range(3)]
    edge = {"source": "n1", "sourceHandle": "o", "target": "n2", "targetHandle": "i"}
    found = GraphColumns.of({"nodes": nodes, "edges": [edge]})
    assert found is not None
    natural = sys.byteorder
    monkeypatch.setattr("hookspecs.columns.sys.byteorder", order)
    assert found.stored()["targets"] == (2).to_bytes(4, "little" if order == natural else "big")
    assert GraphColumns.read(found.stored())["edges"] == [edge]


def number(place: int) -> bytes:
    """As a column of places has it."""
    return place.to_bytes(4, "little")


NODE = {"id": "n", "type": "a", "data": {}, "sync_mode": "on_any"}
EDGE = {"source": "n", "sourceHandle": "o", "target": "n", "targetHandle": "i"}


@pytest.mark.parametrize(
    "whole",
    [
        {},
        {"nodes": [NODE]},
        {"nodes": (NODE,), "edges": []},
        {"nodes": ["n"], "edges": []},
        {"nodes": [{"id": "n"}], "edges": []},
        {"nodes": [{**NODE, "id": 1}], "edges": []},
        {"nodes": [NODE], "edges": [{**EDGE, "target": "other"}]},
        {"nodes": [NODE], "edges": [{**EDGE, "color": "red"}]},
        {"nodes": [NODE], "edges": [{**EDGE, "id": None}]},
        {"nodes": [NODE], "edges": [{**EDGE, "source": 1}]},
        {"nodes": [NODE], "edges": [{**EDGE, "target": []}]},
        {"nodes": [NODE], "edges": [{**EDGE, "targetHandle": 1}]},
        {"nodes": [NODE], "edges": [{"source": "n", "target": "n", "targetHandle": "i"}]},
        {"nodes": [NODE], "edges": ["n"]},
    ],
    ids=str,
)
def test_a_document_of_another_form_has_no_columns(whole: dict[str, Any]) -> None:
    assert GraphColumns.of({"nodes": [NODE], "edges": [EDGE]}) is not None
    assert GraphColumns.of(whole) is None


@pytest.mark.parametrize(
    "bend",
    [
        lambda stored: stored.pop("ids"),
        lambda stored: stored.update(more=[]),
        lambda stored: stored.update(other=[]),
        lambda stored: stored.update(ids=tuple(stored["ids"])),
        lambda stored: stored["ids"].append("more"),
        lambda stored: stored["ids"].__setitem__(0, 7),
        lambda stored: stored["types"].clear(),
        lambda stored: stored.update(type_of=list(stored["type_of"])),
        lambda stored: stored.update(type_of=stored["type_of"][:-1]),
        lambda stored: stored.update(type_of=stored["type_of"][4:]),
        lambda stored: stored.update(sources=number(len(stored["ids"])) + stored["sources"][4:]),
        lambda stored: stored.update(targets=number(2**32 - 1) + stored["targets"][4:]),
        lambda stored: stored.update(targets=stored["targets"] + number(0)),
        lambda stored: stored["handles"].__setitem__(0, ["a"]),
        lambda stored: stored["handles"].__setitem__(0, "ab"),
        lambda stored: stored["handles"].__setitem__(0, ["a", 1]),
        lambda stored: stored.update(handles_of=number(len(stored["handles"])) + stored["handles_of"][4:]),
        lambda stored: stored["held"].__setitem__(0, 1),
        lambda stored: stored["held"].pop(),
        lambda stored: stored.update(named_at=number(len(stored["sources"])) + stored["named_at"][4:]),
        lambda stored: stored["names"].__setitem__(0, None),
    ],
)
def test_bent_columns_are_refused(bend: Callable[[dict[str, Any]], object]) -> None:
    stored = copy.deepcopy(columns(3)[1].stored())
    assert stored["held"] and stored["names"], "there is something to bend"
    GraphColumns.read(copy.deepcopy(stored))
    bend(stored)
    with pytest.raises(ValueError, match=r"column|bytes"):
        GraphColumns.read(stored)


@pytest.mark.parametrize("found", [None, [], "columns", {}])
def test_what_is_no_columns_is_refused(found: Any) -> None:
    with pytest.raises(ValueError, match="columns"):
        GraphColumns.read(found)
