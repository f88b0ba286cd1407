"""A node of a run that is saved without our runner: where it stands, and its values as bytes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from checkpoint_plugin.by_hand.checkpoint_data import NodeStateSnapshot
from checkpoint_plugin.codec import Codec, MalformedValue
from checkpoint_plugin.errors import StoreDamaged, ValueNotStorable
from checkpoint_plugin.status import NODE_STATUSES
from checkpoint_plugin.tables.definition import json_text, storable_text
from hookspecs import NodeDraft, NodeSnapshot, TaggedValueError, loads_tagged, to_tagged

__all__ = ["NodeRecord", "pack_values", "read_record", "shown_values", "unpack_values"]


class NodeRecord(NamedTuple):
    """Where a node stands. Its values are bytes, so nobody can change them any more.

    Args:
        status: of the node.
        attempt: how often it was begun.
        error: why it failed.
        values: outputs and resume state, encoded; `None` without either.
        scheduled_at: when it was last scheduled.
        started_at: when it last began.
        ended_at: when it completed.
    """

    status: str
    attempt: int = 1
    error: str | None = None
    values: bytes | None = None
    scheduled_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None

    def snapshot(self, node_id: str) -> NodeSnapshot:
        """As a cut holds it."""
        draft = NodeDraft()
        draft.node_id, draft.status, draft.attempt, draft.error = node_id, self.status, self.attempt, self.error
        draft.state, draft.started_at, draft.ended_at = self.values, self.started_at, self.ended_at
        draft.firing = draft.commits = draft.emitted = 0
        draft.arguments = draft.latest = draft.suspension = None
        draft.taken = draft.inbox = draft.order = draft.collected = ()
        draft.source = ""
        return draft.frozen()

    def told(self, node_id: str, codec: Codec) -> NodeStateSnapshot:
        """As callers see it."""
        outputs, resume_state = unpack_values(self.values, codec)
        return NodeStateSnapshot(node_id, self.status, self.attempt, outputs, self.error, resume_state)


def pack_values(where: str, outputs: Mapping[str, Any] | None, resume_state: Any, codec: Codec) -> bytes | None:
    """Outputs and resume state as bytes.

    Args:
        where: the run and node, for an error.
        outputs: by handle.
        resume_state: any value.
        codec: encodes them.

    Raises:
        ValueNotStorable: naming run, node and the path inside the value.
    """
    if outputs is None and resume_state is None:
        return None
    given = None if outputs is None else dict(outputs)
    try:
        return codec.encode([given, resume_state], str)
    except ValueNotStorable as error:
        codec.encode(given, lambda: f"{where}, outputs")  # names the place
        codec.encode(resume_state, lambda: f"{where}, resume_state")
        place = f"{where}, resume_state"
        for name, value in (given or {}).items():  # each can be stored by itself: what is too deep is so among the others
            try:
                codec.encode([[value]], str)
            except ValueNotStorable:
                place = f"{where}, outputs[{name!r}]"
        raise ValueNotStorable(place, error.why) from None


def unpack_values(values: bytes | None, codec: Codec) -> tuple[dict[str, Any] | None, Any]:
    """Outputs and resume state from bytes.

    Raises:
        MalformedValue: they are something else.
    """
    if values is None:
        return None, None
    found = codec.decode(values)
    if type(found) is not list or len(found) != 2:
        raise MalformedValue("it is no pair of outputs and resume state")
    return found[0], found[1]


def shown_values(values: bytes | None, codec: Codec) -> tuple[str | None, str | None]:
    """Outputs and resume state as the JSON that people see; nothing for a value that has no JSON form."""
    outputs, state = unpack_values(values, codec)
    return _shown(outputs), _shown(state)


def read_record(run_id: str, record: NodeRecord | None, row: Any, codec: Codec) -> NodeRecord:
    """Where a node stands: as its row tells where that was changed since the checkpoint, else as the checkpoint tells.

    Args:
        run_id: the run.
        record: of the checkpoint.
        row: of `run_node_state`.
        codec: decodes values.

    Raises:
        StoreDamaged: the row cannot be read.
    """
    if row.status not in NODE_STATUSES or type(row.attempt) is not int or type(row.last_error) not in (str, type(None)):
        raise StoreDamaged(run_id, f"the row of node {row.node_id!r} is not one that was written")
    old = record or NodeRecord("idle")
    try:
        texts = shown_values(old.values, codec)
        found = (row.outputs_json, row.resume_state_json)
        values = old.values
        if found != texts:
            outputs, state = unpack_values(old.values, codec)
            outputs = outputs if found[0] == texts[0] else _loaded(found[0])
            state = state if found[1] == texts[1] else _loaded(found[1])
            values = pack_values(f"run {run_id!r}, node {row.node_id!r}", outputs, state, codec)
    except (TaggedValueError, MalformedValue) as error:
        raise StoreDamaged(run_id, f"the values of node {row.node_id!r}: {error}") from error
    same_error = row.last_error == (None if old.error is None else storable_text(old.error))
    return NodeRecord(
        row.status,
        row.attempt,
        old.error if same_error else row.last_error,
        values,
        row.scheduled_at,
        row.started_at,
        row.completed_at,
    )


def _shown(value: Any) -> str | None:
    if value is None:
        return None
    try:
        return json_text(to_tagged(value))
    except TaggedValueError:
        return None


def _loaded(text: str | None) -> Any:
    return None if text is None else loads_tagged(text)
