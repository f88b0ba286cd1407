"""The document of a workflow by column: what a store keeps of a graph, and what a resume of a long run looks through."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from itertools import compress, count
from operator import not_
from typing import Any, Final

__all__ = ["GraphColumns"]

Item = Mapping[str, Any]

NUMBERS: Final = ("type_of", "held_at", "sources", "targets", "handles_of", "named_at")
TEXTS: Final = ("ids", "types", "names")
LISTS: Final = (*TEXTS, "held", "handles")
NUMBER: Final = next(code for code in "IL" if array(code).itemsize == 4)
"""What four bytes are to `array`."""


class GraphColumns(Mapping[str, Any]):
    """A document (`nodes`, `edges` and what else it has) as one list a property.

    It is the document: a mapping that equals it, whose nodes and edges are made when they are first asked for. Ten thousand nodes
    are eleven columns, where the document is thirty thousand dicts. An edge names its nodes by their places.

    Args:
        lists: the columns of texts and of what nodes hold, by name.
        numbers: the columns of places, by name.
        other: the document without nodes and edges.
    """

    __slots__ = ("_built", "_held", "_lists", "_names", "_numbers", "other")

    def __init__(self, lists: Mapping[str, list[Any]], numbers: Mapping[str, array[int]], other: Item) -> None:
        self._lists = lists
        self._numbers = numbers
        self._held: dict[int, Item] = dict(zip(numbers["held_at"], lists["held"], strict=True))
        self._names: dict[int, str] = dict(zip(numbers["named_at"], lists["names"], strict=True))
        self._built: dict[str, Sequence[Item]] = {}
        self.other = other

    @classmethod
    def of(cls, document: Item) -> GraphColumns | None:
        """A document by column.

        Args:
            document: as `Graph.to_document` gives it.

        Returns:
            `None` where a node or an edge has another form, or an edge ends nowhere.
        """
        if isinstance(document, GraphColumns):
            return document
        nodes, edges = document.get("nodes"), document.get("edges")
        if type(nodes) is not list or type(edges) is not list:
            return None
        ids: list[str] = []
        type_of: list[int] = []
        types: dict[str, int] = {}
        held: dict[int, Item] = {}
        for place, node in enumerate(nodes):
            if type(node) is not dict:
                return None
            node_id, kind = node.get("id"), node.get("type")
            if not type(node_id) is type(kind) is str:
                return None
            ids.append(node_id)
            type_of.append(types.setdefault(kind, len(types)))
            if len(node) != 4 or node.get("data") != {} or node.get("sync_mode") != "on_any":  # most hold what is usual
                held[place] = {key: value for key, value in node.items() if key not in ("id", "type")}
        places = {node_id: place for place, node_id in enumerate(ids)}
        sources: list[int] = []
        targets: list[int] = []
        handles: dict[tuple[str, str], int] = {}
        handles_of: list[int] = []
        names: dict[int, str] = {}
        for place, edge in enumerate(edges):
            if type(edge) is not dict or len(edge) - ("id" in edge) != 4:
                return None
            source, target = edge.get("source"), edge.get("target")
            source_handle, target_handle = edge.get("sourceHandle"), edge.get("targetHandle")
            if not type(source) is type(target) is type(source_handle) is type(target_handle) is str:
                return None
            if source not in places or target not in places:
                return None
            sources.append(places[source])
            targets.append(places[target])
            handles_of.append(handles.setdefault((source_handle, target_handle), len(handles)))
            if "id" in edge:
                if type(edge["id"]) is not str:
                    return None
                names[place] = edge["id"]
        lists: dict[str, list[Any]] = {
            "ids": ids,
            "types": list(types),
            "names": list(names.values()),
            "held": list(held.values()),
            "handles": [list(pair) for pair in handles],
        }
        numbers = {
            "type_of": type_of,
            "held_at": held,
            "sources": sources,
            "targets": targets,
            "handles_of": handles_of,
            "named_at": names,
        }
        other = {key: value for key, value in document.items() if key not in ("nodes", "edges")}
        columns = cls(lists, {name: array(NUMBER, places) for name, places in numbers.items()}, other)
        columns._built = {"nodes": nodes, "edges": edges}
        return columns

    def stored(self) -> dict[str, Any]:
        """The columns, for a store: lists of texts and of what some nodes hold, and numbers of four bytes, the lowest first."""
        return {
            **self._lists,
            **{name: _swapped(places).tobytes() for name, places in self._numbers.items()},
            "other": self.other,
        }

    @classmethod
    def read(cls, stored: Any) -> GraphColumns:
        """What `stored` gave, as a store gives it back.

        Raises:
            ValueError: it is something else.
        """
        if type(stored) is not dict or set(stored) != {*LISTS, *NUMBERS, "other"} or type(stored["other"]) is not dict:
            raise ValueError("its columns are not those of a graph")
        lists = {name: stored[name] for name in LISTS}
        if not _are(lists.values(), list) or not _are((stored[name] for name in NUMBERS), bytes):
            raise ValueError("a column is not of its type")
        if any(not _are(lists[name], str) for name in TEXTS) or not _are(lists["held"], dict):
            raise ValueError("a column holds what is not of its type")
        if any(type(pair) is not list or len(pair) != 2 or not _are(pair, str) for pair in lists["handles"]):
            raise ValueError("the handles of its edges are no column of pairs of texts")
        numbers: dict[str, array[int]] = {}
        for name in NUMBERS:
            numbers[name] = array(NUMBER)
            numbers[name].frombytes(stored[name])  # raises a ValueError itself
            numbers[name] = _swapped(numbers[name])
        nodes, edges = len(lists["ids"]), len(numbers["sources"])
        for name, length, most in (
            ("type_of", nodes, len(lists["types"])),
            ("held_at", len(lists["held"]), nodes),
            ("sources", edges, nodes),
            ("targets", edges, nodes),
            ("handles_of", edges, len(lists["handles"])),
            ("named_at", len(lists["names"]), edges),
        ):
            if len(numbers[name]) != length or max(numbers[name], default=-1) >= most:
                raise ValueError(f"the column {name} does not fit the others")
        return cls(lists, numbers, stored["other"])

    # What is left of a graph.

    def left(self, over: Set[str]) -> list[int]:
        """The places of all nodes but some.

        Args:
            over: the ids of those.
        """
        return list(compress(count(), map(not_, map(over.__contains__, self._lists["ids"]))))

    def of_types(self, types: Collection[str]) -> list[int]:
        """The places of the nodes of some types."""
        wanted = {number for number, name in enumerate(self._lists["types"]) if name in types}
        return list(compress(count(), map(wanted.__contains__, self._numbers["type_of"]))) if wanted else []

    def touching(self, places: Iterable[int]) -> list[int]:
        """The places of the edges that begin or end at some nodes."""
        some = frozenset(places)
        ends = zip(self._numbers["sources"], self._numbers["targets"], strict=True)
        return [place for place, (source, target) in enumerate(ends) if source in some or target in some]

    def ends(self, edges: Iterable[int]) -> set[int]:
        """The places of the nodes at which some edges begin and end."""
        sources, targets = self._numbers["sources"], self._numbers["targets"]
        return {end for edge in edges for end in (sources[edge], targets[edge])}

    @property
    def told(self) -> Collection[int]:
        """The places of the nodes that hold what most do not: of the others there is nothing but the id and the type."""
        return self._held.keys()

    @property
    def edge_ids(self) -> Collection[str]:
        """The ids that edges were given."""
        return self._names.values()

    # Nodes and edges, as they are in the document.

    def node(self, place: int) -> dict[str, Any]:
        """The node at a place."""
        lists = self._lists
        named = {"id": lists["ids"][place], "type": lists["types"][self._numbers["type_of"][place]]}
        held = self._held.get(place)
        return {**named, "data": {}, "sync_mode": "on_any"} if held is None else {**named, **held}

    def edge(self, place: int) -> dict[str, Any]:
        """The edge at a place."""
        ids, numbers = self._lists["ids"], self._numbers
        source_handle, target_handle = self._lists["handles"][numbers["handles_of"][place]]
        name = self._names.get(place)
        return {
            **({} if name is None else {"id": name}),
            "source": ids[numbers["sources"][place]],
            "sourceHandle": source_handle,
            "target": ids[numbers["targets"][place]],
            "targetHandle": target_handle,
        }

    def __getitem__(self, key: str) -> Any:
        if key not in ("nodes", "edges"):
            return self.other[key]
        if key not in self._built:
            make, of = (self.node, "type_of") if key == "nodes" else (self.edge, "handles_of")
            self._built[key] = [make(place) for place in range(len(self._numbers[of]))]
        return self._built[key]

    def __iter__(self) -> Iterator[str]:
        return iter(("nodes", "edges", *self.other))

    def __len__(self) -> int:
        return 2 + len(self.other)

    def __repr__(self) -> str:
        return f"GraphColumns({len(self._numbers['type_of'])} nodes, {len(self._numbers['handles_of'])} edges)"


def _are(values: Iterable[Any], kind: type) -> bool:
    return set(map(type, values)) <= {kind}


def _swapped(numbers: array[int]) -> array[int]:
    """The numbers with their lowest byte first, or from that; itself where they are so by nature."""
    if sys.byteorder == "little":
        return numbers
    swapped = array(NUMBER, numbers)
    swapped.byteswap()
    return swapped
