"""A plugin that saves into memory. Saves take time, and every promise about what it is handed is checked."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from random import Random
from typing import Any

from hookspecs import (
    Answer,
    CheckpointRef,
    Failed,
    LeaseLost,
    NodeInfo,
    NodeSnapshot,
    Outcome,
    RunControl,
    RunExists,
    RunInfo,
    Snapshot,
    StoreError,
    Suspended,
    hookimpl,
)
from tests.simulation.audit import Audit
from tests.simulation.cases import Case, Policy
from tests.simulation.database import BrokenPromise, Database, copied, encoded
from tests.simulation.lab import Injected, Lab
from tests.simulation.models import answer_to
from tests.simulation.witness import Witness
from workflow_runner.run import Run

__all__ = ["ListeningPlugin", "MemoryPlugin"]


ENDS = ("end", "error", "signal", "cancel", "asked", "not replayable", "suspend", "answer")
REASONS: Mapping[Policy, Sequence[str]] = {
    "times": ("time", *ENDS),
    "every_firing": ("every_firing", *ENDS),
    "following": ("every_firing", *ENDS),
    "explicit": ENDS,
    "none": ENDS,
}
"""Why there may be a checkpoint; nodes may ask for one under any policy."""


class MemoryPlugin:
    """Saves and restores, by the policy of its case.

    Args:
        database: that survives.
        case: policy and slowness.
        random: when, and how long.
        lab: the world that it belongs to.
        witness: keeps what was handed over.
        failing_saves: how many saves are refused.
        failing_hooks: how many hooks fail as no hook should.
    """

    def __init__(
        self,
        database: Database,
        case: Case,
        random: Random,
        lab: Lab,
        witness: Witness,
        failing_saves: int = 0,
        failing_hooks: int = 0,
    ) -> None:
        self.database = database
        self.case = case
        self.random = random
        self.lab = lab
        self.witness = witness
        self.failing_saves = failing_saves
        self.failing_hooks = failing_hooks
        self.audit = Audit(case.max_log)
        self.control: Run | None = None
        self.saving = False
        self.ended = False
        self.asking: asyncio.Task[None] | None = None
        self.told: list[int] = []
        self.restored: dict[str, NodeSnapshot] = {}
        self.attempt = 0
        self.updates: Collection[str] = ()
        """Nodes that are answered as the run is resumed: nobody else does."""
        self.fetched: set[tuple[str, datetime]] = set()
        """Answers that were given to the runner, by node and since when it waits."""
        self.owns = False
        """Whether it has become the newest attempt."""
        self.dead = False

    @hookimpl
    async def before_run(self, run: RunInfo, control: RunControl) -> None:
        """Take the run's row, and set the policy."""
        assert isinstance(control, Run)
        self.control = control
        await self._take_time()
        database = self.database
        if run.attempt == 1 and database.run is not None:
            raise RunExists(run.run_id)
        if run.attempt != database.attempt + 1:
            raise LeaseLost(run.run_id, run.attempt, database.attempt)
        database.attempt = self.attempt = run.attempt
        self.owns = True
        database.status = "running"
        if database.run is None:
            database.run = replace(run, graph=copied(run.graph), inputs=copied(run.inputs))
        await self._take_time()
        control.save_at(*self.case.save_at)
        if self.case.policy == "every_firing":
            control.hold_outputs("every_firing")
        if self.case.policy == "following":
            control.follow_outputs("every_firing", 1 + self.case.seed % 7, 1 << 20)
        if self.case.policy == "times":
            self.asking = asyncio.get_running_loop().create_task(self._ask(control), name="asks for checkpoints")

    @hookimpl
    async def after_run(self, run: RunInfo, outcome: Outcome) -> None:
        """Stop asking; the last look at what nodes were handed. An error raised here could hide behind that of the run."""
        if self.ended:
            self.lab.violate("after_run was called twice")
        self.ended = True
        if self.asking is not None:
            self.asking.cancel()
            await asyncio.wait((self.asking,))
        if self.saving:
            self.lab.violate("the run ended in the middle of a save")
        try:
            self.witness.check()
        except BrokenPromise as error:
            self.lab.violate(str(error))

    @hookimpl
    async def restore_checkpoint(self, run: RunInfo, checkpoint_id: int | None) -> Snapshot | None:
        """Copies of everything, so that nothing is shared with what the nodes do now."""
        await self._take_time()
        database = self.database
        if not database.number:
            return None
        self.restored = dict(database.nodes)
        self.audit.restored(database.nodes)
        brief = run.attempt % 2 == 0  # every other time nodes that are over are only named
        over = {n for n, node in database.nodes.items() if brief and node.status == "completed" and not node.collected}
        nodes = tuple(encoded(node) for node_id, node in database.nodes.items() if node_id not in over)
        return Snapshot(run.run_id, database.attempt, database.status, nodes, datetime.now(UTC), over=frozenset(over))

    @hookimpl
    async def save_checkpoint(self, run: RunInfo, snapshot: Snapshot, reason: str) -> CheckpointRef:
        """Commit at some moment, tell at a later one. A crash in between is a save that nobody heard of."""
        if self.saving:
            raise BrokenPromise("a save was asked for before the last one had returned")
        if self.ended:
            raise BrokenPromise("a save was asked for after the end of the run")
        self.saving = True
        try:
            self.witness.check()
            nodes = {node.node_id: encoded(node) for node in snapshot.nodes}
            assert self.control is not None
            self.audit.check(self.control, snapshot, nodes)
            for node in snapshot.nodes:
                self.witness.remember(node)
            await self._take_time()
            self._write(run, snapshot, nodes, reason)
            await self._take_time(may_fail=True)
        finally:
            self.saving = False
        return CheckpointRef(run.run_id, self.database.number, reason, datetime.now(UTC))

    @hookimpl
    async def checkpoint_saved(self, run: RunInfo, ref: CheckpointRef) -> None:
        """Heard for every save, in order."""
        if ref.number != self.database.number:
            raise BrokenPromise(f"checkpoint {ref.number} was announced when {self.database.number} was the newest")
        self.told.append(ref.number)

    @hookimpl
    async def fetch_answers(self, run: RunInfo) -> Sequence[Answer]:
        """People answer before it is looked for, and after."""
        self._bring(0.4)
        await self._take_time()
        found = list(self.database.answers.values())
        self.fetched.update((answer.node_id, answer.since) for answer in found)
        await self._take_time()
        self._bring(0.2)
        return found

    def _bring(self, probability: float) -> None:
        database = self.database
        for node_id, waits in database.waiting.items() if self.case.answered and self.is_newest else ():
            if node_id not in self.updates and not database.is_answered(node_id) and self.random.random() < probability:
                database.answers[node_id] = Answer(node_id, waits.since, answer_to(node_id, waits.state[0]))

    @property
    def is_newest(self) -> bool:
        """Whether no other attempt has begun since."""
        return self.owns and not self.dead and self.attempt == self.database.attempt

    async def _ask(self, control: RunControl) -> None:
        while True:
            await asyncio.sleep(self.random.random() * self.case.interval)
            request = control.request("time")
            if self.random.random() < 0.5:
                try:
                    await request
                except asyncio.CancelledError:
                    if self.lab.alive and not self.ended:
                        await asyncio.sleep(1_000)  # refused: the run is over, and so will this task be
                    raise

    async def _take_time(self, *, may_fail: bool = False) -> None:
        if may_fail and self.failing_hooks and self.lab.alive and self.random.random() < 0.1:
            self.failing_hooks -= 1
            raise Injected("the seed says that this hook fails")
        if self.case.slow_saves and self.random.random() < 0.7:
            await asyncio.sleep(self.random.random() * self.case.slow_saves)

    def _write(self, run: RunInfo, snapshot: Snapshot, nodes: Mapping[str, NodeSnapshot], reason: str) -> None:
        """One transaction."""
        database = self.database
        if self.dead:
            raise BrokenPromise("a dead world touched the store")
        if snapshot.attempt != database.attempt:
            raise LeaseLost(run.run_id, snapshot.attempt, database.attempt)
        if reason not in REASONS[self.case.policy]:
            raise BrokenPromise(f"the reason of a checkpoint is {reason!r}, and nobody gave it")
        if self.failing_saves:
            self.failing_saves -= 1
            raise StoreError("the seed says that this save fails")
        for node in snapshot.nodes:
            if encoded(node) != nodes[node.node_id]:
                raise BrokenPromise(f"the cut of node {node.node_id} changed after it was handed over")
        database.nodes.update(nodes)
        database.number += 1
        database.status = snapshot.status
        database.reasons.append(reason)
        if self.random.random() < 0.9:  # else it is left there, and is for no other suspension
            for node_id in nodes.keys() & database.answers.keys():
                if not database.is_answered(node_id):
                    del database.answers[node_id]
        self.lab.durable_commits = {node.node_id: node.commits for node in database.nodes.values()}


class ListeningPlugin(MemoryPlugin):
    """Hears every firing too, and takes its time about it."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.firing: dict[str, NodeInfo] = {}
        self.tried: dict[str, NodeInfo] = {}
        """Tries that failed, of steps that are to be tried again."""
        self.asleep: dict[str, NodeInfo] = {}
        """Tries that were suspended in this world."""

    @hookimpl
    async def before_node(self, run: RunInfo, node: NodeInfo, inputs: Mapping[str, Any]) -> None:
        """One firing at a time a node."""
        await self._take_time(may_fail=True)
        if node.node_id in self.firing:
            raise BrokenPromise(f"node {node.node_id} began {node} inside {self.firing[node.node_id]}")
        before = self.restored.get(node.node_id)
        again = before is not None and before.arguments is not None and before.firing == node.firing
        tried = self.tried.pop(node.node_id, None)
        if tried is not None:
            if (node.firing, node.attempt) != (tried.firing, tried.attempt + 1):
                raise BrokenPromise(f"node {node.node_id} began {node} after {tried}, which was to be tried again")
        elif (slept := self.asleep.pop(node.node_id, None)) is not None:
            if node != slept:
                raise BrokenPromise(f"node {node.node_id} began {node} after {slept}, which was suspended")
        # A step that was suspended was not cut short: it goes on.
        elif node.attempt != (before.attempt + (before.status != "suspended") if before is not None and again else 1):
            raise BrokenPromise(f"node {node.node_id} began {node} after {before}")
        self.firing[node.node_id] = node

    @hookimpl
    async def after_node(self, run: RunInfo, node: NodeInfo, outcome: Outcome) -> None:
        """Exactly one for every `before_node`; what was returned may be seen only from now on."""
        if self.firing.pop(node.node_id, None) != node:
            raise BrokenPromise(f"node {node.node_id} ended {node}, which had not begun")
        if isinstance(outcome, Failed) and outcome.retry_seconds is not None:
            self.tried[node.node_id] = node
        if isinstance(outcome, Suspended):
            self.asleep[node.node_id] = node
        await self._take_time(may_fail=True)
        assert self.lab.told is not None
        self.lab.told.update(value for value in getattr(outcome, "outputs", {}).values() if isinstance(value, str))

    @hookimpl
    async def after_run(self, run: RunInfo, outcome: Outcome) -> None:
        """Nothing is left in the middle."""
        await super().after_run(run, outcome)
        if self.firing:
            self.lab.violate(f"no after_node for {self.firing}")
