"""Cuts as rows and back: values are encoded once, large ones become payloads that the rows mention by digest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Final

import ormsgpack

from checkpoint_plugin.codec import MalformedValue, decode, encode
from checkpoint_plugin.errors import StoreDamaged
from hookspecs import EdgeSnapshot, NodeSnapshot

__all__ = ["EncodedCut", "RowReader", "RowWriter", "add_hashes", "digest_of", "row_digest", "row_hash"]

INLINE_LIMIT: Final = 128
"""Bytes up to which an encoded value stands in the row itself."""
HASH_SIZE: Final = 32
FIELDS: Final = {field.name for field in fields(NodeSnapshot)} - {"node_id"}
Ref = list[Any]
"""A value in a row: `[0, its encoding]` or `[1, the digest of its payload]`."""
Refer = Callable[[Any, Callable[[], str]], Ref]
"""Gives a value's reference; the second argument tells its place, for an error."""


def digest_of(*parts: bytes) -> bytes:
    """A digest of byte strings, each with its length, so that no two sequences are alike."""
    digest = hashlib.blake2b(digest_size=HASH_SIZE)
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()


def row_digest(run_id: str, node_id: str, number: int, body: bytes) -> bytes:
    """What binds a row's bytes to its place."""
    return digest_of(_bytes(run_id), _bytes(node_id), number.to_bytes(8, "big"), body)


def row_hash(node_id: str, digest: bytes) -> int:
    """A row's share in the hash of its cut."""
    return int.from_bytes(digest_of(b"cut", _bytes(node_id), digest), "big")


def add_hashes(total: int, *, added: int, removed: int = 0) -> int:
    """A cut's hash after rows were replaced: a sum, so it costs what changed."""
    return (total + added - removed) % (1 << (8 * HASH_SIZE))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


@dataclass(slots=True)
class EncodedCut:
    """What a cut adds to the store, as bytes.

    Args:
        bodies: of node rows by node id.
        segments: of output items: node id, place of the first, count, body.
        payloads: by digest.
    """

    bodies: dict[str, bytes] = field(default_factory=dict)
    segments: list[tuple[str, int, int, bytes]] = field(default_factory=list)
    payloads: dict[bytes, bytes] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of all of it."""
        return sum(map(len, self.bodies.values())) + sum(len(s[3]) for s in self.segments) + sum(map(len, self.payloads.values()))


class RowWriter:
    """Encodes the cuts of one run.

    Args:
        run_id: the run, for errors.
        saved_items: how many items of each output node are durable; kept up by the caller.
    """

    def __init__(self, run_id: str, saved_items: Mapping[str, int]) -> None:
        self._run_id = run_id
        self._saved_items = saved_items

    def encode(self, nodes: Iterable[NodeSnapshot]) -> EncodedCut:
        """Encode what changed.

        Raises:
            ValueNotStorable: naming run, node, place and path.
        """
        cut = EncodedCut()
        refs: dict[int, Ref] = {}

        def refer(value: Any, place: Callable[[], str]) -> Ref:
            # The same object stands in many places: an output in every inbox. All of them live as long as the cut.
            ref = refs.get(id(value))
            if ref is None:
                data = encode(value, place)
                if len(data) <= INLINE_LIMIT:
                    ref = [0, data]
                else:
                    digest = digest_of(data)
                    cut.payloads[digest] = data
                    ref = [1, digest]
                refs[id(value)] = ref
            return ref

        for node in nodes:
            self._encode_node(node, cut, refer)
        return cut

    def _encode_node(self, node: NodeSnapshot, cut: EncodedCut, refer: Refer) -> None:
        where = f"run {self._run_id!r}, node {node.node_id!r}"
        saved = self._saved_items.get(node.node_id, 0)

        def refs(what: str, values: Iterable[Any], first: int = 0) -> list[Ref]:
            return [refer(value, lambda p=place: f"{where}, {what}[{p}]") for place, value in enumerate(values, first)]  # type: ignore[misc]

        def named(what: str, values: Iterable[tuple[str, Any]]) -> list[list[Any]]:
            return [[name, refer(value, lambda n=name: f"{where}, {what}[{n!r}]")] for name, value in values]  # type: ignore[misc]

        if len(node.collected) > saved:
            items = refs("outputs", node.collected[saved:], saved)
            cut.segments.append((node.node_id, saved, len(items), ormsgpack.packb(items)))
        cut.bodies[node.node_id] = ormsgpack.packb(
            {
                "status": node.status,
                "attempt": node.attempt,
                "firing": node.firing,
                "commits": node.commits,
                "state": refer(node.state, lambda: f"{where}, state"),
                "arguments": None if node.arguments is None else named("arguments", node.arguments.items()),
                "taken": named("taken from edge", node.taken),
                "emitted": node.emitted,
                "latest": None if node.latest is None else named("latest of edge", node.latest.items()),
                "inbox": [[e.edge_id, refs(f"inbox of edge {e.edge_id!r}", e.items), e.ended] for e in node.inbox],
                "order": list(node.order),
                "collected": len(node.collected),
                "source": node.source,
                "error": None if node.error is None else _bytes(node.error),
                "started_at": _time(node.started_at),
                "ended_at": _time(node.ended_at),
            }
        )


@dataclass(slots=True)
class RowReader:
    """Decodes the rows of one cut.

    Args:
        run_id: the run, for errors.
        number: of the checkpoint.
    """

    run_id: str
    number: int

    def unpack(self, node_id: str, body: bytes) -> dict[str, Any]:
        """A node row's fields, values still as references."""
        try:
            row = ormsgpack.unpackb(body)
        except ValueError as error:
            raise StoreDamaged(self.run_id, f"the row of node {node_id!r} cannot be read", self.number) from error
        if not isinstance(row, dict) or row.keys() != FIELDS:
            raise StoreDamaged(self.run_id, f"the row of node {node_id!r} cannot be read", self.number)
        return row

    def unpack_segment(self, node_id: str, body: bytes) -> list[Ref]:
        """An output segment's references."""
        try:
            refs = ormsgpack.unpackb(body)
        except ValueError as error:
            raise StoreDamaged(self.run_id, f"the items of output {node_id!r} cannot be read", self.number) from error
        return list(refs)

    def mentioned(self, row: Mapping[str, Any]) -> Iterable[bytes]:
        """The digests of the payloads that a row mentions."""
        refs: list[Ref] = [row["state"]]
        for name in ("arguments", "latest", "taken"):
            refs += [ref for _, ref in row[name] or ()]
        for _, items, _ in row["inbox"]:
            refs += items
        return (ref[1] for ref in refs if ref[0] == 1)

    def value(self, ref: Ref, payloads: Mapping[bytes, bytes], where: str) -> Any:
        """The value of a reference."""
        kind, data = ref
        if kind == 1:
            found = payloads.get(data)
            if found is None:
                raise StoreDamaged(self.run_id, f"a payload of {where} is missing", self.number)
            if digest_of(found) != data:
                raise StoreDamaged(self.run_id, f"a payload of {where} was changed", self.number)
            data = found
        try:
            return decode(data)
        except MalformedValue as error:
            raise StoreDamaged(self.run_id, f"a value of {where}: {error}", self.number) from error

    def node(self, node_id: str, row: Mapping[str, Any], payloads: Mapping[bytes, bytes], items: Sequence[Any]) -> NodeSnapshot:
        """The node of a row."""
        where = f"node {node_id!r}"
        if len(items) != row["collected"]:
            what = f"output {node_id!r} has {len(items)} of {row['collected']} items"
            raise StoreDamaged(self.run_id, what, self.number)

        def value(ref: Ref) -> Any:
            return self.value(ref, payloads, where)

        return NodeSnapshot(
            node_id=node_id,
            status=row["status"],
            attempt=row["attempt"],
            firing=row["firing"],
            commits=row["commits"],
            state=value(row["state"]),
            arguments=None if row["arguments"] is None else {name: value(ref) for name, ref in row["arguments"]},
            taken=[(edge, value(ref)) for edge, ref in row["taken"]],
            emitted=row["emitted"],
            latest=None if row["latest"] is None else {edge: value(ref) for edge, ref in row["latest"]},
            inbox=tuple(EdgeSnapshot(edge, tuple(value(ref) for ref in refs), ended) for edge, refs, ended in row["inbox"]),
            order=tuple(row["order"]),
            collected=items,
            source=row["source"],
            error=None if row["error"] is None else row["error"].decode("utf-8", "surrogatepass"),
            started_at=_read_time(row["started_at"]),
            ended_at=_read_time(row["ended_at"]),
        )


def _time(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


def _read_time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
