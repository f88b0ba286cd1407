"""Saves by hand and logged events, without a runner: what was acknowledged of them."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any, Final

from checkpoint_plugin import CheckpointManager, EventLogger
from tests.power.trace import Acknowledged
from tests.power.work import RUN_ID, Recording, url_of

__all__ = ["saving_by_hand"]

SAVED: Final = "saved by hand"
LOGGED: Final = "logged"
STEPS: Final = 12


def node_of(step: int) -> str:
    return f"n{step}"


def output_of(step: int) -> dict[str, Any]:
    return {"blob": Random(step).randbytes(9_000), "lines": [f"line {line}" for line in range(step * 10)]}


async def saving_by_hand(recording: Recording) -> None:
    """Each save holds one more completed node; each event stands for one that failed."""
    trace = recording.trace
    url = url_of(trace.root)
    async with CheckpointManager(RUN_ID, enabled=True, url=url) as manager, EventLogger(RUN_ID, url=url) as log:
        for step in range(1, STEPS + 1):
            assert await manager.save_checkpoint(
                completed_nodes={node_of(earlier) for earlier in range(1, step + 1)},
                context_data={"step": step},
                outputs={node_of(step): output_of(step)},
            )
            trace.acknowledge(SAVED, step)
            await log.log("failed", node_of(step), {"step": step})
            trace.acknowledge(LOGGED, step)
    recording.look = look


async def look(root: Path, told: list[Acknowledged]) -> None:
    """Compare what is there with what was acknowledged.

    Raises:
        AssertionError: it is less, or something else.
    """
    newest = {what: max((one.number for one in told if one.what == what), default=0) for what in (SAVED, LOGGED)}
    data = await CheckpointManager(RUN_ID, enabled=True, url=url_of(root)).restore_checkpoint()
    assert data is not None
    step = data.context_data["step"]
    assert step >= newest[SAVED]
    found = {node_id: state.outputs for node_id, state in data.node_states.items()}
    assert found == {node_of(earlier): output_of(earlier) for earlier in range(1, step + 1)}
    events = await EventLogger(RUN_ID, url=url_of(root)).events()
    assert len(events) >= newest[LOGGED]
    assert [(event.seq, event.node_id) for event in events] == [(n, node_of(n + 1)) for n in range(len(events))]
