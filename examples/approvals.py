"""A letter that a person approves: the run waits without a process."""

from __future__ import annotations

from workflow_runner import Context, node


@node(retries=3, backoff=1.0)
async def draft(topic: str) -> str:
    return f"A letter about {topic}."  # a model call, say


@node
async def approve(text: str, context: Context) -> str:
    verdict = await context.suspend("may this be sent?", metadata={"text": text})
    return text if verdict == "yes" else f"{text} ({verdict})"
