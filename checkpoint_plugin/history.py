"""What an attempt knows of its run's rows."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

__all__ = ["RunHistory"]

KNOWN_PAYLOADS: Final = 50_000
"""Digests that one attempt keeps in memory, about 10 MB: a long run may store any number of values."""


@dataclass(slots=True)
class RunHistory:
    """What one attempt knows of its run's rows, so that a save reads nothing back.

    Args:
        run_id: the run.
        attempt: this one.
        number: of the newest durable checkpoint, 0 without one.
        digests: of every node's newest row.
        saved_items: durable items of each output node.
        total: the hash of the newest cut.
        payloads: digests of payloads known to be stored, the last mentioned last; the others are offered again.
    """

    run_id: str
    attempt: int
    number: int = 0
    digests: dict[str, bytes] = field(default_factory=dict)
    saved_items: dict[str, int] = field(default_factory=dict)
    total: int = 0
    payloads: OrderedDict[bytes, None] = field(default_factory=OrderedDict)

    def remember(self, digests: Iterable[bytes]) -> None:
        """These payloads are stored, and were mentioned just now."""
        for digest in digests:
            self.payloads[digest] = None
            self.payloads.move_to_end(digest)
        while len(self.payloads) > KNOWN_PAYLOADS:
            self.payloads.popitem(last=False)
