"""How a graph becomes a plan: every name is resolved, every rule is checked, and every problem is told at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from difflib import get_close_matches
from typing import Any, Final, Literal

from hookspecs import name_edge, shorten
from workflow_runner.checker import AnnotationUnusable, Checker
from workflow_runner.errors import GraphInvalid, InputInvalid
from workflow_runner.failure import ON_FAILURE, PolicyValueInvalid
from workflow_runner.graph import Graph
from workflow_runner.handle import Handle
from workflow_runner.inputs import convert_default
from workflow_runner.lane_checks import find_fault, find_unfit, lanes_of
from workflow_runner.nodetype import NodeType
from workflow_runner.plan import Drive, Plan, PlannedEdge, PlannedNode
from workflow_runner.properties import PropertyInvalid, convert_property
from workflow_runner.registry import NodeRegistry
from workflow_runner.specs import SYNC_MODES, EdgeSpec, NodeSpec

__all__ = ["make_plan"]

MAX_COMPARED: Final = 10_000
"""Names that are looked through for the nearest ones: of 800 edges that all end nowhere, that took two minutes."""


def make_plan(
    graph: Graph, registry: NodeRegistry, validate: Literal["shallow", "deep"] = "shallow", over: Set[str] = frozenset()
) -> Plan:
    """Resolve and check a graph.

    Args:
        graph: the graph; it is not changed.
        registry: where types are looked up that the graph does not bring itself.
        validate: how items are checked against annotations.
        over: nodes that are over, whose own inputs may be missing (`rest.rest_of`); of code that fits them nothing is asked
            any more, as nothing runs it.

    Raises:
        GraphInvalid: with every problem found, each naming node, edge or handle, and the first ones the nearest right name.
    """
    written, problems = graph.written_out()
    if written is not graph:  # what is wrong is told of the graph as it is, and not once for each lane
        _Planner(graph, registry, validate, over, problems).plan()
    return _Planner(written, registry, validate, over).plan()


class _Planner:
    def __init__(self, graph: Graph, registry: NodeRegistry, validate: str, over: Set[str], problems: Sequence[str] = ()) -> None:
        self.over = over
        self.graph = graph
        self.registry = registry
        self.deep = validate == "deep"
        self.problems = list(problems)
        self.nodes: dict[str, PlannedNode] = {}
        self.specs: dict[str, NodeSpec] = {}
        self.types: dict[str, NodeType | None] = dict(graph.types)
        self.checks: dict[str, Mapping[str, Checker]] = {}
        self.unknown: set[str] = set()
        self.in_order = True
        """Whether every edge leads to a node that stands later in the graph: then there is no cycle."""
        self.attempted: set[tuple[str, str]] = set()
        """Inputs at which an edge should end that is wrong: they are not missing as well."""
        self.compared = 0

    def plan(self) -> Plan:
        if self.graph.on_failure is not None and self.graph.on_failure not in ON_FAILURE:
            self.problems.append(f'"on_failure" is one of {", ".join(ON_FAILURE)}, not {shorten(self.graph.on_failure)}.')
        for spec in self.graph.nodes:
            self.add_node(spec)
        edges = self.add_edges()
        inputs: dict[str, list[PlannedNode]] = {}
        outputs: dict[str, PlannedNode] = {}
        for node_id, spec in self.specs.items():
            node = self.nodes.get(node_id)
            if node is not None:
                self.settle_inputs(node, spec)
                if node.type.role == "input":
                    inputs.setdefault(_name_of(node), []).append(node)
                elif node.type.role == "output":
                    self.name_output(node, outputs)
                elif node.type.role == "collect" and not node.in_edges and "items" in node.constants:
                    self.problems.append(f"node {node_id!r}: it makes a list of what comes over an edge, not of a property.")
                elif node.type.role in ("spread", "gather"):
                    self.settle_lanes(node)
                if spec.has_lanes and (why := find_unfit(node_id, node.type)) is not None:
                    self.problems.append(why)
        if not self.in_order:
            self.find_cycles()
        if self.problems:
            raise GraphInvalid(self.problems)
        nodes = {node_id: node for node_id, node in self.nodes.items() if node.type.role != "comment"}
        return Plan(self.graph, nodes, edges, inputs, outputs, self.over, self.convert_defaults(inputs))

    def convert_defaults(self, inputs: Mapping[str, Sequence[PlannedNode]]) -> Mapping[str, str]:
        """Make of the defaults of inputs what nodes want; why those that do not fit do not, by node id."""
        unfit: dict[str, str] = {}
        for name, nodes in inputs.items():
            for node in nodes:
                if "value" in node.constants and node.node_id not in self.over:
                    try:
                        node.constants = {**node.constants, "value": convert_default(name, node, self.over)}
                    except InputInvalid as error:
                        unfit[node.node_id] = str(error)
        return unfit

    def add_node(self, spec: NodeSpec) -> None:
        if not isinstance(spec.id, str) or not spec.id:
            self.problems.append(f"a node has the id {shorten(spec.id)}. Give it one that is text, and not empty.")
            return
        if spec.sync_mode not in SYNC_MODES:
            known = ", ".join(SYNC_MODES)
            self.problems.append(f"node {spec.id!r}: sync_mode {shorten(spec.sync_mode)} is unknown. It is one of {known}.")
        if self.specs.setdefault(spec.id, spec) is not spec:
            self.problems.append(f"node {spec.id!r} is there twice. Give every node an id of its own.")
            return
        found = self.types.get(spec.type)
        if found is None:
            found = self.types[spec.type] = self.registry.find(spec.type)
        if found is None and spec.id in self.over:
            found = _gone(spec.type)
        if found is None:
            near = self.registry.nearest(spec.type)
            module = spec.type.rpartition(".")[0]
            name = f"with --nodes {module or 'PATH'}; in Python with nodes=[...], or resume with graph="
            mend = f"Did you mean {near!r}?" if near else f"Name the module that has it, {name}."
            self.problems.append(f"node {spec.id!r}: unknown type {spec.type!r}. {mend}")
            self.unknown.add(spec.id)
            return
        made = PlannedNode(spec.id, len(self.nodes), found, spec.sync_mode, found.defaults, found.checks, failure=found.failure)
        self.nodes[spec.id] = made
        if spec.failure:
            self.override_failure(made, spec.failure)

    def override_failure(self, node: PlannedNode, options: Mapping[str, Any]) -> None:
        if node.type.role != "body":
            self.problems.append(f'node {node.node_id!r}: {node.type.name!r} cannot fail. Take its "failure" out.')
            return
        try:
            node.failure = node.type.failure.overridden(options)
        except PolicyValueInvalid as error:
            self.problems.append(f"node {node.node_id!r}: {error}.")

    def add_edges(self) -> list[PlannedEdge]:
        nodes = self.nodes
        edges: list[PlannedEdge] = []
        given = {spec.id for spec in self.graph.edges if isinstance(spec.id, str)}
        taken: set[str] = set()
        for place, spec in enumerate(self.graph.edges):
            source, target = nodes.get(spec.source), nodes.get(spec.target)
            if (
                source is None
                or target is None
                or (spec.source_handle not in source.type.outputs and spec.source not in self.over)
                or (spec.target_handle not in target.type.connectable and spec.target not in self.over)
            ):
                self.explain_edge(place, spec, source, target)
                self.attempted.add((spec.target, spec.target_handle))
                continue
            edge_id = spec.id
            if edge_id is None:
                edge_id = name_edge(len(edges), given) if given else f"e{len(edges)}"
            elif not isinstance(edge_id, str) or not edge_id:
                self.problems.append(f"edge {place} has the id {shorten(edge_id)}. Give it one that is text, or none.")
                continue
            elif edge_id in taken:
                self.problems.append(f"edge {edge_id!r} is there twice. Give every edge an id of its own, or none.")
            else:
                taken.add(edge_id)
            edge = PlannedEdge(edge_id, source, spec.source_handle, target, spec.target_handle)
            source.out_edges.append(edge)
            target.in_edges.append(edge)
            edges.append(edge)
            if source.place >= target.place:
                self.in_order = False
        return edges

    def explain_edge(self, place: int, spec: EdgeSpec, source: PlannedNode | None, target: PlannedNode | None) -> None:
        what = f"edge {spec.id!r}" if spec.id is not None else f"edge {place} ({spec.source!r} to {spec.target!r})"
        for end, node_id, node in (("source", spec.source, source), ("target", spec.target, target)):
            if node is None and node_id not in self.unknown:
                self.problems.append(f"{what}: its {end} {node_id!r} is no node of the graph.{self.near_node(node_id)}")
        if source is not None and spec.source_handle not in source.type.outputs and spec.source not in self.over:
            self.explain_handle(what, spec.source, "output", spec.source_handle, source.type.outputs)
        if target is not None and spec.target_handle not in target.type.connectable and spec.target not in self.over:
            self.explain_handle(what, spec.target, "input", spec.target_handle, target.type.connectable)

    def near_node(self, node_id: str) -> str:
        if self.compared > MAX_COMPARED:
            return ""
        self.compared += len(self.nodes)
        return _near(node_id, self.nodes)

    def explain_handle(self, what: str, node_id: str, kind: str, handle: str, known: Iterable[str]) -> None:
        self.problems.append(
            f"{what}: node {node_id!r} has no {kind} {handle!r}.{_near(handle, known)} Its {kind}s: {_list(known)}."
        )

    def settle_inputs(self, node: PlannedNode, spec: NodeSpec) -> None:
        node_type = node.type
        if node_type.role == "comment":
            return
        connected = [edge.target_handle for edge in node.in_edges]
        is_over = spec.id in self.over
        if spec.data and not (is_over and node_type.role == "body"):
            self.set_properties(node, spec, connected)
        if is_over:
            return
        for name in node_type.required:
            if name in connected or name in spec.data or node_type.role == "input" or (spec.id, name) in self.attempted:
                continue
            takes_property = node_type.role in ("body", "each") and not node_type.handles[name].stream
            mend = ", or give it a property." if takes_property else "."
            self.problems.append(f"node {spec.id!r}: input {name!r} is missing. Connect an edge to it{mend}")
        if self.deep:
            node.checks = self.deep_checks(node_type)
        if len(connected) > 1:
            for name in node_type.handles:
                if (edges := connected.count(name)) > 1:
                    self.collect(node, node_type.handles[name], edges)
            node.in_edges.sort(key=_by_handle(node_type.handles))
            connected = [edge.target_handle for edge in node.in_edges]
        node.slots = tuple(connected)
        node.drive = _drive(node)

    def set_properties(self, node: PlannedNode, spec: NodeSpec, connected: Sequence[str]) -> None:
        handles = node.type.handles
        constants = dict(node.constants)
        for key, value in spec.data.items():
            handle = handles.get(key)
            if handle is None:
                if node.type.role != "preview":
                    mend = f"{_near(key, handles)} {spec.type!r} has: {_list(handles)}."
                    self.problems.append(f"node {spec.id!r}: unknown property {shorten(key)}.{mend}")
            elif key in connected:
                self.problems.append(f"node {spec.id!r}: handle {key!r} has both an edge and a property. Remove one of them.")
            elif handle.stream:
                self.problems.append(f"node {spec.id!r}: handle {key!r} is a stream, which takes an edge, not a property.")
            else:
                try:
                    constants[key] = convert_property(handle, value)
                except PropertyInvalid as error:
                    self.problems.append(f"node {spec.id!r}, property {key!r}: {error}.")
        node.constants = constants

    def collect(self, node: PlannedNode, handle: Handle, edges: int) -> None:
        if handle.collects:
            node.lists |= {handle.name}  # the list is made by us, so it fits by its type
        else:
            self.problems.append(
                f"node {node.node_id!r}: handle {handle.name!r} takes one edge and has {edges}. Only a list handle takes several."
            )

    def deep_checks(self, node_type: NodeType) -> Mapping[str, Checker]:
        known = self.checks.get(node_type.name)
        if known is None:
            try:
                made = {name: handle.deep_check() for name, handle in node_type.handles.items()}
            except AnnotationUnusable as error:
                self.problems.append(f"type {node_type.name!r}: {error}.")
                made = {}
            known = self.checks[node_type.name] = {name: check for name, check in made.items() if check is not None}
        return known

    def name_output(self, node: PlannedNode, outputs: dict[str, PlannedNode]) -> None:
        name = _name_of(node)
        if name in outputs:
            self.problems.append(
                f"outputs {outputs[name].node_id!r} and {node.node_id!r} are both named {name!r}. Rename one of them."
            )
        outputs[name] = node
        if not node.in_edges and "value" in node.constants:
            self.problems.append(f"node {node.node_id!r}: an output takes an edge, not a property 'value'.")

    def settle_lanes(self, node: PlannedNode) -> None:
        if node.type.role == "spread":
            for lane in lanes_of(node):
                lane.lane_of = node.node_id.removesuffix("/spread")
        problem = find_fault(node, self.over)
        if problem is not None:
            self.problems.append(problem)

    def find_cycles(self) -> None:
        waiting = {node_id: len(node.in_edges) for node_id, node in self.nodes.items()}
        ready = [node_id for node_id, edges in waiting.items() if not edges]
        while waiting:
            while ready:
                node_id = ready.pop()
                if waiting.pop(node_id, None) is None:
                    continue
                for edge in self.nodes[node_id].out_edges:
                    target_id = edge.target.node_id
                    if target_id in waiting:
                        waiting[target_id] -= 1
                        if not waiting[target_id]:
                            ready.append(target_id)
            if waiting:
                ready = self.cycle_in(waiting)  # it is told, and looked behind
                self.problems.append(f"the graph has a cycle: {' -> '.join(ready)}. Remove one of its edges.")

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


def _gone(name: str) -> NodeType:
    """Stands for the type of a node that is over, where no module has that any more."""
    return NodeType(name, {}, (), "coroutine", lambda arguments, context: None, stateless=False, definition=None)


def _drive(node: PlannedNode) -> Drive:
    node_type = node.type
    if node.in_edges and node_type.role in ("output", "preview"):
        return "sink"
    if node_type.role in ("each", "collect", "spread", "gather"):
        return node_type.role
    if node_type.streams:
        return "streaming"
    is_plain = len(node.in_edges) == 1 and not node.lists and node_type.kind == "coroutine"
    return "plain" if is_plain and node.failure.timeout is None and node.failure.replayable else "firing"


def _name_of(node: PlannedNode) -> str:
    """The name of an input or output of the run; without one, its node's id."""
    name = node.constants.get("name")
    return node.node_id if name is None else str(name)


def _by_handle(handles: Mapping[str, Handle]) -> Callable[[PlannedEdge], int]:
    places = {name: place for place, name in enumerate(handles)}
    return lambda edge: places[edge.target_handle]


def _near(name: object, known: Iterable[str]) -> str:
    close = get_close_matches(name, list(known), n=1) if isinstance(name, str) else ()  # keys of tagged data may be anything
    return f" Did you mean {close[0]!r}?" if close else ""


def _list(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
