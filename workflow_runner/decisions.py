"""What people bring to a resume: answers for suspended nodes, and decisions on nodes whose outcome nobody knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import datetime
from shlex import quote
from typing import TYPE_CHECKING, Any

from hookspecs import Answer, NodeSnapshot, Suspension, SuspensionChanged, shorten
from workflow_runner.errors import InputInvalid, NodeNotWaiting, NodeTimeout, OutcomeUnknown
from workflow_runner.identity import step_key
from workflow_runner.suspension import is_due

if TYPE_CHECKING:
    from workflow_runner.plan import PlannedNode

__all__ = ["NO_DECISIONS", "Decisions", "is_unknown"]


@dataclass(frozen=True, slots=True)
class Decisions:
    """By node.

    Args:
        replay: nodes of unknown outcome that are to run their step again.
        updates: answers for suspended nodes, and what others of unknown outcome are taken to have returned.
        since: nodes of those that are answered only if they still wait for what they have waited for since then.

    Raises:
        InputInvalid: a time is none, has no zone, or is of a node without an answer.
    """

    replay: frozenset[str] = frozenset()
    updates: Mapping[str, Any] = field(default_factory=dict)
    since: Mapping[str, datetime] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for node_id, moment in self.since.items():
            if node_id not in self.updates:
                raise InputInvalid(f"since names node {node_id!r}, for which there is no answer. Give it one, or leave it out.")
            if not isinstance(moment, datetime) or moment.utcoffset() is None:
                raise InputInvalid(
                    "since takes aware times by node, as `Result.suspensions` and `workflow suspended` tell them, "
                    f"not {shorten(moment)} for {node_id!r}."
                )

    def settle(
        self,
        run_id: str,
        plan: Mapping[str, PlannedNode],
        nodes: Mapping[str, NodeSnapshot],
        over: Set[str] = frozenset(),
        brought: Sequence[Answer] = (),
    ) -> tuple[dict[str, NodeSnapshot], dict[str, Any]]:
        """See that every unknown outcome is decided, and that nothing is brought for a node that waits for nothing.

        A node that waits until a time which has passed is answered by `None`, for good: its body is about to act on it.

        Args:
            run_id: the run.
            plan: its nodes.
            nodes: those of the restored cut.
            over: nodes that have completed, whether they are among these or not.
            brought: answers that the store keeps, of which the cut does not tell yet.

        Returns:
            The suspended nodes that are answered, as they are now; and by node what unfinished firings are taken to have
            returned.

        Raises:
            InputInvalid: a value does not fit its node, or a node is decided twice.
            NodeNotWaiting: one waits for nothing.
            SuspensionChanged: one waits for something else than what is answered.
            OutcomeUnknown: a decision is missing.
        """
        unknown = [node_id for node_id, node in nodes.items() if is_unknown(node, plan[node_id])]
        if both := sorted(self.replay & self.updates.keys()):
            raise InputInvalid(f"node {both[0]!r} is decided twice, by --replay and by --set. Leave out one of the two.")
        for node_id in sorted(self.replay.difference(unknown)):
            raise NodeNotWaiting(run_id, node_id, _status(nodes.get(node_id), node_id in over))
        answered = _answered(nodes, brought)
        given: dict[str, Any] = {}
        for node_id, value in self.updates.items():
            if node_id in unknown:
                self._check_since(run_id, node_id, None)
                _check_value(plan[node_id], value)
                given[node_id] = value
            else:
                suspension = _suspension(run_id, node_id, answered.get(node_id, nodes.get(node_id)), node_id in over)
                self._check_since(run_id, node_id, suspension.since)
                answered[node_id] = replace(nodes[node_id], suspension=replace(suspension, answered=True, answer=value))
        for node_id, node in nodes.items():
            asked = node.suspension
            if asked is not None and node_id not in answered and node.status == "suspended" and is_due(asked):
                answered[node_id] = replace(node, suspension=replace(asked, answered=True))
        decided = [node_id for node_id in unknown if node_id in self.replay or node_id in given]
        if undecided := [node_id for node_id in unknown if node_id not in decided]:
            arguments = {node_id: nodes[node_id].arguments or {} for node_id in undecided}
            keys = {node_id: key for node_id in undecided if (key := _key_of(run_id, plan[node_id], nodes[node_id])) is not None}
            raise OutcomeUnknown(run_id, undecided, decided, arguments, keys)
        return answered, given

    def _check_since(self, run_id: str, node_id: str, since: datetime | None) -> None:
        asked = self.since.get(node_id)
        if asked is not None and asked != since:
            raise SuspensionChanged(run_id, node_id, asked, since)


NO_DECISIONS = Decisions()


def is_unknown(node: NodeSnapshot, planned: PlannedNode) -> bool:
    """Whether the cut has a firing of it in progress that must not be repeated unasked.

    One that failed is known: it raised, unless it was cut short by its timeout. One that is suspended stands at a commit point.
    """
    if planned.failure.replayable or node.arguments is None or node.status == "suspended":
        return False
    if node.error is None:  # with one it has failed, or waits for its next try, for the last one raised
        return True
    return node.error.startswith(f"{NodeTimeout.__name__}:")


def _key_of(run_id: str, planned: PlannedNode, node: NodeSnapshot) -> str | None:
    """The idempotency key of the step that was in progress, where a firing has no other."""
    if planned.type.streams or planned.type.generates or node.suspension is not None:
        return None
    return step_key(run_id, planned.lane_of or node.node_id, node.firing, node.commits, 0)


def _answered(nodes: Mapping[str, NodeSnapshot], brought: Sequence[Answer]) -> dict[str, NodeSnapshot]:
    """Those that still wait for what was answered, as they are now; also where the cut tells that their time has passed, for the
    answer was there before."""
    answered: dict[str, NodeSnapshot] = {}
    for answer in brought:
        node = nodes.get(answer.node_id)
        asked = None if node is None or node.status != "suspended" else node.suspension
        if node is None or asked is None or asked.since != answer.since:
            continue
        if not asked.answered or (asked.wake_at is not None and asked.answer is None):
            answered[node.node_id] = replace(node, suspension=replace(asked, answered=True, answer=answer.value))
    return answered


def _status(node: NodeSnapshot | None, is_over: bool) -> str:
    if node is not None and node.status == "suspended" and node.suspension is not None and node.suspension.answered:
        return "answered already"
    return "completed" if is_over else "idle" if node is None else node.status


def _suspension(run_id: str, node_id: str, node: NodeSnapshot | None, is_over: bool) -> Suspension:
    if node is None or node.suspension is None or node.status != "suspended" or node.suspension.answered:
        raise NodeNotWaiting(run_id, node_id, _status(node, is_over))
    return node.suspension


def _check_value(planned: PlannedNode, value: Any) -> None:
    # Here and not where it is emitted: a node that failed there would run again, unasked, at the next resume.
    if planned.type.generates or planned.type.streams:
        what = "yields its items" if planned.type.generates else "reads streams and may have emitted items"
        raise InputInvalid(
            f"node {planned.node_id!r} {what}, so no one value can stand for them. Choose --replay {quote(planned.node_id)}."
        )
    if planned.type.emits_mapping and not (isinstance(value, Mapping) and set(value) <= set(planned.type.outputs)):
        answer = quote(f'{planned.node_id}={{"{planned.type.outputs[0]}": …}}')
        raise InputInvalid(
            f"node {planned.node_id!r} returns an object of its outputs {', '.join(planned.type.outputs)}, not {shorten(value)}. "
            f"Give it as --set {answer}."
        )
