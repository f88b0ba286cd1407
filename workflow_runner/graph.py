"""A graph: nodes, edges and what the workflow enables, built in Python or read from its JSON document."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import isclass
from typing import Any, ClassVar

from hookspecs import loads_tagged
from workflow_runner.aligner import SyncMode
from workflow_runner.builtin import COLLECT, EACH
from workflow_runner.differences import differences
from workflow_runner.document import TAGGED, read_document, tag_document, write_document
from workflow_runner.enabling import by_name
from workflow_runner.errors import GraphInvalid, NodeDefinitionError
from workflow_runner.failure import OnFailure
from workflow_runner.handle import REQUIRED
from workflow_runner.lanes import compare_lanes, write_out
from workflow_runner.node import Node, node_type_of
from workflow_runner.nodetype import NodeType
from workflow_runner.specs import EdgeSpec, NodeSpec
from workflow_runner.unique_keys import unique_keys

__all__ = ["Graph", "NodeRef", "Output"]


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
        lanes: int = 1,
        **inputs: Any,
    ) -> NodeRef:
        """Add a node.

        Args:
            node: a decorated function, a `Node` class, or the name of a type.
            node_id: default the function's name, with a number where it is taken.
            sync_mode: how the items of several edges make a firing.
            failure: `retries`, `backoff`, `timeout` and `replayable` that hold here instead of those of the type.
            lanes: how many of it work side by side on the items of its edge; what they return stays in the order of the items.
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
            sources = value if isinstance(value, (list, tuple)) else [value]
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
        self.nodes.append(NodeSpec(node_id, name, data, sync_mode, dict(failure or {}), lanes))
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

    def each(self, items: NodeRef | Output | Sequence[Any], node_id: str | None = None) -> NodeRef:
        """Hand on what is in a list one by one.

        Args:
            items: an output whose items are lists, or a list.
            node_id: default "each", with a number where it is taken.
        """
        return self.add(EACH, node_id or self._free_id("each"), items=items)

    def collect(self, items: NodeRef | Output, node_id: str | None = None) -> NodeRef:
        """Make one list of all that an output emits, when it has ended.

        Args:
            items: the output.
            node_id: default "collect", with a number where it is taken.
        """
        return self.add(COLLECT, node_id or self._free_id("collect"), items=items)

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
        return cls(*read_document(document))

    def to_document(self) -> dict[str, Any]:
        """The graph as its document, with Python values in `data`."""
        return write_document(self.nodes, self.edges, self.enable, self.on_failure)

    def to_json(self) -> str:
        """The graph as JSON text, for `from_json` and `workflow run`. Values that JSON lacks are tagged, and the text says so.

        Raises:
            TaggedValueError: a property has no such form.
        """
        return json.dumps(tag_document(self.to_document()))

    @classmethod
    def from_tagged_json(cls, text: str) -> Graph:
        """Read a graph whose values are tagged, whether it says so or not.

        Raises:
            GraphInvalid: it is not a graph's document.
            ValueError: it is not JSON, or a tagged value is malformed (`TaggedValueError`).
        """
        document = loads_tagged(text)
        if isinstance(document, dict):
            document.pop(TAGGED, None)
        return cls.from_document(document)

    def differences(self, other: Graph) -> list[str]:
        """What another graph has otherwise, one line each; ids of edges, and what is enabled, do not count."""
        (mine, _), (others, _) = self.written_out(), other.written_out()
        lines, parts = compare_lanes(mine.nodes, mine.edges, others.nodes, others.edges)
        nodes, other_nodes = ([node for node in graph.nodes if node.id not in parts] for graph in (mine, others))
        edges, other_edges = ([edge for edge in graph.edges if edge.target not in parts] for graph in (mine, others))
        return [*lines, *differences(nodes, edges, other_nodes, other_edges)]

    def written_out(self) -> tuple[Graph, Sequence[str]]:
        """The graph with lanes as nodes of their own, as it is stored, and what is wrong with the lanes of some."""
        nodes, edges, problems = write_out(self.nodes, self.edges)
        if nodes is self.nodes:
            return self, ()
        graph = Graph(nodes, edges, self.enable, self.on_failure)
        graph.types = self.types
        return graph, problems


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
        if type(value) is tuple:  # it holds itself only within something else, which stands in `copies` by then
            copied = copies[id(value)] = tuple([_copied(item, copies) for item in value])
            return copied
        copied = copies[id(value)] = type(value)()
        if type(value) is dict:
            copied.update((key, _copied(item, copies)) for key, item in value.items())
        elif type(value) is list:
            copied.extend(_copied(item, copies) for item in value)
        else:
            copied.update(value)
    return copied
