"""A graph: nodes, edges and what the workflow enables, built in Python or read from its JSON document."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from inspect import isclass
from typing import Any, ClassVar

from hookspecs import TaggedValueError, loads_tagged, to_tagged
from workflow_runner.aligner import SyncMode
from workflow_runner.enabling import by_name
from workflow_runner.errors import GraphInvalid, NodeDefinitionError
from workflow_runner.failure import ON_FAILURE, OnFailure
from workflow_runner.handle import REQUIRED
from workflow_runner.node import Node, node_type_of
from workflow_runner.nodetype import NodeType
from workflow_runner.unique_keys import unique_keys

__all__ = ["SYNC_MODES", "EdgeSpec", "Graph", "NodeRef", "NodeSpec", "Output"]

SYNC_MODES: tuple[SyncMode, ...] = ("on_any", "zip_all", "zip_shortest")


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """A node of a graph.

    Args:
        id: its name.
        type: the name of its type.
        data: its properties, by handle.
        sync_mode: how the items of several edges make a firing.
        failure: what overrides the failure policy of its type: `retries`, `backoff`, `timeout`, `replayable`.
    """

    id: str
    type: str
    data: Mapping[str, Any] = field(default_factory=dict)
    sync_mode: SyncMode = "on_any"
    failure: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EdgeSpec:
    """An edge of a graph.

    Args:
        source: id of the node that emits.
        source_handle: its output.
        target: id of the node that receives.
        target_handle: its input.
        id: its name; without one it is known by its place.
    """

    source: str
    source_handle: str
    target: str
    target_handle: str
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Output:
    """One output of a node that was added to a graph: give it to an input of another."""

    node_id: str
    handle: str


@dataclass(frozen=True, slots=True)
class NodeRef:
    """A node that was added to a graph. It stands for its output `output`; `ref["word"]` is another."""

    __iter__: ClassVar[None] = None  # else Python asks for the outputs 0, 1, 2, … without end

    node_id: str

    def __getitem__(self, handle: str) -> Output:
        return Output(self.node_id, handle)


class Graph:
    """A workflow.

        graph = Graph(enable={"checkpoint": True})
        source = graph.add(numbers, n=10)
        graph.output("total", graph.add(running_total, items=source, factor=2.0))

    Args:
        nodes: to begin with; `add` makes more.
        edges: to begin with.
        enable: options by plugin name, or `True`.
        on_failure: `"finish_independent"` lets nodes that do not need a failed one run to their end; default `"fail_fast"`.

    Raises:
        InputInvalid: `enable` is no mapping.
    """

    def __init__(
        self,
        nodes: Sequence[NodeSpec] = (),
        edges: Sequence[EdgeSpec] = (),
        enable: Mapping[str, Any] | None = None,
        on_failure: OnFailure | None = None,
    ) -> None:
        self.nodes: list[NodeSpec] = list(nodes)
        self.edges: list[EdgeSpec] = list(edges)
        self.enable: dict[str, Any] = dict(by_name(enable))
        self.on_failure: OnFailure | None = on_failure
        # Of thousands of nodes of one function each would look through all that are there.
        self._taken: set[str] = set()
        self._numbers: dict[str, int] = {}
        self.types: dict[str, NodeType] = {}
        """Node types that were added from Python; a graph from a document has none."""

    def copy(self) -> Graph:
        """The same graph, which does not change when this one does, nor when lists, mappings and sets in its properties do.

        Raises:
            GraphInvalid: a property, or an option of a plugin, is nested too deeply.
        """
        copies: dict[int, Any] = {}
        where = ""
        try:
            nodes = []
            for node in self.nodes:
                where = f"node {node.id!r}: a property"
                nodes.append(replace(node, data=_copied(node.data, copies), failure=dict(node.failure)))
            where = "`enable`: an option"
            copied = Graph(nodes, self.edges, _copied(self.enable, copies), self.on_failure)
        except RecursionError as error:
            raise GraphInvalid([f"{where} is nested too deeply. Flatten it."]) from error
        copied.types = dict(self.types)
        return copied

    # Building.

    def add(
        self,
        node: Callable[..., Any] | str,
        /,
        node_id: str | None = None,
        *,
        sync_mode: SyncMode = "on_any",
        failure: Mapping[str, Any] | None = None,
        **inputs: Any,
    ) -> NodeRef:
        """Add a node.

        Args:
            node: a decorated function, a `Node` class, or the name of a type.
            node_id: default the function's name, with a number where it is taken.
            sync_mode: how the items of several edges make a firing.
            failure: `retries`, `backoff`, `timeout` and `replayable` that hold here instead of those of the type.
            inputs: by handle, a property or the output of another node; a list of outputs makes an edge of each.

        Raises:
            NodeDefinitionError: it is not a node, or another decorator wraps it.
            GraphInvalid: a list of outputs holds something else, too, or another value holds outputs; an output stands in the
                place of the id.
        """
        if isinstance(node, str):
            name = node
        else:
            node_type = node_type_of(node)
            if node_type is None:
                raise NodeDefinitionError(f"{node!r} is not a node. {_mend(node)}")
            name = node_type.name
            known = self.types.setdefault(name, node_type)
            if known is not node_type:
                raise NodeDefinitionError(f"two different nodes are named {name!r}. Name one of them with @node(type=...).")
        if isinstance(node_id, (NodeRef, Output)):
            raise GraphInvalid([f"node {name!r} is given {node_id} as its id. Say by name which input it is for."])
        node_id = node_id if node_id is not None else self._free_id(name.rpartition(".")[2])
        data: dict[str, Any] = {}
        for handle, value in inputs.items():
            sources = value if isinstance(value, (list, tuple)) and value else [value]
            outputs = [source for source in sources if isinstance(source, (NodeRef, Output))]
            if not outputs:
                if _refers(value):
                    raise GraphInvalid(
                        [f"node {node_id!r}, handle {handle!r}: outputs of nodes stand inside a value. Give them by themselves."]
                    )
                data[handle] = value
                continue
            if len(outputs) < len(sources):
                raise GraphInvalid(
                    [f"node {node_id!r}, handle {handle!r}: outputs of nodes stand beside other values. Give only outputs."]
                )
            for source in outputs:
                self.connect(source, node_id, handle)
        self.nodes.append(NodeSpec(node_id, name, data, sync_mode, dict(failure or {})))
        self._taken.add(node_id)
        return NodeRef(node_id)

    def connect(self, source: NodeRef | Output, target: NodeRef | str, handle: str) -> None:
        """Add an edge from an output to an input.

        Args:
            source: the output; a node stands for its output `output`.
            target: the node that receives, or its id.
            handle: its input.
        """
        if isinstance(source, NodeRef):
            source = source["output"]
        target_id = target.node_id if isinstance(target, NodeRef) else target
        self.edges.append(EdgeSpec(source.node_id, source.handle, target_id, handle))

    def input(self, name: str, *, value: Any = REQUIRED) -> NodeRef:
        """Add an input of the run; `value` is its default."""
        default = {} if value is REQUIRED else {"value": value}
        return self.add("workflow.Input", self._free_id(name), name=name, **default)

    def output(self, name: str, source: NodeRef | Output) -> NodeRef:
        """Collect what an output emits under a name of the run's result."""
        return self.add("workflow.Output", self._free_id(name), name=name, value=source)

    def _free_id(self, wanted: str) -> str:
        if len(self._taken) != len(self.nodes):  # nodes came in another way
            self._taken = {node.id for node in self.nodes}
            self._numbers.clear()
        node_id = wanted
        number = self._numbers.get(wanted, 2)
        while node_id in self._taken:
            node_id = f"{wanted}_{number}"
            number += 1
        self._numbers[wanted] = number
        return node_id

    # The document.

    @classmethod
    def from_json(cls, text: str) -> Graph:
        """Read a graph from JSON text.

        Raises:
            GraphInvalid: it is not JSON, or not a graph's document.
        """
        try:
            document = json.loads(text, object_pairs_hook=unique_keys)
        except ValueError as error:
            raise GraphInvalid([f"the graph is not JSON: {error}."]) from error
        except RecursionError as error:
            raise GraphInvalid(["the graph is nested too deeply. Flatten it."]) from error
        return cls.from_document(document)

    @classmethod
    def from_document(cls, document: Any) -> Graph:
        """Read a graph from its document: `{"nodes": [...], "edges": [...], "enable": {...}}`; other keys are ignored.

        Raises:
            GraphInvalid: it does not have that form; every problem is listed.
        """
        if not isinstance(document, Mapping):
            raise GraphInvalid([f"a graph is an object with nodes and edges, not {type(document).__name__}."])
        problems: list[str] = []
        nodes = [_node(item, place, problems) for place, item in enumerate(_list(document, "nodes", problems))]
        edges = [_edge(item, place, problems) for place, item in enumerate(_list(document, "edges", problems))]
        enable = {} if document.get("enable") is None else document["enable"]
        if not isinstance(enable, Mapping):
            problems.append('"enable" is an object of plugin names, like {"checkpoint": true}.')
        if "nodes" not in document:
            problems.append('a graph needs "nodes".')
        on_failure = document.get("on_failure")
        if on_failure is not None and on_failure not in ON_FAILURE:
            problems.append(f'"on_failure" is one of {", ".join(ON_FAILURE)}, not {on_failure!r}.')
        if problems:
            raise GraphInvalid(problems)
        return cls([node for node in nodes if node], [edge for edge in edges if edge], enable, on_failure)

    def to_document(self) -> dict[str, Any]:
        """The graph as its document, with Python values in `data`."""
        return {
            "nodes": [
                {
                    "id": node.id,
                    "type": node.type,
                    "data": dict(node.data),
                    "sync_mode": node.sync_mode,
                    **({"failure": dict(node.failure)} if node.failure else {}),
                }
                for node in self.nodes
            ],
            "edges": [
                {
                    **({} if edge.id is None else {"id": edge.id}),
                    "source": edge.source,
                    "sourceHandle": edge.source_handle,
                    "target": edge.target,
                    "targetHandle": edge.target_handle,
                }
                for edge in self.edges
            ],
            **({"enable": self.enable} if self.enable else {}),
            **({"on_failure": self.on_failure} if self.on_failure is not None else {}),
        }

    def to_json(self) -> str:
        """The graph as JSON text; values that JSON lacks are tagged, and `from_tagged_json` reads them back.

        Raises:
            TaggedValueError: a property has no such form.
        """
        return json.dumps(to_tagged(self.to_document()))

    @classmethod
    def from_tagged_json(cls, text: str) -> Graph:
        """Read back what `to_json` wrote.

        Raises:
            GraphInvalid: it is not a graph's document.
            ValueError: it is not JSON, or a tagged value is malformed (`TaggedValueError`).
        """
        return cls.from_document(loads_tagged(text))

    def differences(self, other: Graph) -> list[str]:
        """What another graph has otherwise, one line each; ids of edges, and what is enabled, do not count."""
        lines: list[str] = []
        mine, others = {n.id: n for n in self.nodes}, {n.id: n for n in other.nodes}
        lines += [f"node {i!r} is gone" for i in mine if i not in others]
        lines += [f"node {i!r} is new" for i in others if i not in mine]
        for i, node in mine.items():
            changed = others.get(i)
            if changed is None:
                continue
            if changed.type != node.type:
                lines.append(f"node {i!r}: type {node.type!r} became {changed.type!r}")
            if changed.sync_mode != node.sync_mode:
                lines.append(f"node {i!r}: sync_mode {node.sync_mode!r} became {changed.sync_mode!r}")
            for key in sorted({*node.data, *changed.data}, key=str):
                before, after = node.data.get(key, _NOTHING), changed.data.get(key, _NOTHING)
                if not is_same(before, after):
                    lines.append(f"node {i!r}: property {key!r} was {before!r} and is {after!r}")
        lines += _edge_differences(self.edges, other.edges)
        return lines


def _mend(item: Any) -> str:
    """What makes a node of something that is none."""
    kind = item if isclass(item) else type(item)
    if not issubclass(kind, Node):
        return "Decorate the function with @node, or subclass Node."
    if not hasattr(kind, "process"):
        return "Give its class a body: `async def process(self)`."
    return f"Add the class itself, and what its fields are: add({kind.__name__}, ...)."


def _refers(value: Any) -> bool:
    """Whether outputs of nodes stand somewhere inside a property, whose body would be given the references."""
    left, seen = [value], set[int]()
    while left:
        part = left.pop()
        if isinstance(part, (NodeRef, Output)):
            return True
        if isinstance(part, (Mapping, list, tuple, set, frozenset)) and id(part) not in seen:  # it may hold itself
            seen.add(id(part))
            left.extend(part.values() if isinstance(part, Mapping) else part)
    return False


def _copied(value: Any, copies: dict[int, Any]) -> Any:
    """A property whose containers are copies, each once; whatever else is in it stays the same object."""
    if type(value) not in (dict, list, set, tuple):
        return value
    if (copied := copies.get(id(value))) is None:
        if type(value) is tuple:
            return tuple([_copied(item, copies) for item in value])
        copied = copies[id(value)] = type(value)()
        if type(value) is dict:
            copied.update((key, _copied(item, copies)) for key, item in value.items())
        elif type(value) is list:
            copied.extend(_copied(item, copies) for item in value)
        else:
            copied.update(value)
    return copied


class _Nothing:
    def __repr__(self) -> str:
        return "not set"


_NOTHING = _Nothing()


def is_same(one: Any, other: Any) -> bool:
    """Whether two values are equal and of the same type: 1, 1.0 and True differ, and NaN equals itself."""
    try:
        return bool(to_comparable(one) == to_comparable(other))
    except TaggedValueError:  # something in them is of a type that is registered for the store
        pass
    if type(one) is not type(other):
        return False
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(is_same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(is_same(value, other[key]) for key, value in one.items())
    try:
        return one is other or _is_equal(one, other)
    except Exception:  # it is anybody's comparison
        return False


def _is_equal(one: Any, other: Any) -> bool:
    """Whether two values of a type that the runner does not know are equal: of arrays and tables `==` gives no one answer."""
    if hasattr(one, "dtype") and hasattr(one, "tobytes"):  # an array or a number of numpy: as exactly as it is stored
        return bool(one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes())
    equals = getattr(one, "equals", None)  # a table, where what is missing equals itself
    return bool(one == other) if equals is None else bool(equals(other))


def to_comparable(value: Any) -> Any:
    """A value such that 1, 1.0 and True differ, and NaN equals itself.

    Raises:
        TaggedValueError: it has no tagged form.
    """
    return value if value is _NOTHING else json.dumps(to_tagged(value), sort_keys=True)


def _edge_differences(mine: Sequence[EdgeSpec], others: Sequence[EdgeSpec]) -> list[str]:
    # Per target handle the order counts: a list handle collects in the order of its edges.
    def by_target(edges: Sequence[EdgeSpec]) -> dict[tuple[str, str], list[tuple[str, str]]]:
        found: dict[tuple[str, str], list[tuple[str, str]]] = {}
        for edge in edges:
            found.setdefault((edge.target, edge.target_handle), []).append((edge.source, edge.source_handle))
        return found

    def tell(sources: Sequence[tuple[str, str]]) -> str:
        return ", ".join(map(".".join, sources)) or "nowhere"

    before, after = by_target(mine), by_target(others)
    return [
        f"edges into {target}.{handle}: from {tell(before.get((target, handle), []))} "
        f"became from {tell(after.get((target, handle), []))}"
        for target, handle in sorted({*before, *after})
        if before.get((target, handle)) != after.get((target, handle))
    ]


def _list(document: Mapping[str, Any], key: str, problems: list[str]) -> Sequence[Any]:
    found = document.get(key, [])
    if isinstance(found, list):
        return found
    problems.append(f'"{key}" is a list, not {type(found).__name__}.')
    return []


def _text(item: Mapping[str, Any], key: str, what: str, problems: list[str], default: str | None = None) -> str:
    found = item.get(key, default)
    if isinstance(found, str) and found:
        return found
    problems.append(f'{what}: "{key}" is text and needed, found {found!r}.')
    return ""


def _node(item: Any, place: int, problems: list[str]) -> NodeSpec | None:
    if not isinstance(item, Mapping):
        problems.append(f"nodes[{place}] is an object with id and type, not {type(item).__name__}.")
        return None
    what = f"node {item['id']!r}" if isinstance(item.get("id"), str) else f"nodes[{place}]"
    data = item.get("data")
    if data is None:
        data = {}
    if not isinstance(data, Mapping):
        problems.append(f'{what}: "data" is an object of properties, not {type(data).__name__}.')
        data = {}
    mode = item.get("sync_mode", "on_any")
    if mode not in SYNC_MODES:
        problems.append(f"{what}: sync_mode {mode!r} is unknown. It is one of {', '.join(SYNC_MODES)}.")
    failure = item.get("failure")
    if not isinstance(failure, Mapping | None):
        problems.append(f'{what}: "failure" is an object like {{"retries": 3}}, not {type(failure).__name__}.')
        failure = None
    node_id, type_name = _text(item, "id", f"nodes[{place}]", problems), _text(item, "type", what, problems)
    return NodeSpec(node_id, type_name, dict(data), mode, dict(failure or {}))


def _edge(item: Any, place: int, problems: list[str]) -> EdgeSpec | None:
    if not isinstance(item, Mapping):
        problems.append(f"edges[{place}] is an object with source, target and targetHandle, not {type(item).__name__}.")
        return None
    edge_id = item.get("id")
    if edge_id is not None and not (isinstance(edge_id, str) and edge_id):
        problems.append(f'edges[{place}]: "id" is text, found {edge_id!r}.')
    what = f"edge {edge_id!r}" if edge_id is not None else f"edges[{place}]"
    return EdgeSpec(
        _text(item, "source", what, problems),
        _text(item, "sourceHandle", what, problems, "output"),
        _text(item, "target", what, problems),
        _text(item, "targetHandle", what, problems),
        edge_id,
    )
