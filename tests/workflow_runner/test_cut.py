"""What a cut hands to hooks is what they are promised: frozen `NodeSnapshot`s, equal to ones made by hand."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, replace

import pytest

from hookspecs import NodeSnapshot
from tests.workflow_runner.test_runs import Saving, hosted
from workflow_runner import Context, Graph, node


@node
async def asks(x: int, context: Context) -> int:
    await context.checkpoint()
    return x


async def test_captured_nodes_are_frozen_snapshots_like_those_made_by_hand() -> None:
    saving = Saving()
    graph = Graph()
    graph.add(asks, node_id="a", x=4)
    await hosted(saving).run(graph, run_id="r")
    first, *_ = [snapshot.nodes for _, snapshot in saving.cuts if snapshot.nodes]
    (captured,) = [each for each in first if each.node_id == "a"]
    by_hand = NodeSnapshot(**{item.name: getattr(captured, item.name) for item in fields(NodeSnapshot)})
    assert type(captured) is NodeSnapshot
    assert captured == by_hand
    assert replace(captured, attempt=7).attempt == 7
    with pytest.raises(FrozenInstanceError):
        captured.attempt = 2  # type: ignore[misc]
