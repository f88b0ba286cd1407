"""Rows as cuts: each field as the node had it, values from their payloads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import ormsgpack

from checkpoint_plugin.codec import Codec, MalformedValue
from checkpoint_plugin.database.damage import column_bytes, read_time
from checkpoint_plugin.errors import StoreDamaged, ValueNotReadable
from checkpoint_plugin.restoring.joined import Joined
from checkpoint_plugin.restoring.remembered import Weight
from checkpoint_plugin.restoring.row_shape import WAITS, are_refs, is_bare, is_change, is_row, mentioned_in_refs
from checkpoint_plugin.saving.completed import is_block
from checkpoint_plugin.saving.payloads import CACHED, GROWING, LARGEST, BaseCache, PayloadReader
from checkpoint_plugin.saving.rows import FIELDS, PAYLOAD_REF, THEMSELVES, Place
from checkpoint_plugin.stored_bytes.sealing import PLAIN, Seal, completed_place, items_place, node_place
from checkpoint_plugin.tables.suspensions import mentioned_in, read_suspension
from hookspecs import EdgeSnapshot, NodeDraft, NodeSnapshot

__all__ = ["RowReader"]

COLLECTED: Final = FIELDS.index("collected")
COMPLETED: Final = ormsgpack.packb([None] * 16)[:-16] + ormsgpack.packb("completed")
"""How the row of a node begins that has completed, and does not wait."""


@dataclass(slots=True)
class RowReader:
    """Decodes the rows of one cut.

    Args:
        run_id: the run, for errors.
        number: of the checkpoint.
        codec: decodes values.
        seal: opens what is sealed.
        payloads: the values that the rows mention.

    It keeps the bytes of those that it has read and that later values may grow out of, as many as a `BaseCache` takes.
    """

    run_id: str
    number: int
    codec: Codec = field(default_factory=Codec)
    seal: Seal = PLAIN
    payloads: PayloadReader = field(default_factory=lambda: PayloadReader({}, ()))
    _read: dict[bytes, bytes] = field(default_factory=dict, init=False)
    _room: int = field(default=CACHED, init=False)

    def opened(self, data: bytes, what: str, *place: bytes) -> bytes:
        """Sealed bytes, opened."""
        try:
            return self.seal.open(data, *place)
        except MalformedValue as error:
            raise StoreDamaged(self.run_id, f"{what}: {error}", self.number) from error

    def text(self, text: str) -> str:
        """A sealed text, opened."""
        try:
            return self.seal.open_text(text)
        except MalformedValue as error:
            raise StoreDamaged(self.run_id, f"its error: {error}", self.number) from error

    def unpack(self, node_id: str, body: bytes, number: int) -> list[Any]:
        """A node row's fields in the order of `FIELDS`, values still as references."""
        if self.seal is not PLAIN:
            body = self.opened(body, f"the row of node {node_id!r}", *node_place(node_id, number))
        try:
            row = ormsgpack.unpackb(body)
        except ValueError as error:
            raise StoreDamaged(self.run_id, f"the row of node {node_id!r} cannot be read", self.number) from error
        if not is_row(row):
            raise StoreDamaged(self.run_id, f"the row of node {node_id!r} cannot be read", self.number)
        return row  # type: ignore[no-any-return]  # a list, as was just seen

    def unpack_change(self, node_id: str, body: bytes, number: int) -> tuple[int, bytes, list[Any]]:
        """A row that tells only what changed: number and digest of the row that it continues, and its own fields."""
        before, digest, row = self._listed(
            body, f"the row of node {node_id!r}", is_change, self.number, *node_place(node_id, number)
        )
        return before, digest, row

    def unpack_joined(self, node_id: str, rows: Sequence[Any]) -> tuple[list[Any], Weight]:
        """The fields of a node's newest row with all that it continues; digests of rows are compared by whoever read them.

        Args:
            node_id: the node.
            rows: id, number, body and digest, and what each continues, from the oldest to the newest.

        Returns:
            The fields, and how much was read for them.
        """
        (_, number, body, digest, _), *later = rows
        oldest = self.unpack(node_id, body, number)
        joined, weight = Joined(oldest), Weight(oldest)
        try:
            for _, of_number, body, of_row, continues in later:
                before, of_before, row = self.unpack_change(node_id, body, of_number)
                if not before == continues == number or of_before != digest:
                    raise MalformedValue("it does not continue the one before")
                joined.add(row)
                weight.add(row)
                number, digest = of_number, of_row
            return joined.row(), weight
        except MalformedValue as error:
            raise StoreDamaged(self.run_id, f"the row of node {node_id!r}: {error}", self.number) from error

    def is_over(self, node_id: str, body: bytes, number: int) -> bool:
        """Whether a row says no more than that its node has completed."""
        if self.seal is not PLAIN:
            body = self.opened(body, f"the row of node {node_id!r}", *node_place(node_id, number))
        if not body.startswith(COMPLETED):
            return False
        row = ormsgpack.unpackb(body)
        return not row[COLLECTED] and is_bare(row)

    def unpack_block(self, body: bytes, number: int) -> list[Any]:
        """A block of completed nodes."""
        return self._listed(body, "the list of its completed nodes", is_block, number, *completed_place(number))

    def unpack_segment(self, node_id: str, body: bytes, log: int, first: int) -> list[Any]:
        """An output segment's references."""
        return self._listed(body, f"the items of output {node_id!r}", are_refs, self.number, *items_place(node_id, log, first))

    def _listed(self, body: bytes, what: str, fits: Callable[[Any], bool], number: int, *place: bytes) -> list[Any]:
        """The list that bytes are, if it is of the shape that is asked for."""
        body = self.opened(body, what, *place)
        try:
            found = ormsgpack.unpackb(body)
        except ValueError as error:
            raise StoreDamaged(self.run_id, f"{what} cannot be read", number) from error
        if not fits(found):
            raise StoreDamaged(self.run_id, f"{what} cannot be read", number)
        return list(found)

    def mentioned(self, row: Sequence[Any]) -> Iterable[bytes]:
        """The digests of the payloads that a row mentions."""
        return mentioned_in_refs([ref for _, ref in self.placed("", row)])

    def placed(self, node_id: str, row: Sequence[Any]) -> Iterable[tuple[Place, Any]]:
        """The references of a node's row, each with the place where it stands, as `RowWriter` names it."""
        if is_bare(row):
            return
        _, _, _, _, state, arguments, taken, _, latest, inbox, *_ = row
        yield ("state", node_id), state
        for name, ref in arguments or ():
            yield ("argument", node_id, name), ref
        for edge, ref in (*taken, *(latest or ())):
            yield ("edge", edge), ref
        for edge, refs, _ in inbox:
            for ref in refs:
                yield ("edge", edge), ref
        if len(row) > WAITS and row[WAITS] is not None:
            for what, ref in mentioned_in(row[WAITS]):
                yield ("suspension", node_id, what), ref

    def remember(self, cache: BaseCache, placed: Iterable[tuple[Place, Any]]) -> None:
        """Let what is saved next grow out of values that were read.

        Args:
            cache: remembers them.
            placed: their references.
        """
        for place, ref in placed:
            for digest in mentioned_in_refs((ref,)):
                if digest in self._read:
                    self.payloads.remember(cache, place, digest, self._read[digest])

    def context(self, data: Any) -> Any:
        """The reference of what was saved beside the nodes, from its column."""
        opened = self.opened(column_bytes(data), "its context", b"context")
        return [opened[1:]] if opened.startswith(PAYLOAD_REF) else opened

    def value(self, ref: Any, where: str) -> Any:
        """The value of a reference."""
        if type(ref) in THEMSELVES:
            return ref
        try:
            return self.codec.decode(ref if type(ref) is bytes else self._data(ref, where))
        except MalformedValue as error:
            raise StoreDamaged(self.run_id, f"a value of {where}: {error}", self.number) from error
        except ValueNotReadable as error:
            raise error.within(f"checkpoint {self.number} of run {self.run_id!r}, {where}") from error

    def _data(self, ref: Any, where: str) -> bytes:
        (digest,) = ref
        data = self.payloads.data(digest)
        if data is None:
            raise StoreDamaged(self.run_id, f"a payload of {where} is missing", self.number)
        if self.seal.address(data) != digest:
            raise StoreDamaged(self.run_id, f"a payload of {where} was changed", self.number)
        if digest not in self._read and GROWING <= len(data) <= min(LARGEST, self._room):
            self._read[digest] = data
            self._room -= len(data)
        return data

    def node(self, node_id: str, row: Sequence[Any], items: Sequence[Any]) -> NodeSnapshot:
        """The node of a row."""
        where = f"node {node_id!r}"
        if len(items) != row[COLLECTED]:
            what = f"output {node_id!r} has {len(items)} of {row[COLLECTED]} items"
            raise StoreDamaged(self.run_id, what, self.number)
        status, attempt, firing, commits, state, arguments, taken, emitted, latest, inbox, order, _, source, error, *rest = row
        started_at, ended_at, *more = rest
        draft = NodeDraft()
        draft.node_id, draft.status, draft.attempt, draft.firing, draft.commits = node_id, status, attempt, firing, commits
        draft.emitted, draft.collected, draft.source = emitted, items, source
        draft.error = None if error is None else error.decode("utf-8", "surrogatepass")
        draft.started_at, draft.ended_at = _read_time(started_at), _read_time(ended_at)
        if is_bare(row):
            draft.state = draft.arguments = draft.latest = draft.suspension = None
            draft.taken = draft.inbox = draft.order = ()
            return draft.frozen()
        waits = more[0] if more else None
        draft.state = self.value(state, where)
        draft.arguments = None if arguments is None else {name: self.value(ref, where) for name, ref in arguments}
        draft.taken = [(edge, self.value(ref, where)) for edge, ref in taken]
        draft.latest = None if latest is None else {edge: self.value(ref, where) for edge, ref in latest}
        draft.inbox = tuple(
            EdgeSnapshot(edge, tuple([self.value(ref, where) for ref in refs]), ended) for edge, refs, ended in inbox
        )
        draft.order = tuple(order)
        draft.suspension = None if waits is None else read_suspension(waits, lambda ref: self.value(ref, where))
        return draft.frozen()


def _read_time(seconds: float | None) -> datetime | None:
    return None if seconds is None else read_time(seconds)
