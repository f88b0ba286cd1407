"""Prefect: a flow of asynchronous tasks against the local server that it starts, which keeps their states on SQLite."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.payloads import following, kilobyte
from benchmarks.request import Request
from benchmarks.worker import clocked

__all__ = ["DISTRIBUTIONS", "WORK"]

DISTRIBUTIONS = ("prefect",)


async def run_chain(request: Request) -> dict[str, float]:
    """W1; a first flow starts the server, uncounted."""
    os.environ.setdefault("PREFECT_HOME", str(Path(tempfile.gettempdir()) / f"benchmark-prefect-{os.getpid()}"))
    for name, value in {
        "SERVER_ALLOW_EPHEMERAL_MODE": "true",
        "SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "SERVER_ANALYTICS_ENABLED": "false",
        "LOGGING_LEVEL": "CRITICAL",
        "SERVER_LOGGING_LEVEL": "CRITICAL",
        "LOGGING_TO_API_ENABLED": "false",
    }.items():
        os.environ.setdefault(f"PREFECT_{name}", value)
    from prefect import flow, task

    @task
    async def hand_on(value: dict[str, str]) -> dict[str, str]:
        return following(value)

    @flow
    async def chain(length: int) -> int:
        value: Any = {"text": kilobyte(0)}
        for _ in range(length):
            value = await hand_on(value)
        return int(value["text"][:8])

    await chain(1)
    seconds, found = await clocked(lambda: chain(request.size))
    assert found == request.size
    return {"seconds": seconds}


WORK = {"W1": run_chain}
