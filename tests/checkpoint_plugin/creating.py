"""Processes that make one store at the same moment, round after round: `python -m tests.checkpoint_plugin.creating URL ROUNDS`.

In the url, `ROUND` stands for the number of the round.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
import traceback
from multiprocessing.synchronize import Barrier
from typing import Any

from checkpoint_plugin.database.location import locate
from checkpoint_plugin.store import Store
from tests.checkpoint_plugin.test_store import definition

__all__ = ["create_at_once"]

PROCESSES = 6
WAIT_SECONDS = 120


async def begin(url: str, run_id: str) -> list[str]:
    """Make the store, begin a run, and tell which runs there are."""
    store = Store(locate(url), create=True)
    try:
        await store.insert_job(run_id, definition())
        return [row.id for row in await store.jobs()]
    finally:
        await store.close()


def work(url: str, rounds: int, number: int, barrier: Barrier, told: Any) -> None:
    """What one process does."""
    for this in range(rounds):
        barrier.wait(WAIT_SECONDS)
        try:
            runs = asyncio.run(begin(url.replace("ROUND", str(this)), f"r{number}"))
            told.put(None if f"r{number}" in runs else f"round {this}: r{number} is not in {runs}")
        except BaseException:
            told.put(f"round {this}: {traceback.format_exc()}")


def create_at_once(url: str, rounds: int) -> list[str]:
    """Make stores.

    Args:
        url: of the stores.
        rounds: how many.

    Returns:
        What went wrong.
    """
    context = multiprocessing.get_context("spawn")
    barrier, told = context.Barrier(PROCESSES), context.Queue()
    processes = [context.Process(target=work, args=(url, rounds, number, barrier, told)) for number in range(PROCESSES)]
    for process in processes:
        process.start()
    found = [told.get(timeout=WAIT_SECONDS) for _ in range(rounds * PROCESSES)]
    for process in processes:
        process.join(WAIT_SECONDS)
    return [text for text in found if text is not None]


if __name__ == "__main__":
    wrong = create_at_once(sys.argv[1], int(sys.argv[2]))
    print(f"{len(wrong)} wrong", *wrong[:5], sep="\n")
    sys.exit(bool(wrong))
