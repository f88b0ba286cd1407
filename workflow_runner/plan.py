"""A plan: a graph whose every name is resolved and whose every rule holds, ready to be run any number of times."""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from workflow_runner.aligner import SyncMode, Values
from workflow_runner.checker import Checker
from workflow_runner.errors import InputInvalid
from workflow_runner.failure import NO_POLICY, FailurePolicy
from workflow_runner.graph import Graph
from workflow_runner.nodetype import NodeType
from workflow_runner.shell import shell_word

__all__ = ["Drive", "Plan", "PlannedEdge", "PlannedNode"]

Drive = Literal["sink", "each", "collect", "spread", "gather", "streaming", "plain", "firing"]
"""How a node is driven: it has no body and takes or moves items, reads streams, has a coroutine that one edge feeds, or is
another that fires."""


@dataclass(slots=True, eq=False)
class PlannedEdge:
    """An edge between two planned nodes."""

    edge_id: str
    source: PlannedNode
    source_handle: str
    target: PlannedNode
    target_handle: str


@dataclass(slots=True, eq=False)
class PlannedNode:
    """A node with everything that can be decided before it runs.

    Args:
        node_id: in the graph.
        place: its place among the nodes of the graph.
        type: its type.
        sync_mode: how the items of several edges make a firing.
        constants: properties and defaults by handle, converted.
        in_edges: grouped by handle, within a handle in the order of the graph.
        out_edges: in the order of the graph.
        slots: the handle of each incoming edge.
        checks: the check of each handle, where there is one.
        lists: list handles with several edges.
        failure: what happens when it fails.
        drive: how it is driven.
        lane_of: the node of which it is a lane.
    """

    node_id: str
    place: int
    type: NodeType
    sync_mode: SyncMode
    constants: Mapping[str, Any]
    checks: Mapping[str, Checker]
    in_edges: list[PlannedEdge] = field(default_factory=list)
    out_edges: list[PlannedEdge] = field(default_factory=list)
    slots: tuple[str, ...] = ()
    lists: frozenset[str] = frozenset()
    failure: FailurePolicy = NO_POLICY
    drive: Drive = "firing"
    lane_of: str | None = None

    @property
    def reads_at_once(self) -> bool:
        """Whether it is a streaming node with nothing to wait for before its body starts."""
        return self.type.streams and all(self.type.handles[edge.target_handle].stream for edge in self.in_edges)

    def exact(self, handle: str) -> builtins.type | None:
        """A class whose own instances need no check at a handle."""
        return self.type.handles[handle].exact if self.checks is self.type.checks else None

    def name_values(self, values: Values) -> dict[str, Any]:
        """One value of each edge as arguments by handle; those of streams are left out."""
        if len(values) == 1 and not self.type.streams:
            return {self.slots[0]: values[0]}
        if not self.lists and not self.type.streams:
            return dict(zip(self.slots, values, strict=True))
        named: dict[str, Any] = {}
        for slot, value in zip(self.slots, values, strict=True):
            if self.type.handles[slot].stream:
                continue
            if slot in self.lists:
                named.setdefault(slot, []).append(value)
            else:
                named[slot] = value
        return named


@dataclass(slots=True, eq=False)
class Plan:
    """A graph ready to run.

    Args:
        graph: what it was made from.
        nodes: by id, in the order of the graph; comments are left out.
        edges: in the order of the graph.
        inputs: input nodes by the name of their input.
        outputs: output nodes by the name of their output.
        over: nodes of which only what touches the others is planned, and nothing must be needed any more.
        unfit: why a default cannot be taken, by the id of its input node.
    """

    graph: Graph
    nodes: dict[str, PlannedNode]
    edges: list[PlannedEdge]
    inputs: dict[str, list[PlannedNode]]
    outputs: dict[str, PlannedNode]
    over: Set[str] = frozenset()
    unfit: Mapping[str, str] = field(default_factory=dict)

    def given(self, inputs: Mapping[str, Any]) -> Plan:
        """The plan of a run with these inputs; this one stays as it is.

        Args:
            inputs: values by the name of the input.

        Raises:
            InputInvalid: one is unknown, or missing, or its default does not fit.
        """
        for name in inputs:
            if name not in self.inputs:
                known = ", ".join(sorted(self.inputs)) or "none"
                raise InputInvalid(f"the workflow has no input {name!r}. Its inputs: {known}.")
        nodes = dict(self.nodes) if inputs else self.nodes
        for name, planned in self.inputs.items():
            for node in planned:
                if name in inputs:
                    nodes[node.node_id] = replace(node, constants={**node.constants, "value": inputs[name]})
                elif "value" not in node.constants:
                    given = shell_word(f"{name}=JSON")
                    raise InputInvalid(f"input {name!r} is missing and has no default. Give it with --input {given}.")
                elif node.node_id in self.unfit:
                    raise InputInvalid(self.unfit[node.node_id])
        return replace(self, nodes=nodes)
