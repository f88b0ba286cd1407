"""What stands in the place of an actor for those who were given something by it, and come too late."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from workflow_runner.errors import Cancelled

if TYPE_CHECKING:
    from workflow_runner.body import BodyActor

__all__ = ["Ended"]

TOLD: Final = frozenset({"attempt", "node_id", "private", "run", "state"})
"""What may be asked of an actor at any time: a call of `on_durable` comes when its firing is over."""


class Ended:
    """The actor, for the streams and the context of a try of its body that is over: everything else is refused.

    They hold this instead of the actor from then on, so that they need not look whether they still count each time that
    they are used.
    """

    __slots__ = ("_actor",)

    def __init__(self, actor: BodyActor) -> None:
        self._actor = actor

    def __getattr__(self, name: str) -> Any:
        if name in TOLD:
            return getattr(self._actor, name)
        raise self.refusal()

    def refusal(self) -> Cancelled:
        """Why nothing that is done counts."""
        actor = self._actor
        if actor.run.stopping:
            return Cancelled(f"run {actor.run.run_id!r} was stopped")
        return Cancelled(f"this try of node {actor.node_id!r} is over and counts no more")
