"""Which checkpoints are kept: the rules, as options and as flags, without a database."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from hookspecs import PluginOptionsInvalid, shorten

__all__ = ["LONGEST", "CheckpointRow", "PruneTurns", "Retention", "Thinning", "read_duration"]

UNITS: Final[Mapping[str, float]] = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
LONGEST: Final = 365_000 * 86_400.0
"""Seconds, a thousand years: a time so long ago is still one."""
DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)([smhdw]?)")
PRUNE_EVERY: Final = 100
"""Checkpoints from one pruning of a run by itself to the next, at least."""
NODES_A_SAVE: Final = 10
"""Nodes of a run for each of which it waits for one checkpoint more."""
PRUNE_BYTES: Final = 64 << 20
"""Bytes for which it does not wait longer than for those at least."""
FINISHED: Final = frozenset({"completed", "cancelled"})


class CheckpointRow(Protocol):
    """What the rules look at."""

    @property
    def number(self) -> int: ...
    @property
    def created_at(self) -> datetime: ...
    @property
    def label(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Thinning:
    """Of checkpoints that are older than `after` seconds, the newest of every `every` seconds is kept.

    Raises:
        ValueError: one of them is no such time.
    """

    after: float
    every: float

    def __post_init__(self) -> None:
        _check_seconds(self.after)
        if not _check_seconds(self.every):
            raise ValueError("every is a duration of more than 0 seconds.")


@dataclass(frozen=True, slots=True)
class Retention:
    """What is kept of a run. A checkpoint that any rule keeps is kept; without rules all are.

    The newest and those that a person named are always kept, whatever the rules say.

    Args:
        keep_last: so many of the newest; at least 1.
        keep_for: those that are younger than so many seconds.
        thin: of older ones, some.
        terminal_only: of a finished run (completed or cancelled) only its end.
        drop_finished: seconds after its end when a finished run goes altogether.

    Raises:
        ValueError: one of them is no such number.
    """

    keep_last: int | None = None
    keep_for: float | None = None
    thin: tuple[Thinning, ...] = ()
    terminal_only: bool = False
    drop_finished: float | None = None

    def __post_init__(self) -> None:
        if self.keep_last is not None and (type(self.keep_last) is not int or self.keep_last < 1):
            raise ValueError(f"keep_last is a whole number of at least 1, not {self.keep_last!r}.")
        if not isinstance(self.thin, (tuple, list)) or not all(isinstance(rule, Thinning) for rule in self.thin):
            raise ValueError(f"thin is a tuple of Thinning, not {self.thin!r}. Let Retention.from_options read a document.")
        for seconds in (self.keep_for, self.drop_finished):
            if seconds is not None:
                _check_seconds(seconds)

    @classmethod
    def from_options(cls, options: object, plugin: str = "checkpoint") -> Retention:
        """Read the rules of a document.

        Args:
            options: `{"keep_last": 10, "keep_for": "7d", "thin": [{"after": "1d", "every": "1h"}], "terminal_only": true,
                "drop_finished": "30d"}`, any of them; a duration is a number of seconds or text with s, m, h, d or w.
            plugin: whose options they are, for the error.

        Raises:
            PluginOptionsInvalid: a rule is unknown or has a wrong value.
        """
        known = ("keep_last", "keep_for", "thin", "terminal_only", "drop_finished")
        if not isinstance(options, Mapping) or (unknown := [name for name in options if name not in known]):
            what = f"no rule {unknown[0]!r}" if isinstance(options, Mapping) else f"an object of rules, not {options!r}"
            raise PluginOptionsInvalid(plugin, f"checkpoint: retention has {what}. Its rules: {', '.join(known)}.")
        last, thin, terminal = options.get("keep_last"), options.get("thin", ()), options.get("terminal_only", False)
        if last is not None and (type(last) is not int or last < 1):
            raise PluginOptionsInvalid(plugin, f"checkpoint: retention keep_last is a whole number of at least 1, not {last!r}.")
        if type(terminal) is not bool:
            raise PluginOptionsInvalid(plugin, f"checkpoint: retention terminal_only is true or false, not {terminal!r}.")
        if not isinstance(thin, Sequence) or isinstance(thin, str) or not all(_is_thinning(rule) for rule in thin):
            form = '[{"after": "1d", "every": "1h"}]'
            raise PluginOptionsInvalid(plugin, f"checkpoint: retention thin is a list like {form}, not {thin!r}.")

        def seconds(name: str, value: Any) -> float:
            try:
                return read_duration(value)
            except ValueError as error:
                raise PluginOptionsInvalid(plugin, f"checkpoint: retention {name}: {error}") from error

        try:
            rules = tuple(Thinning(read_duration(rule["after"]), read_duration(rule["every"])) for rule in thin)
        except ValueError as error:
            raise PluginOptionsInvalid(plugin, f"checkpoint: retention thin: {error}") from error
        times = {name: seconds(name, options[name]) for name in ("keep_for", "drop_finished") if options.get(name) is not None}
        return cls(keep_last=last, thin=rules, terminal_only=terminal, **times)

    def kept(self, rows: Sequence[CheckpointRow], status: str, now: datetime) -> set[int]:
        """The numbers of the checkpoints that stay.

        Args:
            rows: the run's checkpoints, oldest first.
            status: of the run.
            now: aware.
        """
        always = {row.number for row in rows if row.label is not None} | {row.number for row in rows[-1:]}
        if self.terminal_only and status in FINISHED:
            return always
        if self.keep_last is None and self.keep_for is None and not self.thin:
            return {row.number for row in rows}
        kept = set(always)
        if self.keep_last is not None:
            kept.update(row.number for row in rows[-self.keep_last :])
        if self.keep_for is not None:
            since = now - timedelta(seconds=self.keep_for)
            kept.update(row.number for row in rows if row.created_at >= since)
        for rule in self.thin:
            kept.update(_thinned(rows, rule, now))
        return kept

    def drops(self, status: str, ended_at: datetime | None, now: datetime) -> bool:
        """Whether a run goes altogether."""
        if self.drop_finished is None or status not in FINISHED or ended_at is None:
            return False
        return ended_at <= now - timedelta(seconds=self.drop_finished)


class PruneTurns:
    """When a run prunes itself while it executes. Each time costs a look at all of its rows: a run of many nodes waits longer."""

    def __init__(self) -> None:
        self._saves: int | None = None
        self._bytes = 0

    def is_due(self, number: int, size: int, nodes: int) -> bool:
        """Whether it is time, after one more checkpoint; the count begins anew then.

        Args:
            number: of the checkpoint; of the first that is told, it and all before count.
            size: its bytes.
            nodes: of which the run has rows.
        """
        self._saves = number if self._saves is None else self._saves + 1
        self._bytes += size
        if self._saves < PRUNE_EVERY or (self._saves * NODES_A_SAVE < nodes and self._bytes < PRUNE_BYTES):
            return False
        self._saves = self._bytes = 0
        return True


def read_duration(value: object) -> float:
    """Seconds of a number, or of text like `90s`, `15m`, `12h`, `7d`, `2w`.

    Raises:
        ValueError: it is something else.
    """
    found = DURATION.fullmatch(value) if isinstance(value, str) else None
    if type(value) in (int, float) and value >= 0:  # type: ignore[operator]
        seconds: float = value  # type: ignore[assignment]
    elif found is not None:
        seconds = float(found[1]) * UNITS[found[2] or "s"]
    else:
        raise ValueError(f"{shorten(value)} is no duration. Give seconds, or text like 90s, 15m, 12h, 7d, 2w.")
    if seconds > LONGEST:
        raise ValueError(f"{shorten(value)} is longer than {LONGEST // UNITS['d']:.0f}d, the longest duration. Give less.")
    return float(seconds)


def _check_seconds(value: object) -> float:
    if isinstance(value, str):
        raise ValueError(f"{shorten(value)} is no number of seconds. Give one, or let Retention.from_options read it.")
    return read_duration(value)


def _is_thinning(rule: object) -> bool:
    return isinstance(rule, Mapping) and rule.keys() == {"after", "every"}


def _thinned(rows: Iterable[CheckpointRow], rule: Thinning, now: datetime) -> Iterable[int]:
    """The newest of each stretch of time, counted from the epoch so that a later look keeps the same ones."""
    newest: dict[int, int] = {}
    for row in rows:
        if row.created_at <= now - timedelta(seconds=rule.after):
            newest[int(row.created_at.astimezone(UTC).timestamp() // max(rule.every, 1e-6))] = row.number
    return newest.values()
