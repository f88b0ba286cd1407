"""A body that stops to wait for an answer or a time, and goes on with it in a later attempt."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from hookspecs import Suspension

__all__ = ["SLEEP", "Resumption", "WorkflowSuspended", "is_due", "only_suspends"]

SLEEP: Final = "sleep"
"""The reason of a suspension that waits for a time."""


class WorkflowSuspended(BaseException):
    """Raised inside a body that suspends: it ends here, and is started again when its answer has come.

    Not an `Exception`, so that a body which catches every error does not catch this.

    Args:
        node_id: the node; empty outside a run.
        reason: for people.
        state: what the body keeps for when it goes on.
        metadata: what it tells whoever answers.
        wake_at: from when on it need not wait any more.
    """

    def __init__(
        self,
        node_id: str,
        reason: str,
        state: Any = None,
        metadata: Mapping[str, Any] | None = None,
        wake_at: datetime | None = None,
    ) -> None:
        super().__init__(f"node {node_id!r} is suspended: {reason}")
        self.node_id = node_id
        self.reason = reason
        self.state = state
        self.metadata = dict(metadata or {})
        self.wake_at = wake_at

    def to_dict(self) -> dict[str, Any]:
        """Everything it carries, by name."""
        return {
            "node_id": self.node_id,
            "reason": self.reason,
            "state": self.state,
            "metadata": dict(self.metadata),
            "wake_at": None if self.wake_at is None else self.wake_at.isoformat(),
        }


class Resumption:
    """What a body that was suspended goes on with.

    A body may ask for its answer, or be written straight on: run again from its start, its first calls of `suspend`
    give the answers that it was given before, in order, and the next one suspends. Who asks (`is_resuming`, the saved
    state, the answer) steers by himself: then every call suspends.
    """

    def __init__(self, suspension: Suspension) -> None:
        self.suspension = suspension
        self._answers = [(reason, answer) for reason, answer in suspension.earlier if reason is not None]
        self._dropped = len(suspension.earlier) - len(self._answers)
        self._answers.append((suspension.reason, suspension.answer))
        self._given = 0
        self._asked = False

    @property
    def is_heard(self) -> bool:
        """Whether the body has had its newest answer."""
        return self._asked or self._given == len(self._answers)

    @property
    def earlier(self) -> tuple[tuple[str | None, Any], ...]:
        """The answers that a body which is written straight on was given, which its next suspension takes along.

        Those that it was not given are dropped then, but for their number: its step has been suspended as often.
        """
        dropped = self.gone_through - self._given
        return () if self._asked else (*(((None, None),) * dropped), *self._answers[: self._given])

    @property
    def gone_through(self) -> int:
        """How many suspensions a body that is written straight on goes through again: to it they are one step."""
        return 0 if self._asked else self._dropped + len(self._answers)

    @property
    def unheard(self) -> str | None:
        """The question whose answer is dropped where the body asks another one now."""
        return None if self.is_heard else self._answers[self._given][0]

    def forget(self) -> None:
        """The body keeps a state: the answers that it was given so far are in it, or of no more use.

        A call of `suspend` after it must not be given one of them when the body is run again.
        """
        self._dropped += self._given
        del self._answers[: self._given]
        self._given = 0

    def ask(self) -> Suspension:
        """The body asks what it was suspended for."""
        self._asked = True
        return self.suspension

    def expects(self, reason: str) -> bool:
        """Whether a call of `suspend` with this reason was answered before."""
        return not (self._asked or self._given == len(self._answers)) and self._answers[self._given][0] == reason

    def next_answer(self, reason: str) -> tuple[bool, Any]:
        """What a call of `suspend` is given: whether it was answered before, and by what."""
        if not self.expects(reason):
            return False, None
        self._given += 1
        return True, self._answers[self._given - 1][1]


def is_due(suspension: Suspension) -> bool:
    """Whether a node waits until a time that has passed, and was not answered."""
    return not suspension.answered and suspension.wake_at is not None and suspension.wake_at <= datetime.now(UTC)


def only_suspends(error: BaseException, quiet: tuple[type[BaseException], ...]) -> bool:
    """Whether a body ended by its suspension and nothing else.

    Args:
        error: by which it ended.
        quiet: errors that follow from it.
    """
    if isinstance(error, BaseExceptionGroup):
        return all(only_suspends(inner, quiet) for inner in error.exceptions)
    return isinstance(error, (WorkflowSuspended, *quiet))
