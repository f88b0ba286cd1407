"""A plan: a graph whose every name is resolved and whose every rule holds, ready to be run any number of times."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Literal

from workflow_runner.aligner import SyncMode, Values
from workflow_runner.checker import Checker
from workflow_runner.errors import GraphInvalid
from workflow_runner.graph import EdgeSpec, Graph, NodeSpec
from workflow_runner.handle import Handle
from workflow_runner.nodetype import NodeType
from workflow_runner.properties import PropertyInvalid, convert_property
from workflow_runner.registry import NodeRegistry

__all__ = ["Plan", "PlannedEdge", "PlannedNode", "make_plan"]


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
        type: its type.
        sync_mode: how the items of several edges make a firing.
        constants: properties and defaults by handle, converted.
        in_edges: grouped by handle, within a handle in the order of the graph.
        out_edges: in the order of the graph.
        slots: the handle of each incoming edge.
        checks: the check of each connected handle, where there is one.
        lists: list handles with several edges.
    """

    node_id: str
    type: NodeType
    sync_mode: SyncMode
    constants: dict[str, Any] = field(default_factory=dict)
    in_edges: list[PlannedEdge] = field(default_factory=list)
    out_edges: list[PlannedEdge] = field(default_factory=list)
    slots: tuple[str, ...] = ()
    checks: dict[str, Checker] = field(default_factory=dict)
    lists: frozenset[str] = frozenset()

    def name_values(self, values: Values) -> dict[str, Any]:
        """One value of each edge as arguments by handle; those of streams are left out."""
        if not self.lists and not self.type.streams:
            return dict(zip(self.slots, values))
        named: dict[str, Any] = {}
        for slot, value in zip(self.slots, values):
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
    """

    graph: Graph
    nodes: dict[str, PlannedNode]
    edges: list[PlannedEdge]
    inputs: dict[str, list[PlannedNode]]
    outputs: dict[str, PlannedNode]


def make_plan(graph: Graph, registry: NodeRegistry, validate: Literal["shallow", "deep"] = "shallow") -> Plan:
    """Resolve and check a graph.

    Args:
        graph: the graph; it is not changed.
        registry: where types are looked up that the graph does not bring itself.
        validate: how items are checked against annotations.

    Raises:
        GraphInvalid: with every problem found, each naming node, edge or handle and the nearest right name.
    """
    return _Planner(graph, registry, validate).plan()


class _Planner:
    def __init__(self, graph: Graph, registry: NodeRegistry, validate: str) -> None:
        self.graph = graph
        self.registry = registry
        self.deep = validate == "deep"
        self.problems: list[str] = []
        self.nodes: dict[str, PlannedNode] = {}
        self.types: dict[str, NodeType | None] = dict(graph.types)
        self.checks: dict[tuple[str, str], Checker | None] = {}
        self.unknown: set[str] = set()

    def plan(self) -> Plan:
        for spec in self.graph.nodes:
            self.add_node(spec)
        edges = [edge for place, spec in enumerate(self.graph.edges) if (edge := self.add_edge(place, spec)) is not None]
        self.name_edges(edges)
        inputs: dict[str, list[PlannedNode]] = {}
        outputs: dict[str, PlannedNode] = {}
        for spec in self.graph.nodes:
            node = self.nodes.get(spec.id)
            if node is not None:
                self.settle_inputs(node, spec)
                if node.type.role == "input":
                    inputs.setdefault(_name_of(node), []).append(node)
                elif node.type.role == "output":
                    self.name_output(node, outputs)
        if not self.problems:
            self.find_cycle()
        if self.problems:
            raise GraphInvalid(self.problems)
        nodes = {node_id: node for node_id, node in self.nodes.items() if node.type.role != "comment"}
        return Plan(self.graph, nodes, edges, inputs, outputs)

    def add_node(self, spec: NodeSpec) -> None:
        if spec.id in self.nodes or spec.id in self.unknown:
            self.problems.append(f"node {spec.id!r} is there twice. Give every node an id of its own.")
            return
        found = self.types.get(spec.type)
        if found is None:
            found = self.types[spec.type] = self.registry.find(spec.type)
        if found is None:
            near = self.registry.nearest(spec.type)
            module = spec.type.rpartition(".")[0]
            mend = f"Did you mean {near!r}?" if near else f"Name the module that has it, with --nodes {module or 'PATH'}."
            self.problems.append(f"node {spec.id!r}: unknown type {spec.type!r}. {mend}")
            self.unknown.add(spec.id)
            return
        self.nodes[spec.id] = PlannedNode(spec.id, found, spec.sync_mode)

    def add_edge(self, place: int, spec: EdgeSpec) -> PlannedEdge | None:
        what = f"edge {spec.id!r}" if spec.id is not None else f"edge {place} ({spec.source!r} to {spec.target!r})"
        source, target = self.nodes.get(spec.source), self.nodes.get(spec.target)
        for end, node_id, node in (("source", spec.source, source), ("target", spec.target, target)):
            if node is None and node_id not in self.unknown:
                self.problems.append(f"{what}: its {end} {node_id!r} is no node of the graph.{_near(node_id, self.nodes)}")
        if source is not None and spec.source_handle not in source.type.outputs:
            self.problems.append(
                f"{what}: node {spec.source!r} has no output {spec.source_handle!r}.{_near(spec.source_handle, source.type.outputs)}"
                f" Its outputs: {_list(source.type.outputs)}."
            )
            return None
        handles = target.type.handles if target is not None else {}
        connectable = [name for name in handles if not (target and target.type.role in ("input", "output") and name == "name")]
        if target is not None and (spec.target_handle not in connectable or target.type.role == "input"):
            self.problems.append(
                f"{what}: node {spec.target!r} has no input {spec.target_handle!r}.{_near(spec.target_handle, connectable)}"
                f" Its inputs: {_list(connectable if target.type.role != 'input' else [])}."
            )
            return None
        if source is None or target is None:
            return None
        edge = PlannedEdge(spec.id or "", source, spec.source_handle, target, spec.target_handle)
        source.out_edges.append(edge)
        target.in_edges.append(edge)
        return edge

    def name_edges(self, edges: list[PlannedEdge]) -> None:
        taken: set[str] = set()
        for edge in edges:
            if edge.edge_id in taken:
                self.problems.append(f"edge {edge.edge_id!r} is there twice. Give every edge an id of its own, or none.")
            if edge.edge_id:
                taken.add(edge.edge_id)
        for number, edge in enumerate(edges):
            if not edge.edge_id:
                # By its place, which a resume keeps: it runs the stored graph. No given id can be the same.
                name = f"e{number}"
                while name in taken:
                    name = f"{name}'"
                taken.add(name)
                edge.edge_id = name

    def settle_inputs(self, node: PlannedNode, spec: NodeSpec) -> None:
        node_type = node.type
        if node_type.role == "comment":
            return
        handles = node_type.handles
        edges: dict[str, list[PlannedEdge]] = {}
        for edge in node.in_edges:
            edges.setdefault(edge.target_handle, []).append(edge)
        for key, value in spec.data.items():
            handle = handles.get(key)
            if handle is None:
                if node_type.role != "preview":
                    self.problems.append(
                        f"node {spec.id!r}: unknown property {key!r}.{_near(key, handles)} {spec.type!r} has: {_list(handles)}."
                    )
            elif key in edges:
                self.problems.append(f"node {spec.id!r}: handle {key!r} has both an edge and a property. Remove one of them.")
            elif handle.stream:
                self.problems.append(f"node {spec.id!r}: handle {key!r} is a stream, which takes an edge, not a property.")
            else:
                self.set_property(node, handle, value)
        for name, handle in handles.items():
            connected = edges.get(name)
            if connected is None:
                self.set_default(node, handle, spec)
            else:
                self.connect(node, handle, connected)
        if len(edges) > 1:
            node.in_edges.sort(key=_by_handle(handles))
        node.slots = tuple(edge.target_handle for edge in node.in_edges)

    def set_property(self, node: PlannedNode, handle: Handle, value: Any) -> None:
        try:
            node.constants[handle.name] = convert_property(handle, value)
        except PropertyInvalid as error:
            self.problems.append(f"node {node.node_id!r}, property {handle.name!r}: {error}.")

    def set_default(self, node: PlannedNode, handle: Handle, spec: NodeSpec) -> None:
        if handle.name in node.constants or handle.name in spec.data:
            return
        if not handle.required:
            if not handle.stream:
                node.constants[handle.name] = handle.default
        elif node.type.role != "input":  # an input without a default gets its value from the run
            self.problems.append(
                f"node {spec.id!r}: input {handle.name!r} is missing. Connect an edge to it"
                + (", or give it a property." if not handle.stream else ".")
            )

    def connect(self, node: PlannedNode, handle: Handle, edges: list[PlannedEdge]) -> None:
        if len(edges) > 1:
            if handle.collects:
                node.lists |= {handle.name}
                return  # the list is ours; what is in it is checked only deeply
            self.problems.append(
                f"node {node.node_id!r}: handle {handle.name!r} takes one edge and has {len(edges)}. Only a list handle takes several."
            )
        check = self.check_of(node.type, handle)
        if check is not None:
            node.checks[handle.name] = check

    def check_of(self, node_type: NodeType, handle: Handle) -> Checker | None:
        if not self.deep:
            return handle.check
        key = (node_type.name, handle.name)
        if key not in self.checks:
            self.checks[key] = handle.deep_check()
        return self.checks[key]

    def name_output(self, node: PlannedNode, outputs: dict[str, PlannedNode]) -> None:
        name = _name_of(node)
        if name in outputs:
            self.problems.append(f"outputs {outputs[name].node_id!r} and {node.node_id!r} are both named {name!r}. Rename one of them.")
        outputs[name] = node
        if not node.in_edges and "value" in node.constants:
            self.problems.append(f"node {node.node_id!r}: an output takes an edge, not a property 'value'.")

    def find_cycle(self) -> None:
        waiting = {node_id: len(node.in_edges) for node_id, node in self.nodes.items()}
        ready = [node for node in self.nodes.values() if not node.in_edges]
        while ready:
            node = ready.pop()
            del waiting[node.node_id]
            for edge in node.out_edges:
                target = edge.target
                waiting[target.node_id] -= 1
                if not waiting[target.node_id]:
                    ready.append(target)
        if waiting:
            self.problems.append(f"the graph has a cycle: {' -> '.join(self.cycle_in(waiting))}. Remove one of its edges.")

    def cycle_in(self, waiting: Mapping[str, int]) -> list[str]:
        """Follow edges backwards among nodes that wait for each other until one comes again."""
        path: list[str] = []
        seen: dict[str, int] = {}
        current = next(iter(waiting))
        while current not in seen:
            seen[current] = len(path)
            path.append(current)
            current = next(edge.source.node_id for edge in self.nodes[current].in_edges if edge.source.node_id in waiting)
        return [current, *reversed(path[seen[current] :])]


def _name_of(node: PlannedNode) -> str:
    """The name of an input or output of the run; without one, its node's id."""
    name = node.constants.get("name")
    return node.node_id if name is None else str(name)


def _by_handle(handles: Mapping[str, Handle]) -> Callable[[PlannedEdge], int]:
    places = {name: place for place, name in enumerate(handles)}
    return lambda edge: places[edge.target_handle]


def _near(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _list(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
