"""A process that saves a run: `python -m tests.checkpoint_plugin.run_writer URL RUN CHECKPOINTS [kill]`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from checkpoint_plugin.database.location import locate
from checkpoint_plugin.store import RunHistory, Store
from hookspecs import NodeSnapshot
from tests.checkpoint_plugin.test_store import cut, definition


async def write(url: str, run_id: str, count: int, *, kill: bool) -> None:
    """Save `count` checkpoints, and be killed by oneself if that is wanted."""
    store = Store(locate(url), create=True)
    await store.insert_job(run_id, definition())
    history = RunHistory(run_id, 1, 1)
    for number in range(1, count + 1):
        state = f"{run_id} {number} " * 50
        await store.save(history, cut(NodeSnapshot("a", "running", state=state), run_id=run_id), str(number))
    if kill:
        os.kill(os.getpid(), signal.SIGKILL)
    await store.close()


if __name__ == "__main__":
    asyncio.run(write(sys.argv[1], sys.argv[2], int(sys.argv[3]), kill="kill" in sys.argv))
