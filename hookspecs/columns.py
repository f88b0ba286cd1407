"""The document of a workflow by column: what a store keeps of a graph, and what a resume of a long run looks through."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any, Final

__all__ = ["GraphColumns"]

Item = Mapping[str, Any]

USUAL: Final[Item] = {"data": {}, "sync_mode": "on_any"}
"""What a node holds besides its id and type, unless it is told."""
ENDS: Final = ("source", "sourceHandle", "target", "targetHandle")
TEXTS: Final = ("ids", "types", "names")
LISTS: Final = (*TEXTS, "type_of", "held_at", "held", "sources", "targets", "handles", "handles_of", "named_at")


class GraphColumns(Mapping[str, Any]):
    """A document (`nodes`, `edges` and what else it has) as one list a property.

    It is the document: a mapping that equals it, whose nodes and edges are made when they are asked for. Ten thousand nodes are a
    dozen lists, where the document is thirty thousand dicts.

    Args:
        columns: by the names that `stored` gives, checked.
    """

    __slots__ = ("_built", "_columns", "_held", "_names", "other")

    def __init__(self, columns: Mapping[str, Any]) -> None:
        self._columns = columns
        self._held: dict[int, Item] = dict(zip(columns["held_at"], columns["held"], strict=True))
        self._names: dict[int, str] = dict(zip(columns["named_at"], columns["names"], strict=True))
        self._built: dict[str, Sequence[Item]] = {}
        self.other: Item = columns["other"]
        """The document without nodes and edges."""

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
            if type(node) is not dict or type(node.get("id")) is not str or type(node.get("type")) is not str:
                return None
            ids.append(node["id"])
            type_of.append(types.setdefault(node["type"], len(types)))
            rest = {key: value for key, value in node.items() if key not in ("id", "type")}
            if rest != USUAL:
                held[place] = rest
        places = {node_id: place for place, node_id in enumerate(ids)}
        sources: list[int] = []
        targets: list[int] = []
        handles: dict[tuple[str, str], int] = {}
        handles_of: list[int] = []
        names: dict[int, str] = {}
        for place, edge in enumerate(edges):
            if type(edge) is not dict or any(type(edge.get(end)) is not str for end in ENDS):
                return None
            source, target = places.get(edge["source"]), places.get(edge["target"])
            if source is None or target is None or len(edge) - ("id" in edge) != len(ENDS):
                return None
            sources.append(source)
            targets.append(target)
            handles_of.append(handles.setdefault((edge["sourceHandle"], edge["targetHandle"]), len(handles)))
            if "id" in edge:
                if type(edge["id"]) is not str:
                    return None
                names[place] = edge["id"]
        columns = {
            "ids": ids,
            "types": list(types),
            "type_of": type_of,
            "held_at": list(held),
            "held": list(held.values()),
            "sources": sources,
            "targets": targets,
            "handles": [list(pair) for pair in handles],
            "handles_of": handles_of,
            "named_at": list(names),
            "names": list(names.values()),
            "other": {key: value for key, value in document.items() if key not in ("nodes", "edges")},
        }
        return cls(columns)

    def stored(self) -> dict[str, Any]:
        """The columns, for a store: lists of texts, of numbers, and of what some nodes hold (`data`)."""
        return dict(self._columns)

    @classmethod
    def read(cls, stored: Any) -> GraphColumns:
        """What `stored` gave, as a store gives it back.

        Raises:
            ValueError: it is something else.
        """
        if type(stored) is not dict or set(stored) != {*LISTS, "other"} or type(stored["other"]) is not dict:
            raise ValueError("its columns are not those of a graph")
        if any(type(stored[name]) is not list for name in LISTS):
            raise ValueError("a column is no list")
        if any(not _are(stored[name], str) for name in TEXTS) or not _are(stored["held"], dict):
            raise ValueError("a column holds what is not of its type")
        if any(type(pair) is not list or len(pair) != 2 or not _are(pair, str) for pair in stored["handles"]):
            raise ValueError("the handles of its edges are not pairs of texts")
        nodes, edges = len(stored["ids"]), len(stored["sources"])
        for name, length, most in (
            ("type_of", nodes, len(stored["types"])),
            ("held_at", len(stored["held"]), nodes),
            ("sources", edges, nodes),
            ("targets", edges, nodes),
            ("handles_of", edges, len(stored["handles"])),
            ("named_at", len(stored["names"]), edges),
        ):
            if not _are_places(stored[name], length, most):
                raise ValueError(f"the column {name} does not fit the others")
        return cls(stored)

    # What is left of a graph.

    def left(self, over: Set[str]) -> list[int]:
        """The places of all nodes but some.

        Args:
            over: the ids of those.
        """
        return [place for place, node_id in enumerate(self._columns["ids"]) if node_id not in over]

    def of_types(self, types: Collection[str]) -> list[int]:
        """The places of the nodes of some types."""
        wanted = {number for number, name in enumerate(self._columns["types"]) if name in types}
        return [place for place, number in enumerate(self._columns["type_of"]) if number in wanted] if wanted else []

    def touching(self, places: Iterable[int]) -> list[int]:
        """The places of the edges that begin or end at some nodes."""
        some = frozenset(places)
        ends = zip(self._columns["sources"], self._columns["targets"], strict=True)
        return [place for place, (source, target) in enumerate(ends) if source in some or target in some]

    def ends(self, edges: Iterable[int]) -> set[int]:
        """The places of the nodes at which some edges begin and end."""
        sources, targets = self._columns["sources"], self._columns["targets"]
        return {end for edge in edges for end in (sources[edge], targets[edge])}

    @property
    def edge_ids(self) -> Collection[str]:
        """The ids that edges were given."""
        return self._names.values()

    # Nodes and edges, as they are in the document.

    def node(self, place: int) -> dict[str, Any]:
        """The node at a place."""
        columns = self._columns
        named = {"id": columns["ids"][place], "type": columns["types"][columns["type_of"][place]]}
        held = self._held.get(place)
        return {**named, "data": {}, "sync_mode": "on_any"} if held is None else {**named, **held}

    def edge(self, place: int) -> dict[str, Any]:
        """The edge at a place."""
        columns = self._columns
        source_handle, target_handle = columns["handles"][columns["handles_of"][place]]
        name = self._names.get(place)
        return {
            **({} if name is None else {"id": name}),
            "source": columns["ids"][columns["sources"][place]],
            "sourceHandle": source_handle,
            "target": columns["ids"][columns["targets"][place]],
            "targetHandle": target_handle,
        }

    def __getitem__(self, key: str) -> Any:
        if key not in ("nodes", "edges"):
            return self.other[key]
        if key not in self._built:
            make, counted = (self.node, "ids") if key == "nodes" else (self.edge, "sources")
            self._built[key] = [make(place) for place in range(len(self._columns[counted]))]
        return self._built[key]

    def __iter__(self) -> Iterator[str]:
        return iter(("nodes", "edges", *self.other))

    def __len__(self) -> int:
        return 2 + len(self.other)

    def __repr__(self) -> str:
        return f"GraphColumns({len(self._columns['ids'])} nodes, {len(self._columns['sources'])} edges)"


def _are(values: Iterable[Any], kind: type) -> bool:
    return set(map(type, values)) <= {kind}


def _are_places(numbers: Sequence[Any], length: int, most: int) -> bool:
    """Whether they are so many, and each stands for one of `most`."""
    return len(numbers) == length and _are(numbers, int) and (not numbers or (min(numbers) >= 0 and max(numbers) < most))
