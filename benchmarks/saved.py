"""A chain saved at every node on SQLite, against one hand-written commit a node in one thread; both WAL and FULL."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import tempfile
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.chain import VALUE, chain_graph
from benchmarks.timing import Comparison, compare
from workflow_runner import WorkflowRunner

__all__ = ["run_saved"]


def run_saved(length: int, rounds: int) -> Comparison:
    """Compare; the plugin must be installed."""
    graph = chain_graph(length)
    number = count()
    with tempfile.TemporaryDirectory() as folder:

        async def ours() -> list[Any]:
            path = Path(folder) / "ours.db"
            enable = {"checkpoint": {"every_firing": True, "url": f"sqlite:///{path}"}}
            return (await WorkflowRunner().run(graph, enable=enable)).outputs["end"]

        async def by_hand() -> list[Any]:
            return await one_commit_a_node(Path(folder) / f"floor{next(number)}.db", length)

        return compare(f"chain of {length}, every firing, SQLite", "node", length, ours, by_hand, rounds)


async def one_commit_a_node(path: Path, length: int) -> list[Any]:
    """The floor."""
    loop = asyncio.get_running_loop()
    text = json.dumps(VALUE)
    with ThreadPoolExecutor(1) as thread:
        connection = await loop.run_in_executor(thread, _open, path)

        def commit(number: int) -> None:
            connection.execute(
                "INSERT INTO node VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET value = excluded.value", (number, text)
            )

        for number in range(length):
            await loop.run_in_executor(thread, commit, number)
        await loop.run_in_executor(thread, connection.close)
    return [VALUE]


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=wal")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE node (id INTEGER PRIMARY KEY, value TEXT)")
    return connection
