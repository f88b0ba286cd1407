"""Errors that cross the border between a runner, its plugins and the command line.

Every error carries the exit code that the command line leaves with; INTERFACE: 0 completed, 1 a node failed,
2 wrong usage, 3 suspended, 4 held by another worker, 5 the store, 70 a fault of ours.
"""

from __future__ import annotations

from datetime import UTC, datetime
from shlex import quote
from typing import Any, ClassVar

__all__ = [
    "HookError",
    "LeaseLost",
    "PluginBlocked",
    "PluginConflict",
    "PluginError",
    "PluginInvalid",
    "PluginLoadFailed",
    "PluginMissing",
    "PluginOptionsInvalid",
    "Refusal",
    "RunExists",
    "RunHeld",
    "RunNotFound",
    "StoreError",
    "SuspensionChanged",
    "TaggedValueError",
    "WorkflowError",
    "shorten",
    "text_of",
]


def text_of(error: BaseException) -> str:
    """What an error says; anybody's `__str__` may itself raise, and the error must be told all the same."""
    try:
        return str(error)
    except Exception as second:
        return f"(its text cannot be had: {type(second).__name__})"


def shorten(value: object, limit: int = 60) -> str:
    """A value's repr, cut to `limit` characters.

    Args:
        value: anybody's, also one whose `__repr__` raises, or a number of more digits than Python shows.
        limit: in characters.
    """
    try:
        text = repr(value)
    except Exception as error:  # it is anybody's object, and what is to be told is something else
        text = f"<{type(value).__name__}, whose repr raises {type(error).__name__}>"
    return text if len(text) <= limit else text[: limit - 1] + "…"


class WorkflowError(Exception):
    """Root of every error that this project raises on purpose."""

    exit_code: ClassVar[int] = 1

    def __reduce__(self) -> tuple[Any, ...]:
        # Its message and attributes, not its arguments: a pool of processes hangs when what a worker raised cannot be made again.
        return _bare, (type(self),), {**self.__dict__, "args": self.args}


def _bare(kind: type[WorkflowError]) -> WorkflowError:
    return kind.__new__(kind)


class TaggedValueError(WorkflowError, ValueError):
    """A value has no tagged JSON form, or a tagged JSON value is malformed; the message names the path."""

    exit_code = 2


class PluginError(WorkflowError):
    """Raised when a plugin cannot be used as the workflow asks.

    Args:
        plugin: its name.
        message: what is wrong, and how to mend it.
    """

    exit_code = 2

    def __init__(self, plugin: str, message: str) -> None:
        super().__init__(message)
        self.plugin = plugin


class PluginMissing(PluginError):
    """Raised when a workflow enables a plugin that is not installed."""


class PluginBlocked(PluginError):
    """Raised when a workflow enables a plugin that `-p no:NAME` or WORKFLOW_DISABLE_PLUGINS keeps out."""


class PluginLoadFailed(PluginError):
    """Raised when an enabled plugin cannot be imported or its factory fails."""


class PluginConflict(PluginError):
    """Raised when two plugins claim one name, or two enabled plugins answer one provider hook."""


class PluginInvalid(PluginError):
    """Raised when a plugin's hooks break the contract: colour, name, arguments, a class instead of an instance."""


class PluginOptionsInvalid(PluginError):
    """Raised when the options given to a plugin are unknown or have the wrong type."""


class HookError(WorkflowError):
    """Raised when a hook raised anything but a `Refusal`; the original is the cause.

    Args:
        plugin: name of the plugin whose hook raised.
        hook: name of the hook.
        cause: what it raised.
    """

    def __init__(self, plugin: str, hook: str, cause: BaseException) -> None:
        told = f"plugin {plugin!r} failed in hook {hook!r}: {type(cause).__name__}: {text_of(cause)}"
        super().__init__(f"{told.rstrip('.')}. Mend the plugin, or run without it: --disable {plugin}")
        self.plugin = plugin
        self.hook = hook


class Refusal(WorkflowError):
    """Root of the errors a hook may raise on purpose; they reach the caller as they are, not as a `HookError`."""

    exit_code = 2


class RunExists(Refusal):
    """Raised when a new run is given the id of a run that is already stored.

    Args:
        run_id: the run.
    """

    def __init__(self, run_id: str) -> None:
        super().__init__(
            f"run {run_id!r} exists already. Continue it with `workflow resume {quote(run_id)}`, or choose another id."
        )
        self.run_id = run_id


class StoreError(Refusal):
    """Raised when the store is missing, damaged or cannot save; nothing that was stored before is changed."""

    exit_code = 5


class RunNotFound(StoreError):
    """Raised when the store holds no run of the given id.

    Args:
        run_id: the id.
        where: the store, for people.
    """

    def __init__(self, run_id: str, where: str) -> None:
        super().__init__(
            f"run {run_id!r} is not in {where}. See what is stored with `workflow runs`, or name the store with --url."
        )
        self.run_id = run_id


class RunHeld(Refusal):
    """Raised when another worker holds a run; nothing was changed.

    Args:
        run_id: the run.
        holder: who holds it.
        until: when that ends unless it gives another sign of life; `None` when it has just begun or ended an attempt.
    """

    exit_code = 4

    def __init__(self, run_id: str, holder: str | None, until: datetime | None) -> None:
        if holder is None or until is None:
            look = f"`workflow show {quote(run_id)}`"
            text = f"run {run_id!r} was resumed by another process meanwhile. See how it stands with {look}."
        else:
            text = (
                f"run {run_id!r} is held by {holder} until {until.astimezone(UTC).isoformat(timespec='seconds')}. Wait until it "
                f"is done or that time has passed, or take it over with `workflow resume {quote(run_id)} --steal`. A node of it "
                f"that waits is answered there, with `workflow answer {quote(run_id)} NODE=JSON`."
            )
        super().__init__(text)
        self.run_id = run_id
        self.holder = holder
        self.until = until


class SuspensionChanged(Refusal):
    """Raised when an answer is for what a node waited for earlier; nothing was changed.

    Args:
        run_id: the run.
        node_id: the node.
        asked: since when it waited for that.
        since: since when it waits for something else; `None` where that is not known, or it waits for no answer.
    """

    def __init__(self, run_id: str, node_id: str, asked: datetime, since: datetime | None) -> None:
        now = "it does not wait for that now" if since is None else f"it waits for something else since {since.isoformat()}"
        super().__init__(
            f"the answer for node {node_id!r} of run {run_id!r} is to what it waited for since {asked.isoformat()}, and {now}. "
            "See for what with `workflow suspended`."
        )
        self.run_id = run_id
        self.node_id = node_id
        self.asked = asked
        self.since = since


class LeaseLost(Refusal):
    """Raised when this worker no longer holds the run: it must stop and write nothing more.

    Args:
        run_id: the run.
        epoch: under which it was held.
        current: the epoch of the run now; `None` when the run is gone or nobody knows.
        holder: who holds it now, if that is known.
        why: where it was not taken: what kept it from being renewed.
        cancelled: nobody took it: the run was cancelled in the store.
    """

    exit_code = 4

    def __init__(
        self,
        run_id: str,
        epoch: int,
        current: int | None = None,
        holder: str | None = None,
        why: str | None = None,
        cancelled: bool = False,
    ) -> None:
        if cancelled:
            why = "it was cancelled"
        if why is None:
            why = f"{holder} took it over" if holder is not None else "another worker took it over"
        super().__init__(
            f"this worker lost run {run_id!r}: {why}. What it did since its last checkpoint counts no more; "
            f"see how the run stands with `workflow show {quote(run_id)}`."
        )
        self.run_id = run_id
        self.epoch = epoch
        self.current = current
        self.holder = holder
        self.cancelled = cancelled
