"""How a run ends, and why: the error that counts, what failed beside it, and what it waits for."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from hookspecs import Cancelled, Completed, Failed, LeaseLost, Outcome, Suspended, Suspension, text_of
from workflow_runner.errors import NodeFailed, RunStopped

__all__ = ["Ending", "status_of"]


class Ending:
    """What is known of the end of a run; without anything, that it completes.

    The first error is the one that counts: those that come after it follow from it, or are told as its notes.
    """

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.reason = ""
        """Why firings in progress are cancelled, for those who are told of it."""
        self.failures: list[NodeFailed] = []
        """Of nodes without which the others go on."""
        self.suspensions: Mapping[str, Suspension] = {}
        """What nodes wait for in a run that can go on no further."""
        self.degraded: str | None = None
        """Why the run does not have the durability that it was promised."""

    def stop(self, error: BaseException | None, reason: str) -> None:
        """The run stops now, for this error or for none; nodes that had failed before it are told as its notes."""
        self.error = error
        self.reason = "failure" if reason == "error" else reason
        for failure in self.failures:
            if error is not None and failure is not error:
                error.add_note(f"and {failure}")

    def add(self, error: BaseException) -> None:
        """Something went wrong; it counts where nothing had before, and else is told with what had."""
        because = error.__cause__ or error
        if self.error is None:
            self.error = error
        elif error is not self.error and not isinstance(because, CancelledError):  # it waited for what the end cancels
            self.error.add_note(f"and then {type(error).__name__}: {text_of(error)}")

    def call_failed(self, failure: NodeFailed) -> None:
        """What `on_durable` was given raised when the run was over; that counts where nothing had before."""
        if self.error is None:
            self.error = failure
        else:
            self.error.add_note(f"and {failure}")

    def save_failed(self, error: BaseException) -> None:
        """A cut could not be saved; that counts unless a failure does: a run that was stopped may have lost its last step."""
        if self.error is None or isinstance(self.error, RunStopped):
            self.error = error
        else:
            self.error.add_note(f"and the last cut could not be saved: {type(error).__name__}: {error}")

    def failure_of(self, node_id: str) -> BaseException | None:
        """What a node raised without which the others go on."""
        return next((failure.__cause__ for failure in self.failures if failure.node_id == node_id), None)

    def first_failure(self) -> NodeFailed:
        """The failure that stands for all; the others are told with it."""
        first, *others = self.failures
        first.others = tuple(others)
        return first

    def outcome(self, outputs: Mapping[str, Sequence[Any]]) -> Outcome:
        """For the hooks.

        Args:
            outputs: what the outputs have collected.
        """
        match self.error:
            case None if self.suspensions:
                return Suspended(self.suspensions)
            case None:
                return Completed(outputs)
            case RunStopped(reason=reason):
                return Cancelled(reason)
            case NodeFailed(node_id=node_id) as error:
                return Failed(error.__cause__ or error, node_id)
            case error:
                return Failed(error)


def status_of(outcome: Outcome) -> Literal["cancelled", "completed", "failed", "paused", "suspended"]:
    """The word for how a run ended."""
    match outcome:
        case Completed():
            return "completed"
        case Failed(LeaseLost(cancelled=True)):
            return "cancelled"
        case Failed():
            return "failed"
        case Cancelled():
            return "paused"
        case Suspended():
            return "suspended"
