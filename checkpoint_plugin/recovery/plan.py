"""What a resume has to do, node by node."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from checkpoint_plugin.by_hand.checkpoint_data import NodeStateSnapshot
from checkpoint_plugin.by_hand.graph_shape import Edge, GraphShape

__all__ = ["Action", "PlanEntry", "RecoveryPlan", "make_plan"]

Action = Literal["reschedule", "resume", "retry"]


@dataclass(frozen=True, slots=True, eq=False)
class PlanEntry(Mapping[str, Any]):
    """What to do with one node, by attribute or by name.

    Args:
        node_id: the node.
        action: `reschedule` what was scheduled or running, or never began although a producer is completed; `resume` what
            waits with its state; `retry` what failed.
        reason: why, for people.
        attempt: that this is going to be.
        resume_state: what the node kept.
        inputs: values of completed producers, by handle of this node; several edges on one handle make a list. In a run of a
            runner the arguments of the firing that is unfinished, or lists of the items that wait.
    """

    node_id: str
    action: Action
    reason: str
    attempt: int = 1
    resume_state: Any = None
    inputs: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        if name not in (item.name for item in fields(self)):
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return (item.name for item in fields(self))

    def __len__(self) -> int:
        return len(fields(self))


class RecoveryPlan(dict[str, PlanEntry]):
    """Entries by node id, of the nodes that have something left to do.

    Args:
        run_id: the run.
        completed: nodes that never run again, with their outputs.
    """

    def __init__(self, run_id: str, completed: Mapping[str, Mapping[str, Any] | None]) -> None:
        super().__init__()
        self.run_id = run_id
        self.completed = completed


def make_plan(
    run_id: str,
    shape: GraphShape,
    states: Mapping[str, NodeStateSnapshot],
    retryable: set[str],
    waiting: Mapping[str, Mapping[str, Any]],
    by_runner: bool = False,
) -> RecoveryPlan:
    """Make the plan of a run.

    Args:
        run_id: the run.
        shape: of its graph.
        states: where its nodes stand.
        retryable: nodes of which a retry makes sense.
        waiting: what is known to be handed over to nodes, by node id and handle.
        by_runner: whether a runner goes on with it, for which an answer begins another step.
    """
    completed = {node_id: state.outputs for node_id, state in states.items() if state.status == "completed"}
    plan = RecoveryPlan(run_id, completed)
    handed: dict[str, list[Edge]] = {}
    for edge in shape.edges:
        if edge[0] in completed:
            handed.setdefault(edge[2], []).append(edge)
    for node_id in dict.fromkeys((*shape.nodes, *states)):
        state = states.get(node_id) or NodeStateSnapshot(node_id, "idle")
        inputs = waiting.get(node_id) or _inputs(handed.get(node_id, ()), completed)
        ready = node_id in waiting or node_id in handed
        found = _decide(state, node_id in retryable, ready, by_runner)
        if found is not None:
            action, reason, attempt = found
            plan[node_id] = PlanEntry(node_id, action, reason, attempt, state.resume_state, inputs)
    return plan


def _decide(state: NodeStateSnapshot, retryable: bool, ready: bool, by_runner: bool) -> tuple[Action, str, int] | None:
    again = state.attempt + 1
    match state.status:
        case "scheduled":
            return "reschedule", "it was scheduled and never started", state.attempt
        case "running":
            return "reschedule", "it was running when the run stopped", again
        case "suspended":
            return "resume", "it is suspended", state.attempt if by_runner else again
        case "paused":
            return "resume", "it was paused", again
        case "failed" if retryable:
            return "retry", f"it failed: {state.error or 'no reason is known'}", again
        case "idle" if ready:
            return "reschedule", "it never started, and what others handed over waits for it", state.attempt
    return None


def _inputs(edges: Iterable[Edge], completed: Mapping[str, Mapping[str, Any] | None]) -> dict[str, Any]:
    """What completed producers hand over: an edge that names no handle takes the only output there is, or all of them."""
    found: dict[str, list[Any]] = {}
    for source, source_handle, _, target_handle in edges:
        outputs = completed[source]
        if outputs is None:
            continue
        if source_handle in outputs:
            value = outputs[source_handle]
        elif source_handle:
            continue
        else:
            value = next(iter(outputs.values())) if len(outputs) == 1 else dict(outputs)
        found.setdefault(target_handle or source, []).append(value)
    return {handle: values[0] if len(values) == 1 else values for handle, values in found.items()}
