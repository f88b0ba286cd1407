"""Closing a generator body where it stands: because nobody is left to hear it, or its try is over."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

__all__ = ["close_body"]


async def close_body(body: AsyncGenerator[Any, None]) -> None:
    """Let a body that was interrupted where it yields clean up.

    A `TaskGroup` around the `yield` makes a group of the `GeneratorExit` by which it is closed; that is no error.

    Raises:
        BaseException: what else it raised.
    """
    try:
        await body.aclose()
    except BaseExceptionGroup as group:
        if (rest := group.split(GeneratorExit)[1]) is not None:
            raise rest from None
