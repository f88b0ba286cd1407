"""What a participant is asked to do once, and what it answers: a line of JSON each."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["NotAvailable", "Request"]


class NotAvailable(Exception):
    """A participant has no such work: not installed, or not made for it. The text says which."""


@dataclass(frozen=True, slots=True)
class Request:
    """One measurement.

    Args:
        workload: `W1` to `W9`.
        variant: of the workload, for example `sync sqlite`.
        size: nodes, items or steps.
        store: url of a fresh database, `sqlite:///…` or `postgresql://…`; empty where nothing is stored.
        action: `measure`; `prepare` sets a store up before the clock starts, `fill` makes a run that `measure` goes on with.
    """

    workload: str
    variant: str
    size: int
    store: str = ""
    action: str = "measure"
    extra: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_line(cls, line: str) -> Request:
        """Read it."""
        return cls(**json.loads(line))

    def to_line(self) -> str:
        """Write it."""
        return json.dumps(asdict(self))

    @property
    def mode(self) -> str:
        """`off`, `sync`, `async` or `exit`, where the variant begins with it."""
        return self.variant.split()[0]

    @property
    def path(self) -> str:
        """The file of an SQLite store."""
        return self.store.removeprefix("sqlite:///")

    @property
    def is_postgresql(self) -> bool:
        """Which database."""
        return self.store.startswith("postgresql")
