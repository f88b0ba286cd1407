"""A process that logs events: `python -m tests.checkpoint_plugin.event_writer URL RUN NAME COUNT`."""

from __future__ import annotations

import asyncio
import sys

from checkpoint_plugin import EventLogger


async def write(url: str, run_id: str, name: str, count: int) -> None:
    """Log `count` events that tell who wrote them and in which order; every hundredth waits until it is durable."""
    async with EventLogger(run_id, url) as log:
        for place in range(count):
            await log.log("failed" if place % 100 == 99 else "note", name, {"place": place})


if __name__ == "__main__":
    asyncio.run(write(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
