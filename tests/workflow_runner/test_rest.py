"""What is left of a graph: the same nodes and edges, under the same names, from a document and from its columns."""

from __future__ import annotations

import random
from typing import Any

import pytest

from hookspecs import GraphColumns, name_edge
from workflow_runner import Graph
from workflow_runner.rest import NAMED, rest_of


def document(rng: random.Random) -> dict[str, Any]:
    """A chain with branches; a few edges have ids, one of them that of another's place."""
    kinds = ["a", "b", *sorted(NAMED)]
    nodes = [{"id": f"n{n}", "type": rng.choice(kinds), "data": {}, "sync_mode": "on_any"} for n in range(30)]
    edges: list[dict[str, Any]] = []
    for target in range(1, 30):
        for source in {target - 1, rng.randrange(target)}:
            ends = {"source": f"n{source}", "sourceHandle": "o", "target": f"n{target}", "targetHandle": "i"}
            edges.append({**({"id": f"e{len(edges) + 1}"} if rng.random() < 0.2 else {}), **ends})
    return {"nodes": nodes, "edges": edges}


@pytest.mark.parametrize("seed", range(20))
def test_what_is_left(seed: int) -> None:
    rng = random.Random(seed)
    whole = document(rng)
    over = {node["id"] for node in whole["nodes"] if rng.random() < 0.8}
    columns = GraphColumns.of(whole)
    assert columns is not None
    rest = rest_of(whole, over)
    assert rest.to_document() == rest_of(columns, over).to_document()

    taken = {edge["id"] for edge in whole["edges"] if "id" in edge}
    named = [{"id": name_edge(place, taken), **edge} for place, edge in enumerate(whole["edges"])]
    edges = [edge for edge in named if not {edge["source"], edge["target"]} <= over]
    ends = {edge[end] for edge in edges for end in ("source", "target")}
    nodes = [node for node in whole["nodes"] if node["id"] not in over or node["id"] in ends or node["type"] in NAMED]
    assert rest.to_document() == {"nodes": nodes, "edges": edges}


def test_a_document_of_another_form_is_planned_whole() -> None:
    whole = document(random.Random(1))
    whole["edges"][0]["color"] = "red"
    assert GraphColumns.of(whole) is None
    assert rest_of(whole, {"n0", "n1"}).to_document() == Graph.from_document(whole).to_document()
