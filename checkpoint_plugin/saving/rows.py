"""Cuts as rows: values are encoded once, large ones become payloads that the rows mention by digest."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from functools import partial
from typing import Any, Final

import ormsgpack

from checkpoint_plugin.codec import Codec
from checkpoint_plugin.errors import ValueNotStorable
from checkpoint_plugin.saving.completed import is_over
from checkpoint_plugin.saving.holding import BESIDE, INBOX, LATEST, MANY, TAKEN, Holding, Refs, find_changes, follow, held_by
from checkpoint_plugin.saving.large_values import LARGE, LargeValue, LargeValues
from checkpoint_plugin.stored_bytes.digests import text_bytes
from checkpoint_plugin.stored_bytes.sealing import PLAIN, Seal
from checkpoint_plugin.tables.suspensions import pack_suspension
from hookspecs import NodeSnapshot, name_edges

__all__ = [
    "CONTEXT",
    "FIELDS",
    "NO_PLACES",
    "PAYLOAD_REF",
    "THEMSELVES",
    "EncodedCut",
    "EncodedSegment",
    "GraphPlaces",
    "Place",
    "Ref",
    "RowWriter",
]

SMALL: Final = 128
"""Bytes up to which an encoded value stands in every row that mentions it."""
ROOM: Final = 1_536
"""Bytes of larger ones that a row holds itself, as long as no other mentions them: such a row is written sooner than two, and
PostgreSQL keeps it in one piece. It is written again whole when its node changes, so the others are payloads."""
FIELDS: Final = tuple(field.name for field in fields(NodeSnapshot) if field.name != "node_id")
"""What a row lists, in this order. Stored: new fields come last."""
Ref = bytes | tuple[bytes] | bool | int | float | str | None
"""A value in a row: its encoding, a list of the digest of its payload, or itself where all of a list are small and plain."""
THEMSELVES: Final = frozenset({bool, int, float, str, type(None)})
"""Types of values that are their own references."""
Place = tuple[str, ...]
CONTEXT: Final[Place] = ("context", "")
"""Where what is saved beside the nodes stands."""
PAYLOAD_REF: Final = b"\xc1"
"""What stands before the digest of a payload in the place of a value; no encoded value begins with it."""
Refer = Callable[[Any, Callable[[], str], Place], Ref]
"""Gives a value's reference; the second argument tells its place to people, the third to `PayloadWriter`."""


@dataclass(frozen=True, slots=True)
class EncodedSegment:
    """Items of an output, from the `first` on."""

    node_id: str
    first: int
    count: int
    body: bytes
    mentions: bytes


@dataclass(slots=True)
class EncodedCut:
    """What a cut adds to the store, as bytes. An object a node would bring the garbage collector in, which stops every thread.

    Args:
        rows: of the nodes, by node id.
        mentions: digests of the payloads that a row mentions, one after the other, by node id where there are any.
        over: nodes of which there is no more to say than that they have completed.
        held: what the nodes hold that hold much.
        changed: of these, those of which the row tells only what changed.
        segments: of output items.
        payloads: values that are not yet stored, by digest, each with the place where it stands.
        mentioned: digests of all payloads that the cut mentions, in order.
        large: its large values by id.
        context: the reference of what is saved beside the nodes.
    """

    rows: dict[str, bytes] = field(default_factory=dict)
    mentions: dict[str, bytes] = field(default_factory=dict)
    over: list[str] = field(default_factory=list)
    held: dict[str, Holding] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    segments: list[EncodedSegment] = field(default_factory=list)
    payloads: dict[bytes, tuple[bytes, Place]] = field(default_factory=dict)
    mentioned: dict[bytes, None] = field(default_factory=dict)
    large: dict[int, LargeValue] = field(default_factory=dict)
    context: bytes | tuple[bytes] | None = None


class RowWriter:
    """Encodes the cuts of one run.

    Args:
        run_id: the run, for errors.
        saved_items: how many items of each output node are durable.
        known: digests of payloads that are stored.
        codec: encodes values; default: without types of plugins.
        seal: gives the addresses of payloads.
        large: by id, large values of the newest rows.
        places: of the graph, for errors: a value that cannot be stored is told as that of the node that gave it.
        file_bytes: from which on a value becomes a file; `None` for none.
        held: what nodes hold as of their newest rows, of those that hold much.
    """

    def __init__(
        self,
        run_id: str,
        saved_items: Mapping[str, int],
        known: Container[bytes] = (),
        codec: Codec | None = None,
        seal: Seal = PLAIN,
        large: Mapping[int, LargeValue] | None = None,
        places: GraphPlaces | None = None,
        file_bytes: int | None = None,
        held: Mapping[str, Holding] | None = None,
    ) -> None:
        self._places = places
        self._held = held or {}
        self._most_room = ROOM if file_bytes is None else min(ROOM, file_bytes - 1)
        self._seal = seal
        self._large = large or {}
        self._run_id = run_id
        self._codec = codec or Codec()
        self._saved_items = saved_items
        self._known = known
        self._room = 0

    def encode(self, nodes: Iterable[NodeSnapshot], context: Any = None) -> EncodedCut:
        """Encode what changed.

        Args:
            nodes: that changed.
            context: what is saved beside the nodes; `None` where nothing is.

        Raises:
            ValueNotStorable: naming run, node, place and path.
        """
        large = LargeValues(self._large)
        cut = EncodedCut(large=large.now)
        refs: dict[int, Ref] = {}
        named: list[Any] = []  # the values of `refs`: one that is made for this save alone would leave its id to the next

        def refer(value: Any, words: Callable[[], str], place: Place) -> Ref:
            if value is None:
                return None
            # The same object stands in many places: an output in every inbox.
            ref = refs.get(id(value))
            if ref is None and self._large:
                ref = large.find(value)
                if ref is not None and ref[0] not in self._known:
                    ref = None  # it was pruned
                if ref is not None:
                    refs[id(value)] = ref
            if type(ref) is bytes and len(ref) > SMALL:  # another row holds it
                ref = refs[id(value)] = self._address(ref, cut, place)
            if ref is None:
                data = self._codec.encode(value, words)
                if len(data) <= SMALL:
                    ref = data
                elif len(data) <= self._room:
                    self._room -= len(data)
                    ref = data
                else:
                    ref = self._address(data, cut, place)
                refs[id(value)] = ref
                named.append(value)
                if len(data) > LARGE:
                    large.note(value, len(data), ref)
            return ref

        for node in nodes:
            large.node_id = node.node_id
            self._encode_node(node, cut, refer)
        if context is not None:
            data = self._codec.encode(context, lambda: f"run {self._run_id!r}, context")
            cut.context = data if len(data) <= SMALL else self._address(data, cut, CONTEXT)
            if type(cut.context) is tuple:
                cut.mentioned[cut.context[0]] = None
        return cut

    def _address(self, data: bytes, cut: EncodedCut, place: Place) -> tuple[bytes]:
        """The reference of a value that is a payload, or becomes one."""
        digest = self._seal.address(data)
        if digest not in self._known and digest not in cut.payloads:
            cut.payloads[digest] = data, place
        return (digest,)

    def _told(self, node_id: str, what: str, place: Place) -> str:
        """Where a value stands, for people: at the output that gave it, or where the cut has it."""
        made = None if self._places is None else self._places.producer(place)
        if made is not None:
            node_id, what = made[0], f"outputs[{made[1]!r}]"
        return f"run {self._run_id!r}, node {node_id!r}, {what}"

    def _is_same(self, value: Any, ref: Ref) -> bool:
        """Whether a value is the one of a reference still."""
        if ref is None:
            return value is None
        try:
            data = self._codec.encode(value, lambda: "")
        except ValueNotStorable:  # any more, which is told where it stands
            return False
        return data == ref if type(ref) is not tuple else self._seal.address(data) == ref[0]

    def _again(self, cut: EncodedCut, mentioned: dict[bytes, None], ref: Ref, place: Place) -> Ref:
        """The reference in a row of a value that an earlier one told: a larger one that stood there becomes a payload."""
        if type(ref) is bytes and len(ref) > SMALL:
            ref = self._address(ref, cut, place)
        if type(ref) is tuple:
            mentioned[ref[0]] = None
        return ref

    @staticmethod
    def _size_of(beside: Sequence[Any], mentioned: Iterable[bytes], cut: EncodedCut) -> int:
        """Bytes of what a row tells beside its items, itself and in payloads that are new."""
        new = [len(cut.payloads[digest][0]) for digest in mentioned if digest in cut.payloads]
        return len(ormsgpack.packb(beside)) + sum(new)

    def _encode_node(self, node: NodeSnapshot, cut: EncodedCut, refer: Refer) -> None:
        node_id = node.node_id
        if is_over(node):  # as below: most nodes of a large cut, and there is nothing to refer to
            ends = _error(node), _time(node.started_at), _time(node.ended_at)
            steps = node.status, node.attempt, node.firing, node.commits
            cut.rows[node_id] = ormsgpack.packb([*steps, None, None, (), node.emitted, None, (), (), 0, node.source, *ends])
            cut.over.append(node_id)
            return
        saved = self._saved_items.get(node_id, 0)
        mentioned: dict[bytes, None] = {}

        def one(value: Any, place: Place, what: str, *names: object) -> Ref:
            ref = refer(value, lambda: self._told(node_id, what.format(*names), place), place)
            if type(ref) is tuple:
                mentioned[ref[0]] = None
            return ref

        def several(values: Sequence[Any], place: Place, what: str, first: int, *names: object) -> Sequence[Ref]:
            if self._codec.pack_scalars(values) is not None:
                return values
            return [one(value, place, what, number, *names) for number, value in enumerate(values, first)]

        if len(node.collected) > saved:
            self._room = self._most_room
            items = node.collected[saved:]
            packed = self._codec.pack_scalars(items)
            if packed is None:
                place = ("output", node_id)
                packed = ormsgpack.packb([one(value, place, "outputs[{}]", at) for at, value in enumerate(items, saved)])
            segment = EncodedSegment(node_id, saved, len(items), packed, b"".join(mentioned))
            cut.segments.append(segment)
            cut.mentioned.update(mentioned)
            mentioned = {}
        self._room = self._most_room
        state = None if node.state is None else one(node.state, ("state", node_id), "state")
        arguments: Sequence[Any] | None = None
        if node.arguments is not None:
            arguments = [[n, one(v, ("argument", node_id, n), "arguments[{!r}]", n)] for n, v in node.arguments.items()]
        waits: Sequence[Any] | None = None
        if node.suspension is not None:
            waits = pack_suspension(node.suspension, lambda value, what: one(value, ("suspension", node_id, what), "{}", what))
        error = _error(node)
        taken: Sequence[Any]
        latest: Sequence[Any] | None = None
        many = held_by(node)
        beside = self._size_of((state, arguments, waits, error), mentioned, cut) if many >= MANY else 0
        before = self._held.get(node_id) if many >= MANY else None
        changes = None if before is None else find_changes(before, node, self._is_same)
        if before is None or changes is None:
            taken = [[e, one(v, ("edge", e), TAKEN, e)] for e, v in node.taken]
            if node.latest is not None:
                latest = [[e, one(v, ("edge", e), LATEST, e)] for e, v in node.latest.items()]
            inbox: Sequence[Any] = [
                [
                    edge.edge_id,
                    several(edge.items, ("edge", edge.edge_id), INBOX, 0, edge.edge_id) if edge.items else (),
                    edge.ended,
                ]
                for edge in node.inbox
            ]
            order: Sequence[Any] = list(node.order)
            if many >= MANY:
                cut.held[node_id] = Holding.whole(node, many, taken, latest, inbox)
        else:
            cut.held[node_id], told = follow(
                before, changes, node, many, Refs(one, several, partial(self._again, cut, mentioned))
            )
            taken, latest, inbox, order = told.parts
            if told.continues:
                cut.changed.add(node_id)
        if many >= MANY:
            cut.held[node_id].read += beside // BESIDE
        row = [node.status, node.attempt, node.firing, node.commits, state, arguments, taken, node.emitted, latest, inbox, order]
        row += len(node.collected), node.source, error, _time(node.started_at), _time(node.ended_at)
        if waits is not None:  # rows of nodes that do not wait stay as short as they were
            row.append(waits)
        cut.rows[node_id] = ormsgpack.packb(row)
        if mentioned:
            cut.mentions[node_id] = b"".join(mentioned)
            cut.mentioned.update(mentioned)


class GraphPlaces:
    """Where the values that stand in rows come from, as the graph tells.

    Args:
        graph: the workflow's document.
    """

    def __init__(self, graph: Mapping[str, Any]) -> None:
        self._graph = graph
        self._sources: dict[str, tuple[str, str]] = {}
        self._incoming: dict[str, list[tuple[str, str]]] = {}

    def _look(self) -> None:
        """When it is first needed: many a run has no value that is large enough, and none that cannot be stored."""
        edges = () if self._sources else self._graph.get("edges", ())
        for edge_id, edge in zip(name_edges(edges), edges, strict=True):
            self._sources[edge_id] = edge["source"], edge.get("sourceHandle", "output")
            self._incoming.setdefault(edge["target"], []).append((edge_id, edge.get("targetHandle", "")))

    def related(self, place: Place) -> Sequence[Place]:
        """Where the value that stands at a place may have grown: what its node got, or kept."""
        self._look()
        kind, name = place[0], place[1]
        node_id = self._sources.get(name, ("", ""))[0] if kind == "edge" else name
        came: list[Place] = [("edge", edge_id) for edge_id, _ in self._incoming.get(node_id, ())[:4]]
        return came if kind == "state" else [("state", node_id), *came]

    def producer(self, place: Place) -> tuple[str, str] | None:
        """The node and the output that gave the value that stands at a place; `None` where it is not one, or not known."""
        self._look()
        kind, name, *more = place
        if kind == "edge":
            return self._sources.get(name)
        if kind not in ("argument", "output"):
            return None
        edges = [edge_id for edge_id, handle in self._incoming.get(name, ()) if kind == "output" or [handle] == more]
        return self._sources[edges[0]] if len(edges) == 1 else None


NO_PLACES: Final = GraphPlaces({})


def _error(node: NodeSnapshot) -> bytes | None:
    return None if node.error is None else text_bytes(node.error)


def _time(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()
