"""Node types of a run that waits for two people and for a time. Each body tells a journal when it begins and when it ends."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

from workflow_runner import Context, node


def tell(journal: str, line: str) -> None:
    file = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, f"{line}\n".encode())
    finally:
        os.close(file)


@node
async def work(text: str, journal: str, context: Context) -> str:
    tell(journal, f"begin {context.node_id}")
    done = f"{text} {context.node_id}"
    tell(journal, f"end {context.node_id}")
    return done


@node
async def approve(text: str, journal: str, context: Context) -> str:
    tell(journal, f"begin {context.node_id}")
    verdict = await context.suspend("may it go on?", metadata={"text": text})
    tell(journal, f"end {context.node_id}")
    return f"{text} {context.node_id}={verdict}"


@node
async def wait(text: str, journal: str, seconds: float, context: Context) -> str:
    tell(journal, f"begin {context.node_id}")
    await context.sleep_until(datetime.now(UTC) + timedelta(seconds=seconds))
    tell(journal, f"end {context.node_id}")
    return f"{text} {context.node_id}"
