"""How long a store may keep anybody waiting, and how many connections it may take: each has an end, and a default."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, fields
from typing import Any, Final

__all__ = ["DEFAULT_LIMITS", "LimitInvalid", "Limits"]

LONGEST: Final = 86_400.0
"""Seconds; who wants to wait for longer than a day has another problem."""
MOST: Final = 1_000
"""Connections; more than any server that is well takes from one process."""
ALIASES: Final[Mapping[str, str]] = {"connect_timeout": "connect_seconds"}
"""What other programs of PostgreSQL call the same in their urls."""


class LimitInvalid(ValueError):
    """Raised when a limit is not one.

    Args:
        name: of the limit.
        wanted: what it is.
        example: how to write it.
    """

    def __init__(self, name: str, wanted: str, example: str) -> None:
        super().__init__(f"{name} is {wanted}")
        self.example = example


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one store, parts of its url.

    Args:
        connect_seconds: until a connection to PostgreSQL stands, or one that others use is free.
        statement_seconds: until a statement is done; a connection that is silent for longer in a transaction is ended.
        lock_seconds: until PostgreSQL gives a lock that others hold.
        reconnect_seconds: for which a server that went away is tried again, before a run fails.
        busy_seconds: until a file of SQLite is free.
        connections: that the runs of one event loop have at once to save in; more runs share them.
    """

    connect_seconds: float = 10.0
    statement_seconds: float = 60.0
    lock_seconds: float = 10.0
    reconnect_seconds: float = 30.0
    busy_seconds: float = 30.0
    connections: int = 4

    @classmethod
    def take(cls, query: MutableMapping[str, str]) -> Limits:
        """Take the limits out of the parameters of a url.

        Args:
            query: the parameters; what is no limit stays.

        Raises:
            LimitInvalid: one is not; its value is not told, as nothing of a url that may be a secret.
        """
        names = {field.name: field.name for field in fields(cls)}
        found: dict[str, Any] = {}
        for name, limit in {**ALIASES, **names}.items():
            if name in query:
                found[limit] = (_count if limit == "connections" else _seconds)(name, query.pop(name))
        return cls(**found)


def _count(name: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 5 and 0 < int(text) <= MOST):
        raise LimitInvalid(name, f"a whole number from 1 to {MOST}", f"{name}=8")
    return int(text)


def _seconds(name: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= LONGEST:
        raise LimitInvalid(name, f"a number of seconds above 0 and up to {LONGEST:g}", f"{name}=30")
    return seconds


DEFAULT_LIMITS: Final = Limits()
