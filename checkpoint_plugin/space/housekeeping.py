"""Pruning as one call: what no rule keeps, and the files that nothing mentions any more."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from checkpoint_plugin.errors import StoreDamaged
from checkpoint_plugin.retention import Retention
from checkpoint_plugin.runs.access import StoreAccess
from checkpoint_plugin.space.pruning import Pruned, prune_runs
from checkpoint_plugin.space.sweep import Swept, sweep_blobs
from checkpoint_plugin.store import Store

__all__ = ["PruneReport", "prune"]


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What was deleted.

    Args:
        runs: those of which something was.
        orphans: files that nothing mentioned.
        damaged: runs whose rows are damaged; they are as they were.
    """

    runs: Sequence[Pruned]
    orphans: Swept
    damaged: Sequence[StoreDamaged]

    @property
    def freed(self) -> int:
        """Bytes of all of it."""
        return sum(run.freed for run in self.runs) + self.orphans.size


async def prune(
    rules: Retention | Mapping[str, Any],
    run_ids: Sequence[str] | None = None,
    *,
    url: str | None = None,
    store: Store | None = None,
    dry_run: bool = False,
    tell: Callable[[int, int], object] | None = None,
) -> PruneReport:
    """Delete old checkpoints, and give back the space; as `workflow prune`. It is safe while runs execute.

    Args:
        rules: what is kept, as the option `retention`: `{"keep_last": 10, "drop_finished": "30d"}`, or a `Retention`.
        run_ids: of these runs; of all without.
        url: of the store; `None` for the default.
        store: an open one instead; its owner closes it.
        dry_run: delete nothing, and only tell.
        tell: called after every run with how many are done, and how many there are.

    Raises:
        ValueError: there is no rule, so that everything is kept.
        TypeError: `run_ids` is one text.
        PluginOptionsInvalid: a rule is unknown or has a wrong value.
        StoreMissing: there is no store.
        RunNotFound: a run that is named is not there.
        StoreError: the store, or the place of its files, cannot be used.
    """
    if isinstance(run_ids, str):
        raise TypeError(f"run_ids is a list, not the text {run_ids!r}. Give [{run_ids!r}].")
    if not isinstance(rules, Retention):
        rules = Retention.from_options(rules)
    if rules == Retention():
        raise ValueError("no rule says what is deleted, and nothing would be. Give one, like {'keep_last': 10}.")
    damaged: list[StoreDamaged] = []
    async with StoreAccess(url, store).open(create=False) as opened:
        pruned = await prune_runs(opened, rules, run_ids, dry_run=dry_run, damage=damaged.append, tell=tell)
        return PruneReport(pruned, await sweep_blobs(opened, run_ids, dry_run=dry_run), damaged)
