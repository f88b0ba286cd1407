"""Many calls of a model, eight at a time: a run that is killed repeats those that were under way, and no other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from workflow_runner import Context, node


@node
async def chapters(count: int) -> AsyncIterator[str]:
    for number in range(1, count + 1):
        yield f"chapter {number}"


@node(retries=3, backoff=1.0)
async def summarize(text: str, prompt: str, journal: str | None, context: Context) -> str:
    if journal is not None:
        note(Path(journal), text)
    return await ask(f"{prompt} {text}", key=context.idempotency_key)


def note(journal: Path, text: str) -> None:
    """Write a line for every call, so that what was called again can be counted."""
    with journal.open("a", encoding="utf-8") as lines:
        lines.write(f"{text}\n")


async def ask(question: str, key: str) -> str:
    """Stands for a model that takes its time, now and then ten times as long. By the key it knows what it was asked before."""
    await asyncio.sleep(1.0 if question.endswith("7") else 0.1)
    return question
