"""A node that is saved by hand, as a cut holds it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from checkpoint_plugin.by_hand.node_record import NodeRecord
from hookspecs import NodeSnapshot


def test_it_is_a_node_of_a_cut_that_never_fired() -> None:
    began = datetime(2027, 3, 4, tzinfo=UTC)
    ended = began + timedelta(seconds=1)
    record = NodeRecord("failed", 2, "no", b"values", began, began, ended)
    expected = NodeSnapshot("a", "failed", attempt=2, state=b"values", error="no", started_at=began, ended_at=ended)
    assert record.snapshot("a") == expected
    assert NodeRecord("idle").snapshot("b") == NodeSnapshot("b", "idle")
