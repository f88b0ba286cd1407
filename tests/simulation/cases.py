"""A case: a small graph, how it is run and what goes wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.simulation.lab import member_of, shape
from tests.simulation.models import KINDS, Columns
from workflow_runner import Graph, NodeRef
from workflow_runner.aligner import SyncMode

__all__ = ["Case", "Member", "Policy", "Port", "expected_lengths", "firings"]

Port = tuple[str, str]
"""An output: node id and handle."""
Policy = Literal["times", "every_firing", "following", "explicit", "none"]
"""When a case saves."""


@dataclass
class Member:
    """A node of the case's graph."""

    node_id: str
    kind: str
    data: Mapping[str, Any] = field(default_factory=dict)
    sources: Mapping[str, Sequence[Port]] = field(default_factory=dict)
    sync_mode: SyncMode = "on_any"
    observed: bool = True
    """Whether every output also feeds a `workflow.Output` of its own."""
    lanes: int = 1
    """How many of it work side by side."""
    failure: dict[str, Any] = field(default_factory=dict)
    """What the graph says about its failures."""

    @property
    def slots(self) -> list[Port]:
        """What comes in, edge by edge."""
        return [port for handle in KINDS[self.kind].handles for port in self.sources[handle]]


@dataclass
class Case:
    """One seed.

    Args:
        seed: that it was made from.
        members: its nodes, producers before consumers.
        lengths: how many items come from each output.
        pure: nodes of which every run must do the same.
    """

    seed: int
    shape: str
    members: list[Member] = field(default_factory=list)
    lengths: dict[Port, int] = field(default_factory=dict)
    pure: set[str] = field(default_factory=set)
    edge_capacity: int = 1
    max_log: int = 10_000
    policy: Policy = "times"
    interval: float = 3.0
    slow_saves: float = 1.0
    listens: bool = False
    watched: bool = False
    save_at: tuple[str, ...] = ()
    crashes: int = 0
    troubles: int = 0
    """How often it is stopped, or a body or save fails, over all worlds."""
    failures: int = 1
    """How many bodies fail in a world where bodies fail."""
    independent: bool = False
    """Whether nodes that do not need a failed one come to their end."""
    previews: list[Port] = field(default_factory=list)
    overflows: str | None = None
    """The node whose log must not hold all that it takes."""

    @property
    def answered(self) -> bool:
        """Whether people answer nodes also while others go on."""
        return self.seed % 3 > 0

    def graph(self) -> Graph:
        """The graph to run."""
        graph = Graph(on_failure="finish_independent" if self.independent else None)
        for member in self.members:
            kind = KINDS[member.kind]
            inputs: dict[str, Any] = {
                name: value for name, value in member.data.items() if (member.kind, name) != ("given", "form")
            }
            for handle, ports in member.sources.items():
                outputs = [NodeRef(node_id)[name] for node_id, name in ports]
                inputs[handle] = outputs if kind.collects else outputs[0]
            graph.add(
                kind.node,
                member.node_id,
                sync_mode=member.sync_mode,
                failure=member.failure or None,
                lanes=member.lanes,
                **inputs,
            )
        for member in self.members:
            if member.observed:
                for handle in KINDS[member.kind].outputs:
                    graph.output(f"{member.node_id}.{handle}", NodeRef(member.node_id)[handle])
        for node_id, handle in self.previews:
            graph.add("workflow.Preview", f"{node_id}.{handle}.preview", value=NodeRef(node_id)[handle])
        return graph

    @property
    def movers(self) -> set[str]:
        """Nodes that only move items: to lanes and from them, out of lists and into them."""
        laned = [member.node_id for member in self.members if member.lanes > 1]
        listed = [member.node_id for member in self.members if member.kind in ("each", "collect")]
        return {*listed, *laned, *(f"{node_id}/spread" for node_id in laned)}

    @property
    def careful(self) -> set[str]:
        """Nodes that must not be repeated unasked."""
        return {member.node_id for member in self.members if not member.failure.get("replayable", True)}

    def needing(self, node_ids: Iterable[str]) -> set[str]:
        """These nodes, and those that need what comes from them."""
        found = set(map(member_of, node_ids))
        for member in self.members:
            if any(source in found for source, _ in member.slots):
                found.add(member.node_id)
        return found

    def inputs(self) -> dict[str, Any]:
        """Values of the inputs of the run."""
        return {m.node_id: shape(m.data["form"], m.node_id) for m in self.members if m.kind == "given"}

    def describe(self) -> str:
        """For a person who looks for the bug."""
        lines = [
            f"seed {self.seed} ({self.shape}): capacity {self.edge_capacity}, max_log {self.max_log}, policy {self.policy}, "
            f"listens {self.listens}, save_at {self.save_at}, crashes {self.crashes}, troubles {self.troubles}, "
            f"failures {self.failures}, independent {self.independent}"
        ]
        for m in self.members:
            sources = ", ".join(f"{handle}={['.'.join(port) for port in ports]}" for handle, ports in m.sources.items())
            hidden = (
                ("" if m.observed else " unobserved")
                + (f" {m.failure}" if m.failure else "")
                + (f" {m.lanes} lanes" if m.lanes > 1 else "")
            )
            lines.append(f"  {m.node_id}: {m.kind} {dict(m.data)} {sources} {m.sync_mode if len(m.slots) > 1 else ''}{hidden}")
        return "\n".join(lines)


def firings(lengths: Sequence[int], mode: SyncMode) -> int:
    """How often a plain node fires on that many items at its slots, by the rules of INTERFACE."""
    if not lengths:
        return 1
    if mode == "on_any":
        return sum(lengths) - len(lengths) + 1 if all(lengths) else 0
    return min(lengths)


def expected_lengths(member: Member, lengths: Mapping[Port, int]) -> dict[str, int]:
    """How many items a node emits at each handle; for every kind this depends on the number of inputs alone."""
    kind = KINDS[member.kind]
    columns: Columns
    if kind.step is not None:
        columns = {handle: [] for handle in kind.outputs}
        state = None
        for _ in range(firings([lengths[port] for port in member.slots], member.sync_mode)):
            state, emissions = kind.step(member.node_id, member.data, state, [0] * len(member.slots))
            for emission in emissions:
                for handle, value in emission.items():
                    columns[handle].append(value)
    else:
        assert kind.model is not None
        dummies = {handle: range(lengths[ports[0]]) for handle, ports in member.sources.items()}
        columns = kind.model(member.node_id, member.data, dummies)
    return {handle: len(values) for handle, values in columns.items()}
