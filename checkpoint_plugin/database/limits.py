"""How long a store may keep anybody waiting: each wait has an end, and a default."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, fields
from typing import Final

__all__ = ["DEFAULT_LIMITS", "LimitInvalid", "Limits"]

LONGEST: Final = 86_400.0
"""Seconds; who wants to wait for longer than a day has another problem."""
ALIASES: Final[Mapping[str, str]] = {"connect_timeout": "connect_seconds"}
"""What other programs of PostgreSQL call the same in their urls."""


class LimitInvalid(ValueError):
    """Raised when a limit is no number of seconds.

    Args:
        name: of the limit.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is a number of seconds above 0 and up to {LONGEST:g}")
        self.name = name


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one store, parts of its url.

    Args:
        connect_seconds: until a connection to PostgreSQL stands.
        statement_seconds: until a statement is done; a connection that is silent for longer in a transaction is ended.
        lock_seconds: until PostgreSQL gives a lock that others hold.
        reconnect_seconds: for which a server that went away is tried again, before a run fails.
        busy_seconds: until a file of SQLite is free.
    """

    connect_seconds: float = 10.0
    statement_seconds: float = 60.0
    lock_seconds: float = 10.0
    reconnect_seconds: float = 30.0
    busy_seconds: float = 30.0

    @classmethod
    def take(cls, query: MutableMapping[str, str]) -> Limits:
        """Take the limits out of the parameters of a url.

        Args:
            query: the parameters; what is no limit stays.

        Raises:
            LimitInvalid: one is no number of seconds; its value is not told, as nothing of a url that may be a secret.
        """
        names = {field.name: field.name for field in fields(cls)}
        found = {}
        for name, limit in {**ALIASES, **names}.items():
            if name in query:
                found[limit] = _seconds(name, query.pop(name))
        return cls(**found)


def _seconds(name: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise LimitInvalid(name) from None
    if not 0 < seconds <= LONGEST:
        raise LimitInvalid(name)
    return seconds


DEFAULT_LIMITS: Final = Limits()
