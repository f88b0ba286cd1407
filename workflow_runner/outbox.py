"""The sending side of an actor: how an emission reaches its edges, and what the actor waits for before it goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hookspecs import shorten
from workflow_runner.edge import Edge
from workflow_runner.errors import Cancelled, NodeProtocolError

if TYPE_CHECKING:
    from workflow_runner.plan import PlannedNode
    from workflow_runner.run import Run

__all__ = ["Outbox"]


class Outbox:
    """Emits to the edges of one node.

    `publish` takes one emission, in one synchronous step, and says whether the actor must `settle` before it goes on.
    Which of the ways of publishing it is, is decided when that changes, not at each emission.
    """

    run: Run
    planned: PlannedNode
    node_id: str
    frozen = False
    acts = True
    """Whether its emissions come of a step that may have done something: then that is durable before they are seen."""
    waits = 1
    """Waits in progress; the wait for its first item is one."""
    holds = False
    """Whether an emission waits in its edges, unseen, until `settle` sends it."""
    direct = False
    """Whether what it emits goes straight to its edges, and counts."""
    lags = False
    """Whether its last emission is too far ahead of what is durable."""
    orphaned = False
    """Whether it had consumers and all of them are over."""
    swallow_left = 0
    """Emissions that the step run again must repeat without sending them."""
    emitted = 0
    """Emissions since the last commit point."""
    edges: list[Edge]
    """Those that it emits to, in the order of its handles, without those whose consumers are over."""
    publish: Callable[[Any], bool]
    to_one: Edge | None = None
    """The edge to which `publish` would just append, where it is the consumer's only one, too: loops over many items do that
    themselves, as `_publish_to_one` does."""

    def connect(self, edges: list[Edge]) -> None:
        """Set its edges, in the order of the graph."""
        if len(edges) > 1 and self.planned.type.emits_mapping:
            edges.sort(key=lambda edge: self.planned.type.outputs.index(edge.planned.source_handle))
        self.edges = edges
        self.orphaned = not edges and bool(self.planned.out_edges)

    def drop(self, edge: Edge) -> None:
        """The consumer of one of its edges is over."""
        if edge in self.edges:
            self.edges.remove(edge)
        self.orphaned = not self.edges
        self.choose_publish()

    def touched(self) -> None:
        """It changed while it counts as waiting: a task of the body waits while another emits."""
        raise AssertionError

    def choose_publish(self) -> None:
        """Decide how emissions leave, once what decides it has changed."""
        run, node_type = self.run, self.planned.type
        self.holds = self.acts and (run.gate_reason is not None or (run.hooks.after_node is not None and not node_type.generates))
        self.direct = not (self.holds or (self.acts and run.follows) or self.frozen or self.swallow_left)
        self.to_one = None
        if self.direct:  # nearly all, in most runs
            edges = self.edges
            if node_type.emits_mapping:
                self.publish = self._publish_mapping
            elif len(edges) == 1 and len(edges[0].planned.target.in_edges) == 1:
                self.publish = self._publish_to_one
                (self.to_one,) = edges
            else:
                self.publish = self._publish_value
        elif self.frozen:
            self.publish = self._refuse
        elif self.swallow_left:
            self.publish = self._swallow
        elif self.holds:
            self.publish = self._publish_held_followed if run.follows else self._publish_held
        else:
            self.publish = self._publish_followed

    def _publish_value(self, value: Any) -> bool:
        self.emitted += 1
        full = False
        for edge in self.edges:
            items = edge.items
            items.append(value)
            if edge.order is not None:
                edge.order.append(edge)
            if (reader := edge.reader) is not None:
                edge.reader = None
                reader.wake()
            if len(items) > edge.capacity:
                full = True
        if self.waits:
            self.touched()
        return full

    def _publish_to_one(self, value: Any) -> bool:
        """As `_publish_value`, to an only edge that is its consumer's only one, too."""
        self.emitted += 1
        edge = self.edges[0]
        items = edge.items
        items.append(value)
        if edge.reader is not None:
            reader, edge.reader = edge.reader, None
            reader.wake()
        if self.waits:
            self.touched()
        return len(items) > edge.capacity

    def _publish_mapping(self, value: Any) -> bool:
        sent = self._read_mapping(value)
        self.emitted += 1
        full = False
        for edge, item in sent:
            edge.put(item)
            full = full or edge.full
        if self.waits:
            self.touched()
        return full

    def _publish_followed(self, value: Any) -> bool:
        full = (self._publish_mapping if self.planned.type.emits_mapping else self._publish_value)(value)
        saver = self.run.saver
        assert saver is not None
        self.lags = saver.step()
        return full or self.lags

    def _publish_held(self, value: Any) -> bool:
        mapping = self.planned.type.emits_mapping
        sent = self._read_mapping(value) if mapping else [(edge, value) for edge in self.edges]
        self.emitted += 1
        for edge, item in sent:
            self.run.wiring.bear_consumer(edge)  # a cut must find the item in its inbox
            edge.held = [*(edge.held or ()), item]
        if self.waits:
            self.touched()
        return True

    def _publish_held_followed(self, value: Any) -> bool:
        self._publish_held(value)
        saver = self.run.saver
        assert saver is not None
        self.lags = saver.step()
        return True

    def _swallow(self, value: Any) -> bool:
        """The emission was sent before the interruption."""
        if self.planned.type.emits_mapping:
            self._check_mapping(value)
        self.swallow_left -= 1
        if not self.swallow_left:
            self.choose_publish()
        return False

    def _refuse(self, value: Any) -> bool:
        raise Cancelled(f"run {self.run.run_id!r} was stopped")

    def end_edges(self) -> None:
        """No more items come."""
        for edge in self.edges:
            if self.holds:
                self.run.wiring.bear_consumer(edge)
                edge.held_end = True
            else:
                edge.end()

    def send_held(self) -> None:
        """Let everybody see what was held."""
        for edge in self.edges:
            edge.send_held()

    def full_edge(self) -> Edge | None:
        """An edge that must drain before the actor may go on."""
        for edge in self.edges:
            if edge.full:
                return edge
        return None

    def _read_mapping(self, value: Any) -> list[tuple[Edge, Any]]:
        """What goes to which edge, all read before anything is sent: a mapping of somebody's own may raise at any key."""
        self._check_mapping(value)
        return [(edge, value[handle]) for edge in self.edges if (handle := edge.planned.source_handle) in value]

    def _check_mapping(self, value: Any) -> None:
        outputs: Sequence[str] = self.planned.type.outputs
        named = ", ".join(outputs) or "none"
        if not isinstance(value, Mapping):
            raise NodeProtocolError(
                f"node {self.node_id!r} gave {type(value).__name__} ({shorten(value)}) where a mapping of its outputs is needed. "
                f"Its outputs: {named}."
            )
        extra = [key for key in value if key not in outputs]
        if extra:
            raise NodeProtocolError(f"node {self.node_id!r} gave an unknown output {extra[0]!r}. Its outputs: {named}.")
