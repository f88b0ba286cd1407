"""What an attempt knows of its run's rows."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from checkpoint_plugin.saving.completed import Tally
from checkpoint_plugin.saving.holding import Holding
from checkpoint_plugin.saving.large_values import LargeValue
from checkpoint_plugin.saving.payloads import BaseCache
from checkpoint_plugin.saving.rows import NO_PLACES, GraphPlaces
from checkpoint_plugin.stored_bytes.sealing import PLAIN, Seal
from hookspecs import Suspension

if TYPE_CHECKING:
    from checkpoint_plugin.saving.writing import CutWriter

__all__ = ["RunHistory"]

KNOWN_PAYLOADS: Final = 50_000
"""Digests that one attempt keeps in memory, about 10 MB: a long run may store any number of values."""


@dataclass(slots=True)
class RunHistory:
    """What one attempt knows of its run's rows, so that a save reads nothing back.

    Args:
        run_id: the run.
        attempt: this one.
        epoch: of the lease under which it writes.
        places: where values come from, as the graph tells.
        generation: of the run's rows: another one means that some were pruned.
        number: of the newest durable checkpoint, 0 without one.
        digests: of the newest rows of nodes.
        unread: nodes whose rows nobody read, because a block tells that they have completed.
        tally: what the next block will tell; `None` where none is written.
        saved_items: durable items of each output node.
        held: what nodes hold as of their newest rows, of those that hold much and whose rows this attempt read or wrote.
        log: to which output items are appended; another one after going back to an older checkpoint.
        total: the hash of the newest cut.
        status: of the run in the last checkpoint of this attempt.
        suspended: nodes that wait, of those that were told in a cut.
        payloads: digests of payloads known to be stored, the last mentioned last; the others are offered again.
        large: large values of the newest rows by id.
        bases: values that later ones may grow out of.
        seal: how bytes are stored.
        unheard: saves that failed, of which one may have been written all the same: then the next goes on from it.
    """

    run_id: str
    attempt: int
    epoch: int = 0
    places: GraphPlaces = field(default=NO_PLACES, compare=False)
    generation: int = 0
    number: int = 0
    digests: dict[str, bytes] = field(default_factory=dict)
    unread: int = 0
    tally: Tally | None = None
    saved_items: dict[str, int] = field(default_factory=dict)
    held: dict[str, Holding] = field(default_factory=dict, compare=False)
    log: int = 0
    total: int = 0
    status: str | None = None
    suspended: dict[str, Suspension] = field(default_factory=dict)
    payloads: OrderedDict[bytes, None] = field(default_factory=OrderedDict)
    large: dict[int, LargeValue] = field(default_factory=dict, compare=False)
    bases: BaseCache = field(default_factory=BaseCache, compare=False)
    seal: Seal = PLAIN
    unheard: list[CutWriter] = field(default_factory=list, compare=False)

    def tells_of(self, node_id: str) -> bool:
        """Whether there may be a row of a node in an earlier checkpoint; where nothing is known of one, of any."""
        return node_id in self.digests or (self.number > 0 and not (self.digests or self.unread))

    def remember(self, digests: Iterable[bytes]) -> None:
        """These payloads are stored, and were mentioned just now."""
        for digest in digests:
            self.payloads[digest] = None
            self.payloads.move_to_end(digest)
        while len(self.payloads) > KNOWN_PAYLOADS:
            self.payloads.popitem(last=False)

    def forget(self, generation: int, ends: Mapping[int, int]) -> None:
        """Rows were pruned: what is remembered of payloads counts no more, but for values that are made of what is still there.

        Args:
            generation: of the rows that are left.
            ends: of each series the end of the last value that is made of it.
        """
        self.generation = generation
        self.status = None
        self.held.clear()
        self.payloads.clear()
        self.large.clear()
        self.bases.keep(ends)
