"""A process that saves large values as files again and again, and prunes, until it is killed, maybe by itself."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import Callable
from typing import Any

from checkpoint_plugin.blobs.files import Blobs
from checkpoint_plugin.blobs.folder import FolderPlace
from checkpoint_plugin.codec import encode
from checkpoint_plugin.database.location import locate
from checkpoint_plugin.retention import Retention
from checkpoint_plugin.space.pruning import prune_runs
from checkpoint_plugin.store import RunHistory, Store
from checkpoint_plugin.tables.definition import Definition
from hookspecs import NodeSnapshot, RunExists, Snapshot

__all__ = ["KEEPS", "RUN", "states_at", "store_with_files"]

RUN = "r"
LIMIT = 1 << 16
SIZE = 1 << 19
NTH = 5
KEEPS = Retention(keep_last=2)


def store_with_files(url: str, option: str) -> Store:
    """The store; `option` is `true` or a url."""
    location = locate(url)
    return Store(location, create=True, blobs=Blobs(location, option == "true" or option, LIMIT))


def states_at(step: int) -> dict[str, Any]:
    """What each node has saved at a step: one value that stays for some time, one that is new, and the step."""
    return {
        "stays": random.Random(step // 7).randbytes(SIZE),
        "new": random.Random(-1 - step).randbytes(SIZE),
        "step": step,
    }


async def main(url: str, option: str, moment: str) -> None:
    """Go on from what is stored."""
    store = store_with_files(url, option)
    try:
        await store.insert_job(RUN, Definition(encode({"graph": {}, "inputs": {}, "enable": {}}, str), "{}", "{}"))
    except RunExists:
        pass
    history = RunHistory(RUN, 1, 1)
    found = await store.restore(history, None)
    step = 0 if found is None else next(node.state for node in found.nodes if node.node_id == "step")
    print("ready", flush=True)
    arm(moment)
    while True:
        step += 1
        nodes = tuple(NodeSnapshot(name, "running", state=state) for name, state in states_at(step).items())
        await store.save(history, Snapshot(RUN, 1, "running", nodes, taken_at()), "test")
        print(step, flush=True)
        if step % 3 == 0:
            await prune_runs(store, KEEPS, [RUN])


def taken_at() -> Any:
    from datetime import UTC, datetime

    return datetime.now(UTC)


def arm(moment: str) -> None:
    """Be killed when something is done for the `NTH` time: in the middle of a file, before the transaction, or after it."""
    times = [0]

    def before(real: Callable[..., Any]) -> Callable[..., Any]:
        def armed(*args: Any, **more: Any) -> Any:
            times[0] += 1
            if times[0] == NTH:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **more)

        return armed

    write = os.write

    def halves(handle: int, data: Any) -> int:
        if len(data) < SIZE // 2:
            return write(handle, data)
        times[0] += 1
        done = write(handle, data[: len(data) // 2])
        if times[0] == NTH:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    if moment == "write":
        os.write = halves
    elif moment == "settle":
        FolderPlace.settle = before(FolderPlace.settle)  # type: ignore[method-assign]
    elif moment == "remove":
        FolderPlace.remove = before(FolderPlace.remove)  # type: ignore[method-assign]


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
