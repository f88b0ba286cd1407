"""W3, W4, W6 and W7 by hand: what a table costs that holds just the data."""

from __future__ import annotations

import hashlib
from typing import Any

import ormsgpack

from benchmarks.floors.writer import open_writer
from benchmarks.payloads import kilobyte, large
from benchmarks.request import Request
from benchmarks.worker import clocked

__all__ = ["restore", "save_growing", "save_large", "save_nodes"]


async def save_large(request: Request) -> dict[str, float]:
    """W3: one row of 1 MiB a commit, as it is."""
    kind = request.mode
    values = [large(kind, number) for number in range(request.size)]
    async with open_writer(request) as writer:

        async def work() -> None:
            for number, value in enumerate(values):
                await writer.write([(number, value.encode() if isinstance(value, str) else value)])

        seconds, _ = await clocked(work)
    return {"seconds": seconds}


async def save_growing(request: Request) -> dict[str, float]:
    """W6: one row of what is new a commit."""
    async with open_writer(request) as writer:

        async def work() -> None:
            for number in range(request.size):
                await writer.write([(number, kilobyte(number).encode())])

        seconds, _ = await clocked(work)
    return {"seconds": seconds}


async def restore(request: Request) -> dict[str, float]:
    """W4: connect, and a bare SELECT of the rows that are needed: of each node where it stands and a digest, and the graph."""
    if request.action == "fill":
        rows = [(number, ormsgpack.packb(_standing(number))) for number in range(request.size)]
        edges = [
            {"source": f"n{n}", "sourceHandle": "output", "target": f"n{n + 1}", "targetHandle": "value"}
            for n in range(request.size)
        ]
        nodes = [
            {"id": f"n{n}", "type": "benchmarks.ours.nodes.hand_on", "data": {}, "sync_mode": "on_any"}
            for n in range(request.size)
        ]
        rows.append((request.size, ormsgpack.packb({"nodes": nodes, "edges": edges})))
        async with open_writer(request) as writer:
            await writer.write(rows)
        return {"seconds": 0.0}

    async def work() -> list[Any]:
        async with open_writer(request) as writer:
            return await writer.fetch("SELECT id, value FROM node")

    seconds, rows = await clocked(work)
    assert len(rows) == request.size + 1
    return {"seconds": seconds}


def _standing(number: int) -> list[Any]:
    return [f"n{number}", "completed", 1, 1, 1, "source", 1.7e9, 1.7e9, hashlib.blake2b(b"%d" % number, digest_size=32).digest()]


async def save_nodes(request: Request) -> dict[str, float]:
    """W7: all nodes in one commit, and all of them read back."""
    rows = [(number, ormsgpack.packb({"output": {"text": kilobyte(number)}})) for number in range(request.size)]
    async with open_writer(request) as writer:
        first, _ = await clocked(lambda: writer.write(rows))
        again, found = await clocked(lambda: writer.fetch("SELECT id, value FROM node"))
    assert len(found) == request.size
    return {"seconds": first, "restore": again}
