"""W7: `CheckpointManager` alone: the first save, a save of nothing new, a restore."""

from __future__ import annotations

from benchmarks.ours.runs import prepare
from benchmarks.payloads import kilobyte
from benchmarks.request import Request
from benchmarks.worker import clocked
from checkpoint_plugin import CheckpointManager

__all__ = ["run_manager"]


async def run_manager(request: Request) -> dict[str, float]:
    """Measure them, in a store that is open."""
    await prepare(request.store)
    node_ids = [f"n{number}" for number in range(request.size)]
    outputs = {node_id: {"output": {"text": kilobyte(number)}} for number, node_id in enumerate(node_ids)}
    async with CheckpointManager("measured", enabled=True, url=request.store) as manager:
        assert not await manager.can_resume()  # the store is open from here on
        first, _ = await clocked(lambda: manager.save_checkpoint(completed_nodes=node_ids, outputs=outputs))
        again, _ = await clocked(lambda: manager.save_checkpoint())
        restore, found = await clocked(lambda: manager.restore_checkpoint())
    assert found is not None
    assert len(found.completed_nodes) == request.size
    return {"seconds": first, "again": again, "restore": restore}
