"""The cut of a run that is saved by hand: its nodes show people their values, and nobody may have written it meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from checkpoint_plugin.blobs.files import Blobs
from checkpoint_plugin.by_hand.node_record import NodeRecord, shown_values
from checkpoint_plugin.codec import Codec
from checkpoint_plugin.saving.history import RunHistory
from checkpoint_plugin.saving.writing import CutWriter
from checkpoint_plugin.stored_bytes.sealing import PLAIN
from hookspecs import Snapshot

__all__ = ["HandCut"]


class HandCut(CutWriter):
    """One save.

    Args:
        history: as of a cut.
        snapshot: with the nodes that changed.
        changed: these nodes.
        reason: why it was taken.
        codec: encodes its values.
        blobs: where large values become files; `None` where they do not.
    """

    def __init__(
        self,
        history: RunHistory,
        snapshot: Snapshot,
        changed: Mapping[str, NodeRecord],
        reason: str,
        codec: Codec,
        blobs: Blobs | None,
    ) -> None:
        super().__init__(history, snapshot, reason, codec, blobs)
        self._changed = changed

    def encode(self) -> None:
        self.shown = {node_id: self._show(node) for node_id, node in self._changed.items()}
        super().encode()

    def _show(self, node: NodeRecord) -> tuple[str | None, str | None, datetime | None]:
        outputs, state = shown_values(node.values, self._codec)
        seal = self.history.seal
        if seal is not PLAIN:
            outputs, state = (None if text is None else seal.seal_text(text) for text in (outputs, state))
        return outputs, state, node.scheduled_at

    def may_stand_alone(self, since: Any) -> bool:
        """Whether one statement can tell that nobody wrote the run, and say all there is to say: on PostgreSQL, where it goes on.

        Args:
            since: as `standing.moment_of` gives it, of the save before.
        """
        return isinstance(since, str) and self._goes_on and self._files is None

    def outcome(self, row: Any) -> bool:
        if row is not None and self.since is not None:
            (self.since,) = row
        return row is not None
