"""When to save: the options of the plugin, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any

from checkpoint_plugin.retention import Retention
from hookspecs import PluginOptionsInvalid, shorten

__all__ = ["NAME", "Policy"]

NAME = "checkpoint"
MAX_BYTES = 1_000_000_000
"""What a column of both databases can hold."""
DURABILITIES = ("sync", "async", "exit")
SWITCHES = (
    "every_firing",
    "explicit",
    "on_suspend",
    "on_error",
    "on_signal",
    "events",
    "required",
    "best_effort",
    "auto_migrate",
)
TIMED = ("every_seconds", "every_nodes", "every_firing", "before", "after")
"""Options that say when to save by themselves; who saves only when a node asks, or at the end, has none of them."""
MIN_LEASE = 1
"""Below a second a slow commit would cost the run."""
MAX_SECONDS = 1e9
"""What a timer can count to; who wants no saves by time chooses `explicit`."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The options. Without any, a run is saved every 5 seconds, when it suspends, on error, on a signal and at its end.

    Args:
        every_seconds: seconds from one save to the next; more than 0. 5 where neither `every_firing` nor `every_nodes` is.
        every_nodes: save each time that this many bodies have returned.
        every_firing: save at every return and every yield, and let nobody see an emission before it is durable.
        before: ids of nodes and names of types; save before each firing of these, and start it when that is durable.
        after: ids and types likewise; save when a firing of these has ended, before anybody sees what it returned.
        explicit: save only when a node asks with `context.checkpoint()` or suspends, and at the end.
        on_suspend: save when nothing can move but nodes that are suspended; that is so in any case.
        on_error: save when a node fails.
        on_signal: save when the run is stopped by a signal or by `WorkflowRunner.stop`, or cancelled.
        durability: `"sync"`: whoever triggers a save waits until it is durable, nobody else. `"async"`: `every_nodes` and
            `every_firing` do not wait, saves are written behind; `before`, `after` and a node that asks still do. `"exit"`:
            nothing is saved before the end but what a node asks for.
        max_lag_steps: with `every_firing` and `"async"`, emissions that may be ahead of what is durable.
        max_lag_bytes: and bytes of them.
        required: a save that fails ends the run, which can be resumed.
        best_effort: the opposite: the run goes on, is marked as degraded, and leaves with exit code 6 when it has completed.
        retention: which checkpoints of this run are kept, as `Retention.from_options` reads it; all without.
        witness: a folder, best on another disk, where the number and hash of the newest checkpoint are noted, so that a
            resume sees what the disk of the store has lost.
        key_provider: name of an installed provider of master keys; without, they are in `WORKFLOW_CHECKPOINT_KEY`, and where
            that is not set nothing is encrypted.
        url: of the store; never stored.
        auto_migrate: upgrade tables of an older layout on PostgreSQL, too; those on SQLite always are.
        lease_seconds: how long the run is held after the last sign of life of its process, which gives three in that time;
            then another may resume it.
        events: keep a log of what happens to the run and its nodes.
        max_value_bytes: that one value may take when it is encoded, before compression; a larger one fails the save.
        blobs: keep large values as files: `true` for a folder beside a SQLite database, or the url of a place, which is never
            stored; without, `WORKFLOW_CHECKPOINT_BLOBS` says it, and where that is not set they are kept in the database.
        blob_bytes: bytes from which on an encoded value is kept so, before compression.
    """

    every_seconds: float | None = 5.0
    every_nodes: int | None = None
    every_firing: bool = False
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    explicit: bool = False
    on_suspend: bool = True
    on_error: bool = True
    on_signal: bool = True
    durability: str = "sync"
    max_lag_steps: int = 1_000
    max_lag_bytes: int = 64 << 20
    required: bool = True
    best_effort: bool = False
    retention: Retention | None = None
    witness: str | None = None
    key_provider: str | None = None
    url: str | None = None
    auto_migrate: bool = False
    lease_seconds: float = 30.0
    events: bool = False
    max_value_bytes: int = 268_435_456
    blobs: bool | str | None = None
    blob_bytes: int = 1_048_576

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Policy:
        """Check the options of a run.

        Raises:
            PluginOptionsInvalid: one is unknown or has a wrong value.
        """
        known = [item.name for item in fields(cls)]
        for name in options:
            if name not in known:
                near = get_close_matches(str(name), known, n=1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise PluginOptionsInvalid(NAME, f"checkpoint has no option {name!r}.{hint} Its options: {', '.join(known)}.")
        for name in SWITCHES:
            if not isinstance(options.get(name, True), bool):
                raise _invalid(name, options[name], "true or false")
        if options.get("durability", "sync") not in DURABILITIES:
            raise _invalid("durability", options["durability"], '"sync", "async" or "exit"')
        for name in ("max_lag_steps", "max_lag_bytes", "blob_bytes"):
            if type(options.get(name, 1)) is not int or options.get(name, 1) < 1:
                raise _invalid(name, options[name], "a whole number of at least 1")
        if options.get("required") is not None and options.get("best_effort") is options["required"]:
            raise PluginOptionsInvalid(NAME, "checkpoint: best_effort is the opposite of required. Leave out one of the two.")
        for name in ("url", "witness", "key_provider"):
            if not isinstance(options.get(name), str | None):
                raise _invalid(name, options[name], "text")
        if options.get("witness") == "":  # as a path it would be the current folder
            raise _invalid("witness", "", "a folder")
        if not isinstance(options.get("blobs"), bool | str | None) or options.get("blobs") == "":
            raise _invalid("blobs", options["blobs"], "true, false or a url")
        largest = options.get("max_value_bytes", 1)
        if type(largest) is not int or not 0 < largest <= MAX_BYTES:
            raise _invalid("max_value_bytes", largest, f"a number of bytes from 1 to {MAX_BYTES}")
        nodes = options.get("every_nodes")
        if nodes is not None and (type(nodes) is not int or nodes < 1):
            raise _invalid("every_nodes", nodes, "a whole number of at least 1")
        seconds = options.get("every_seconds")
        if seconds is not None and (type(seconds) not in (int, float) or not 0 < seconds <= MAX_SECONDS):
            raise _invalid("every_seconds", seconds, "a number of seconds above 0")
        held = options.get("lease_seconds", 1)
        if type(held) not in (int, float) or not MIN_LEASE <= held <= MAX_SECONDS:
            raise _invalid("lease_seconds", held, f"a number of seconds of at least {MIN_LEASE}")
        chosen = dict(options)
        if chosen.get("retention") is not None:
            chosen["retention"] = Retention.from_options(chosen["retention"])
        for name in ("before", "after"):
            chosen[name] = _names(name, chosen.get(name))
        if chosen.get("every_firing") and chosen.get("every_nodes"):
            raise _contradiction("every_firing", "every_nodes")
        if chosen.get("explicit"):
            _exclude("explicit", chosen)
            chosen.update(every_seconds=None, on_error=chosen.get("on_error", False), on_signal=chosen.get("on_signal", False))
        elif (chosen.get("every_firing") or chosen.get("every_nodes")) and "every_seconds" not in chosen:
            chosen["every_seconds"] = None
        if chosen.get("durability") == "exit":
            _exclude('durability "exit"', chosen)
            chosen["every_seconds"] = None
        if "required" in chosen or "best_effort" in chosen:
            chosen["best_effort"] = chosen.get("best_effort", not chosen.get("required", True))
            chosen["required"] = not chosen["best_effort"]
        return cls(**chosen)

    @property
    def moments(self) -> tuple[str, ...]:
        """The ends of a run at which a last cut is taken."""
        return (
            *(("suspend",) if self.on_suspend else ()),
            *(("error",) if self.on_error else ()),
            *(("signal", "cancel") if self.on_signal else ()),
        )

    @property
    def follows_ends(self) -> bool:
        """Whether it must hear of the end of a firing."""
        return self.every_nodes is not None or bool(self.after)


def _names(option: str, found: object) -> tuple[str, ...]:
    if found is None:
        return ()
    if not isinstance(found, list | tuple) or not all(isinstance(name, str) and name for name in found):
        raise _invalid(option, found, "a list of ids of nodes and names of types")
    return tuple(found)


def _exclude(what: str, chosen: Mapping[str, Any]) -> None:
    for name in TIMED:
        if chosen.get(name):
            raise _contradiction(what, name)


def _contradiction(one: str, other: str) -> PluginOptionsInvalid:
    return PluginOptionsInvalid(NAME, f"checkpoint: {one} excludes {other}. Leave out one of the two.")


def _invalid(name: str, value: object, expected: str) -> PluginOptionsInvalid:
    return PluginOptionsInvalid(NAME, f"checkpoint: option {name!r} is {expected}, not {shorten(value)}.")
