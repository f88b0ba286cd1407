"""Connections that know the array types of a server, where another one of this process has asked."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Final

import asyncpg

__all__ = ["KnowingConnection"]

BUILT_IN: Final = 10_000
"""The number from which on a type may be anything; those below are the same in every database of a version."""
NO_QUESTION: Final = SimpleNamespace(name="none")
"""In the place of the statement that asked: one without a name would have thrown out the statement that is being prepared."""
ARRAYS: Final = frozenset((1000, 1001, 1005, 1007, 1009, 1015, 1016, 1022, 1185))
"""Of truth values, bytes, numbers, texts and times: all that statements of a store have. They are asked for together."""
_KNOWN: dict[tuple[Any, frozenset[int]], Any] = {}


class KnowingConnection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg tells no types
    """Asks once a process what arrays of bytes, numbers and times are, where asyncpg asks it at each connection.

    The answer, of a recursive query over the catalogue, takes as long as ten saves. The method that is replaced is no part of
    what asyncpg promises: where a later version calls it otherwise, each connection asks again, and nothing else changes.
    """

    async def _introspect_types(self, typeoids: Any, timeout: Any) -> Any:
        if any(number >= BUILT_IN for number in typeoids):
            return await super()._introspect_types(typeoids, timeout)
        wanted = self.get_server_version(), frozenset(typeoids) | ARRAYS
        if wanted in _KNOWN:
            return _KNOWN[wanted], NO_QUESTION
        types, question = await super()._introspect_types(wanted[1], timeout)
        _KNOWN[wanted] = types
        return types, question
