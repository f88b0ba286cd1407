"""A process that saves, prunes or rotates keys until it is killed: `python -m tests.sigkill.keeper VERB URL [COUNT]`."""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
from datetime import UTC, datetime
from typing import Any, Final

from checkpoint_plugin.codec import encode
from checkpoint_plugin.database.location import locate
from checkpoint_plugin.retention import Retention
from checkpoint_plugin.runs.key_rotation import rotate_keys
from checkpoint_plugin.space.pruning import prune_runs
from checkpoint_plugin.store import RunHistory, Store
from checkpoint_plugin.stored_bytes.encryption import KeyRing
from checkpoint_plugin.tables.definition import Definition
from hookspecs import NodeSnapshot, Snapshot

__all__ = ["KEYS", "RUN", "STEPS", "cut_at", "make_run", "open_store", "ring", "save_steps", "states_at"]

RUN: Final = "kept"
STEPS: Final = 10_000
KEYS: Final = (b"1" * 32, b"2" * 32)
POOL: Final = [random.Random(number).randbytes(700) for number in range(5)]
"""Values that come, go with their last checkpoint, and come again: the writer believes that they are stored."""


def states_at(step: int) -> dict[str, Any]:
    """The state of each node at a step: one grows, one chooses, one stays what it was for some steps."""
    dice = [random.Random(number).choice(POOL) for number in range(step % 40 + 1)]
    return {"step": step, "grows": dice, "chooses": random.Random(step * 7).choice(POOL), "stays": f"{step // 5}" * 300}


def cut_at(step: int, run_id: str = RUN) -> Snapshot:
    """The cut of a step; of a node that stays what it was, there is nothing."""
    states = states_at(step)
    changed = [name for name in states if name != "stays" or step % 5 in (0, 1) or step < 3]
    nodes = tuple(NodeSnapshot(name, "running", commits=step, state=states[name]) for name in changed)
    return Snapshot(run_id, 1, "running", nodes, datetime.now(UTC))


def ring(*keys: bytes) -> KeyRing:
    """Master keys, the first for what is new."""
    return KeyRing(keys)


def open_store(url: str, *keys: bytes, create: bool = False) -> Store:
    """A store, with master keys if there are any."""
    return Store(locate(url), create=create, ring=KeyRing(keys) if keys else None)


async def make_run(store: Store, run_id: str = RUN) -> RunHistory:
    """A new run."""
    body = encode({"graph": {"nodes": [], "edges": []}, "inputs": {}, "enable": {}}, str)
    await store.insert_job(run_id, Definition(body, "{}", "{}"))
    return RunHistory(run_id, 1, 1)


async def save_steps(store: Store, history: RunHistory, last: int) -> None:
    """Save the steps that follow, and tell each when it is durable."""
    for step in range(history.number + 1, last + 1):
        ref = await store.save(history, cut_at(step, history.run_id), "step")
        assert ref.number == step
        print(step, flush=True)


async def prune(url: str) -> None:
    """Prune again and again, always something."""
    store, dice = open_store(url), random.Random()
    print("ready", flush=True)
    while True:
        await prune_runs(store, Retention(keep_last=dice.choice((1, 2, 5))), [RUN])
        print("pruned", flush=True)


async def rotate(url: str) -> None:
    """Wrap the keys of every run with one master key, then with the other."""
    store = open_store(url, *KEYS)
    print("ready", flush=True)
    for number in itertools.count(1):
        await rotate_keys(store, ring(*(KEYS if number % 2 == 0 else KEYS[::-1])))
        print("rotated", flush=True)


async def save(url: str, last: int) -> None:
    """Save a new run, or go on with one."""
    store = open_store(url)
    history = RunHistory(RUN, 1, 1)
    await store.restore(history, None)
    print("ready", flush=True)
    await save_steps(store, history, last)
    await store.close()


def main() -> None:
    """Do what the arguments say."""
    match sys.argv[1:]:
        case ["prune", url]:
            asyncio.run(prune(url))
        case ["rotate", url]:
            asyncio.run(rotate(url))
        case ["save", url, last]:
            asyncio.run(save(url, int(last)))


if __name__ == "__main__":
    main()
