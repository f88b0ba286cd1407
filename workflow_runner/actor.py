"""An actor: one node at run time, what a cut must know of it, and how it waits and emits."""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from hookspecs import NodeInfo, NodeStatus, Outcome, Taken

from workflow_runner.checker import Checker, Mismatch
from workflow_runner.context import Context
from workflow_runner.edge import Edge
from workflow_runner.errors import (
    Cancelled,
    ItemTypeError,
    LogOverflow,
    NodeProtocolError,
    ReplayDiverged,
    StateNotCopyable,
    shorten,
)

if TYPE_CHECKING:
    from workflow_runner.plan import PlannedNode
    from workflow_runner.run import Run

__all__ = ["Actor", "Interrupted"]

IMMUTABLE = (type(None), bool, int, float, complex, str, bytes)


class Interrupted(Exception):
    """Raised inside an actor whose firing ended early, after everybody who must know was told."""


class Sleeper:
    """One wait of one actor."""

    __slots__ = ("actor", "future", "open")

    def __init__(self, actor: Actor) -> None:
        self.actor = actor
        self.future: asyncio.Future[None] = actor.run.loop.create_future()
        self.open = True

    def wake(self) -> None:
        """Let the actor go on."""
        if self.open:
            self.open = False
            self.actor.leave_wait()
            if not self.future.done():
                self.future.set_result(None)


class Actor:
    """Drives one node. Its task is made when the first item (or end of stream) arrives, or at once for a source.

    The attributes under "what a cut holds" change only between two awaits, together with the edges, so at any await
    they and the edges of all actors are one consistent state.
    """

    open = True
    """As long as it has no task, an actor is the `Waiter` at its own edges: waking it starts it."""

    def __init__(self, run: Run, planned: PlannedNode, in_edges: Sequence[Edge]) -> None:
        self.run = run
        self.planned = planned
        self.node_id = planned.node_id
        self.type = planned.type
        self.in_edges = in_edges
        self.order: deque[Edge] | None = in_edges[0].order if in_edges else None
        self.targets: dict[str, list[Edge]] = {}
        self.only_targets: list[Edge] = []
        self.had_consumers = False
        self.orphaned = False
        self.task: asyncio.Task[None] | None = None
        self.waits = 1
        self.frozen = False
        self.stateless = planned.type.stateless
        self.logs = run.saver is not None
        self.holds = False
        self.publish: Callable[[Any], bool] = self._publish_mapping if planned.type.emits_mapping else self._publish_value
        self.context = Context(self)
        self.durable_calls: list[Callable[[], object]] = []
        self.script_position = 0
        self.script_left = 0
        self.script_sleepers: list[Sleeper] = []
        self.swallow_left = 0
        self.captured: tuple[Any, ...] | None = None

        # What a cut holds.
        self.status: NodeStatus = "idle"
        self.attempt = 1
        self.firing = 0
        self.commits = 0
        self.state: Any = None
        self.arguments: Mapping[str, Any] | None = None
        self.taken: list[Taken] = []
        self.emitted = 0
        self.collected: list[Any] = []
        self.error: str | None = None
        self.started_at: datetime | None = None
        self.ended_at: datetime | None = None

        self.reads = 0
        """Items taken since the last commit, counted anew when the step is run again."""

    # Its life.

    def wake(self) -> None:
        """Start the task; what an edge calls when the first item comes."""
        if self.task is None:
            self.open = False
            self.leave_wait()
            self.task = self.run.tasks.create_task(self._main(), name=self.node_id)

    async def _main(self) -> None:
        try:
            self.status = "running"
            if self.logs and self.started_at is None:
                self.started_at = datetime.now(UTC)
            if self.run.listeners:
                self.run.node_changed(self)
            await self.live()
        except Interrupted:
            pass
        except asyncio.CancelledError as error:
            if not self.run.stopping:
                self.run.node_failed(self, error)
        except Exception as error:  # a fault outside every body: the aligner, a hook, a type check
            self.run.actor_failed(self, error)

    async def live(self) -> None:
        """From the first item to the last."""
        raise AssertionError

    def complete(self) -> None:
        """It is over: no more items come from it, and what still flows to it is dropped. One synchronous step."""
        self.status = "completed"
        if self.logs:
            self.ended_at = datetime.now(UTC)
        for edges in self.targets.values():
            for edge in edges:
                if self.holds:
                    edge.held_end = True
                else:
                    edge.end()
        for edge in self.in_edges:
            edge.reader = None
            if edge.producer is not None:
                edge.producer.drop(edge)
            edge.clear()
        if not self.holds:
            self.run.completed(self)

    def drop(self, edge: Edge) -> None:
        """The consumer of one of its edges is over."""
        for edges in self.targets.values():
            if edge in edges:
                edges.remove(edge)
        self.orphaned = self.had_consumers and not any(self.targets.values())

    def freeze(self) -> None:
        """From now on nothing that it does counts: reading, emitting and committing raise `Cancelled`."""
        self.frozen = True
        self.publish = self._refuse
        self.script_left = 0
        for edge in self.in_edges:
            edge.items.clear()
            edge.ended = False
        if self.order is not None:
            self.order.clear()

    def check_alive(self) -> None:
        """Raise `Cancelled` when the run was stopped."""
        if self.frozen:
            raise Cancelled(f"run {self.run.run_id!r} was stopped")

    # Firings.

    async def begin(self, arguments: Mapping[str, Any] | None) -> NodeInfo | None:
        """A firing begins, or an interrupted one again: its arguments are part of every cut from here on.

        Args:
            arguments: those that came over edges; `None` to begin the interrupted firing again.

        Returns:
            What the hooks are told; `None` when nobody listens.
        """
        if arguments is not None:
            self.arguments = arguments
            self.firing += 1
        hooks = self.run.hooks
        if hooks.before_node is None and hooks.after_node is None:
            return None
        info = NodeInfo(self.node_id, self.type.name, self.firing, self.attempt)
        if hooks.before_node is not None:
            await hooks.before_node(self.run.info, info, self.values())
        return info

    async def end(self, info: NodeInfo | None, outcome: Outcome) -> None:
        """A firing has ended."""
        after_node = self.run.hooks.after_node
        if info is not None and after_node is not None:
            await after_node(self.run.info, info, outcome)

    def values(self) -> dict[str, Any]:
        """The plain arguments of the firing: those of its edges, checked, over properties and defaults."""
        arguments = self.arguments
        if not arguments:
            return dict(self.planned.constants)
        values = dict(self.planned.constants)
        for handle, value in arguments.items():
            check = self.planned.checks.get(handle)
            values[handle] = value if check is None else self.checked(handle, check, value)
        return values

    def checked(self, handle: str, check: Checker, item: Any) -> Any:
        """The item, if it fits the handle."""
        try:
            return check(item)
        except Mismatch:
            raise ItemTypeError(self.node_id, handle, self.type.handles[handle].expected, item) from None

    # Commit points.

    def private(self, state: Any) -> Any:
        """A copy of a state that nobody else holds."""
        if not self.logs or type(state) in IMMUTABLE:
            return state
        try:
            return copy.deepcopy(state)
        except Exception as error:
            raise StateNotCopyable(self.node_id, state, error) from error

    def commit(self, state: Any) -> None:
        """A commit point inside a body: what was taken and emitted so far is final."""
        self.check_alive()
        state = self.private(state)
        self.check_replayed()
        self.state = state
        self._pass_commit()

    def commit_read(self) -> None:
        """The commit point before each read of a stateless node."""
        if self.taken or self.emitted or self.durable_calls:
            self.check_alive()
            self.check_replayed()
            self._pass_commit()

    def commit_firing(self) -> None:
        """The commit point at the end of a firing."""
        self.arguments = None
        self._pass_commit()

    def check_replayed(self) -> None:
        """Raise when the step run again has not emitted what it had emitted before."""
        if self.swallow_left:
            raise ReplayDiverged(self.run.run_id, self.node_id, self.emitted, self.emitted - self.swallow_left)

    def _pass_commit(self) -> None:
        self.commits += 1
        self.emitted = 0
        self.reads = 0
        if self.taken:
            # A new list: cuts hold a prefix of the old one. What the body has not read again yet stays its script.
            self.taken = self.taken[self.script_position :] if self.script_left else []
            self.script_position = 0
        if self.durable_calls:
            self.run.step_is_final(self, self.durable_calls)
            self.durable_calls = []
        if self.waits:
            self.run.changed.add(self)

    # Reading.

    def log(self, edge: Edge, item: Any) -> None:
        """Remember an item handed to the body."""
        taken = self.taken
        if len(taken) >= self.run.settings.max_log:
            raise LogOverflow(self.node_id, self.run.settings.max_log)
        taken.append((edge.edge_id, item))
        self.reads += 1
        if self.waits:
            self.run.changed.add(self)

    async def next_scripted(self, edges: tuple[Edge, ...]) -> tuple[Edge | None, Any]:
        """The next item of the interrupted step, in the order in which it was taken then.

        Returns:
            The edge and the item; `(None, None)` when the step had taken no more from these edges.
        """
        while self.script_left:
            edge_id, item = self.taken[self.script_position]
            for edge in edges:
                if edge.edge_id == edge_id:
                    self.script_position += 1
                    self.script_left -= 1
                    self.reads += 1
                    self._wake_script()
                    return edge, item
            rest = {taken[0] for taken in self.taken[self.script_position :]}
            if all(edge.drained and edge.edge_id not in rest for edge in edges):
                break
            sleeper = Sleeper(self)
            self.script_sleepers.append(sleeper)
            await self._sleep(sleeper)
        self.check_alive()
        return None, None

    def _wake_script(self) -> None:
        sleepers, self.script_sleepers = self.script_sleepers, []
        for sleeper in sleepers:
            sleeper.wake()

    def first_arrival(self, edges: tuple[Edge, ...]) -> Edge | None:
        """The edge whose next item came first."""
        if self.order is None:
            return edges[0] if edges[0].items else None
        return next((edge for edge in self.order if edge in edges), None)

    async def wait_for_items(self, edges: Sequence[Edge]) -> None:
        """Wait until one of the edges has an item or its end."""
        self.check_alive()
        sleeper = Sleeper(self)
        for edge in edges:
            if edge.reader is not None and edge.reader.open:
                raise NodeProtocolError(f"node {self.node_id!r}: edge {edge.edge_id!r} is read by two tasks at once. Read it from one.")
            edge.reader = sleeper
        await self._sleep(sleeper)

    # Emitting. Each way of publishing takes one emission and says whether the actor must `settle` before it goes on.

    def _publish_value(self, value: Any) -> bool:
        self.emitted += 1
        full = False
        for edge in self.only_targets:
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
            self.run.changed.add(self)
        return full

    def _publish_mapping(self, value: Any) -> bool:
        self._check_mapping(value)
        self.emitted += 1
        full = False
        for handle in self.type.outputs:
            if handle in value:
                for edge in self.targets[handle]:
                    edge.put(value[handle])
                    full = full or edge.full
        if self.waits:
            self.run.changed.add(self)
        return full

    def _check_mapping(self, value: Any) -> None:
        outputs = self.type.outputs
        if not isinstance(value, Mapping):
            if value is None and not outputs:
                return
            raise NodeProtocolError(
                f"node {self.node_id!r} has the outputs {', '.join(outputs) or '(none)'} and must give a mapping of them, "
                f"not {type(value).__name__} ({shorten(value)})."
            )
        extra = [key for key in value if key not in outputs]
        if extra:
            raise NodeProtocolError(
                f"node {self.node_id!r} gave an unknown output {extra[0]!r}. Its outputs are: {', '.join(outputs) or '(none)'}."
            )

    def _publish_held(self, value: Any) -> bool:
        """Nobody sees the emission before `settle` has sent it."""
        if self.type.emits_mapping:
            self._check_mapping(value)
        self.emitted += 1
        for handle in self.type.outputs:
            if not self.type.emits_mapping or (value is not None and handle in value):
                for edge in self.targets[handle]:
                    edge.held.append(value[handle] if self.type.emits_mapping else value)
        if self.waits:
            self.run.changed.add(self)
        return True

    def _swallow(self, value: Any) -> bool:
        """The emission was sent before the interruption."""
        if self.type.emits_mapping:
            self._check_mapping(value)
        self.swallow_left -= 1
        if not self.swallow_left:
            self.choose_publish()
        return False

    def _refuse(self, value: Any) -> bool:
        raise Cancelled(f"run {self.run.run_id!r} was stopped")

    def choose_publish(self) -> None:
        """Decide how emissions leave, once what decides it has changed."""
        self.holds = self.run.gate_reason is not None or (self.run.hooks.after_node is not None and not self.type.generates)
        if self.frozen:
            self.publish = self._refuse
        elif self.swallow_left:
            self.publish = self._swallow
        elif self.holds:
            self.publish = self._publish_held
        else:
            self.publish = self._publish_mapping if self.type.emits_mapping else self._publish_value

    async def settle(self) -> None:
        """Wait for a durable cut where outputs are held for one, send what is held, wait until no edge is too full."""
        run = self.run
        if run.gate_reason is not None and run.saver is not None:
            await run.saver.request(run.gate_reason)
            self.check_alive()
        if self.holds:
            for edges in self.targets.values():
                for edge in edges:
                    edge.send_held()
        if self.status == "completed":
            if self.holds:
                run.completed(self)
            return
        for edges in tuple(self.targets.values()):
            for edge in tuple(edges):
                while len(edge.items) > edge.capacity and edge in edges:
                    sleeper = Sleeper(self)
                    edge.writer = sleeper
                    await self._sleep(sleeper)

    # Waiting.

    async def _sleep(self, sleeper: Sleeper) -> None:
        self.waits += 1
        if self.waits == 1:
            self.run.enter_wait()
        try:
            await sleeper.future
        finally:
            if sleeper.open:  # cancelled, by a timeout of the body or by the end of the run
                sleeper.open = False
                self.leave_wait()
        self.check_alive()

    def leave_wait(self) -> None:
        """One of its waits is over; called by whoever ends it, so that a woken actor never counts as waiting."""
        self.waits -= 1
        if not self.waits:
            self.run.leave_wait(self)
