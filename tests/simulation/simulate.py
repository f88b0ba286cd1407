"""One seed: a case that crashes again and again until it is done, and everything that must hold meanwhile."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import exp, log
from random import Random
from typing import Any
from unittest.mock import patch

from hookspecs import HookError, LeaseLost, NodeSnapshot, PluginHost, RunStatus, StoreError
from tests.simulation import plain, sources, streaming, unruly
from tests.simulation.baton import Batons
from tests.simulation.cases import Case, Member
from tests.simulation.check import expected_firings, final_firings, firings_of, known_items, of_member, problems_of
from tests.simulation.database import BrokenPromise, Database
from tests.simulation.lab import LAB, Injected, Journal, Lab, member_of
from tests.simulation.loop import Crash, SeededLoop
from tests.simulation.memory import ListeningPlugin, MemoryPlugin
from tests.simulation.models import KINDS, answer_to
from tests.simulation.shapes import make_case
from tests.simulation.witness import Witness
from workflow_runner import (
    EdgeChanged,
    Event,
    LogOverflow,
    NodeFailed,
    NodeNotWaiting,
    NodeRetried,
    OutcomeUnknown,
    ReplayDiverged,
    Result,
    RunStopped,
    WorkflowRunner,
    cut,
    waking,
)

__all__ = ["SimulationFailed", "Tally", "simulate"]

RUN_ID = "simulated"
TROUBLES = ("stop", "stop", "cancel", "fail", "fail", "save", "hook")
SEVERAL_STEPS = ("fan", "thread_fan", "consult")
"""Kinds of plain nodes of which a firing may have more than one step."""
CONSULTING = ("consult", "consult_stream")
"""Kinds that suspend."""
LOOKS = (0.01, 0.1, 1.0)
"""Seconds between two looks for answers."""
MAX_WORLDS = 60


class SimulationFailed(AssertionError):
    """A promise was broken; the message tells the seed, the case and what happened."""

    def __init__(self, case: Case, problem: str, history: Sequence[str]) -> None:
        told = "\n".join(f"  {line}" for line in history)
        alone = f"Run it alone: pytest tests/simulation --seed {case.seed}"
        super().__init__(f"{problem}\n{case.describe()}\nworlds:\n{told}\n{alone}")
        self.case = case
        self.problem = problem


@dataclass
class Tally:
    """What happened in a number of seeds, so that a test can tell that they tried something."""

    worlds: int = 0
    crashes: int = 0
    saves: int = 0
    restores: int = 0
    stops: int = 0
    failures: int = 0
    grown: int = 0
    replays: int = 0
    retries: int = 0
    unknown: int = 0
    replayed: int = 0
    given: int = 0
    independent: int = 0
    ghosts: int = 0
    suspended: int = 0
    answered: int = 0
    woken: int = 0
    laned: int = 0
    shapes: set[str] = field(default_factory=set)


def simulate(seed: int, tally: Tally | None = None) -> Tally:
    """Run a seed to its end.

    Raises:
        SimulationFailed: a promise was broken.
    """
    tally = tally if tally is not None else Tally()
    simulation = Simulation(make_case(seed), tally)
    # These graphs are small: in half of them let nodes of two edges have many, whose unchanged ones a cut takes over.
    look_seconds = LOOKS[seed // 3 % len(LOOKS)]  # each of them where people answer meanwhile, and where nobody does
    with patch.object(cut, "WIDE", 2 if seed % 2 else cut.WIDE), patch.object(waking, "LOOK_SECONDS", look_seconds):
        simulation.run()
    return tally


class Simulation:
    """The worlds of one case."""

    def __init__(self, case: Case, tally: Tally) -> None:
        self.case = case
        self.random = Random(case.seed ^ 0x5EED)
        self.database = Database()
        self.journal = Journal()
        self.crashes_left = case.crashes
        self.troubles_left = case.troubles
        self.tally = tally
        self.history: list[str] = []
        self.given: Counter[str] = Counter()
        """How often a step of a node was taken to have returned what somebody said."""
        self.unknown: tuple[str, ...] = ()
        """Nodes of which the last world said that somebody must decide."""
        self.ghosts: list[World] = []
        """Worlds that were thought dead, and will go on."""

    def run(self) -> None:
        """Worlds, until one comes to its end."""
        self.tally.shapes.add(self.case.shape)
        self.tally.laned += any(member.lanes > 1 for member in self.case.members)
        try:
            for number in range(1, MAX_WORLDS + 1):
                self.tally.worlds += 1
                done = World(self, number).run()
                self.wake_ghosts()
                if done:
                    return
        finally:
            for ghost in self.ghosts:
                ghost.dispose()
        raise self.failed(f"not done after {MAX_WORLDS} worlds")

    def wake_ghosts(self) -> None:
        """Let those go on that have lost the run to a newer attempt meanwhile."""
        for ghost in [ghost for ghost in self.ghosts if ghost.attempt < self.database.attempt]:
            self.ghosts.remove(ghost)
            self.tally.ghosts += 1
            try:
                ghost.go_on()
            finally:
                ghost.dispose()

    def failed(self, problem: str) -> SimulationFailed:
        """The error of this seed."""
        return SimulationFailed(self.case, problem, self.history)


class World:
    """One process: from its start to its crash, or its end."""

    def __init__(self, simulation: Simulation, number: int) -> None:
        self.simulation = simulation
        self.case = case = simulation.case
        self.database = database = simulation.database
        random = self.random = Random(simulation.random.getrandbits(64))
        self.restored = dict(database.nodes)
        self.was_completed = database.status == "completed"
        self.lab = Lab(
            random=Random(random.getrandbits(64)),
            journal=simulation.journal,
            attempt=number,
            completed={node.node_id for node in self.restored.values() if node.status == "completed"},
            pure=case.pure,
            gated=case.policy == "every_firing",
            told=set() if case.listens else None,
            owed={node.node_id: node.emitted for node in self.restored.values() if node.emitted},
            failure_rate=0.02 if case.failures == 1 else 0.08,
            careful=case.careful,
            movers=case.movers,
            decided={node.node_id for node in self.restored.values() if node.error is not None},
            stopping=lambda: self.plugin is not None and self.plugin.control is not None and self.plugin.control.stopping,
            durable_node=database.nodes.get,
            durable_commits={node.node_id: node.commits for node in self.restored.values()},
        )
        simulation.tally.replays += bool(self.lab.owed)
        simulation.tally.restores += bool(self.restored)
        self.replay, self.updates = self._decide()
        crash_after = None
        if simulation.crashes_left:
            simulation.crashes_left -= 1
            crash_after = int(exp(random.uniform(log(4), log(600))))
        self.loop = SeededLoop(Random(random.getrandbits(64)), crash_after)
        self.batons = Batons()
        self.number = number
        self.trouble = ""
        self.main: asyncio.Task[Result] | None = None
        self.plugin: MemoryPlugin | None = None
        self.attempt = database.attempt + 1

    def _decide(self) -> tuple[set[str], dict[str, Any]]:
        """What a person says about the nodes of unknown outcome: which are run again, and what the others returned."""
        case, replay, updates = self.case, set(), {}
        members = {member.node_id: member for member in case.members}
        for node_id in self.simulation.unknown:
            if self.random.random() < 0.5:
                replay.add(node_id)
            else:
                updates[node_id] = _returned(members[member_of(node_id)], self.restored[node_id])
        self.simulation.unknown = ()
        self.asked = self.database.waiting
        answers = {
            node_id: answer_to(node_id, waits.state[0])
            for node_id, waits in self.asked.items()
            if self.random.random() < 0.7 and not self.database.is_answered(node_id)
        }
        self.simulation.tally.answered += len(answers)
        self.lab.decided = {*self.lab.decided, *replay}
        self.simulation.tally.replayed += len(replay)
        self.simulation.tally.given += len(updates)
        self.simulation.given.update(map(member_of, updates))
        return replay, {**updates, **answers}

    def run(self) -> bool:
        """Run it; whether the case is done."""
        simulation = self.simulation
        token = LAB.set(self.lab)
        saved = self.database.number
        haunts = False
        try:
            outcome = self._run()
            haunts = outcome == "crash" and self.plugin is not None and self.plugin.owns and self.random.random() < 0.2
        finally:
            LAB.reset(token)
            self.lab.alive = False
            if not haunts:
                self.dispose()
        if haunts:
            simulation.ghosts.append(self)
        simulation.tally.saves += self.database.number - saved
        simulation.history.append(
            f"world {self.number}: {outcome} after {self.loop.handles} callbacks {self.trouble}, "
            f"checkpoint {saved} to {self.database.number}"
        )
        if simulation.journal.violations:
            raise simulation.failed("; ".join(simulation.journal.violations))
        return outcome == "done"

    def dispose(self) -> None:
        """Nothing of it is left, and nothing that it still does counts."""
        if self.plugin is not None:
            self.plugin.dead = True
        self.batons.kill()
        self.loop.dispose()

    def go_on(self) -> None:
        """It was only asleep. A newer attempt has the run now, so it must stop at its next save, and clean up."""
        assert self.main is not None and self.plugin is not None
        self.loop.crash_after = None
        self.loop.at_handle.clear()
        before = dict(self.database.nodes), self.database.number, self.database.status
        try:
            result = self.loop.run_until_complete(self.main)
        except (LeaseLost, OutcomeUnknown, NodeNotWaiting):
            pass  # the two last of one that fell asleep before it restored, and finds what the newer attempt has saved
        except (Exception, asyncio.CancelledError) as error:
            self._judge(error)  # what goes wrong by the seed may have done so before it fell asleep
        else:
            if result.status != "suspended":  # its last cut may have been durable before it fell asleep
                raise self.simulation.failed("an older attempt completed a run that it had lost")
        if before != (self.database.nodes, self.database.number, self.database.status):
            raise self.simulation.failed("an older attempt wrote to the store")
        self._check_clean(self.plugin)

    def _run(self) -> str:
        simulation = self.simulation
        plugin, runner = self._make()
        self.plugin = plugin
        self.main = self.loop.create_task(self._main(runner), name="main")
        try:
            result = self.loop.run_until_complete(self.main)
        except Crash:
            simulation.tally.crashes += 1
            return "crash"
        except (Exception, asyncio.CancelledError) as error:
            outcome = self._judge(error)
            self._check_last_cut(outcome)
            if isinstance(error, NodeFailed):
                self._check_independent(error)
        else:
            outcome = "done" if result.status == "completed" else result.status
            if outcome == "suspended":
                self._check_suspended(result)
            else:
                self._check_end(result.outputs)
        self._check_clean(plugin)
        return outcome

    def _make(self) -> tuple[MemoryPlugin, WorkflowRunner]:
        case, random, simulation = self.case, self.random, self.simulation
        failing_saves = failing_hooks = 0
        if simulation.troubles_left and random.random() < 0.6:
            simulation.troubles_left -= 1
            self.trouble = random.choice(TROUBLES if case.failures == 1 else (*TROUBLES, "fail", "fail", "fail", "fail"))
            if self.trouble == "fail":
                self.lab.failures = case.failures
            failing_saves = int(self.trouble == "save")
            failing_hooks = int(self.trouble == "hook")
        kind = ListeningPlugin if case.listens else MemoryPlugin
        plugin = kind(self.database, case, Random(random.getrandbits(64)), self.lab, Witness(), failing_saves, failing_hooks)
        plugin.updates = self.updates
        host = PluginHost().register(plugin, "memory", store=lambda url: self.database)

        def watch(event: Event) -> None:
            if isinstance(event, NodeRetried):
                simulation.tally.retries += 1
                self.lab.retried[event.node_id] += 1
            if isinstance(event, EdgeChanged) and event.status == "grown":
                simulation.tally.grown += 1
                waits = case.independent or any(member.kind in CONSULTING for member in case.members)
                if not waits and all(len(member.slots) < 2 and member.lanes == 1 for member in case.members):
                    self.lab.violate(f"edge {event.edge_id} grew, and no node waits for more than one edge")

        runner = WorkflowRunner(
            plugins=host,
            nodes=[sources, plain, streaming, unruly],
            edge_capacity=case.edge_capacity,
            max_log=case.max_log,
            grace_seconds=1_000.0,
            threads=self.batons.make,
            on_event=watch if case.watched or case.failures > 1 else None,
        )
        if self.trouble in ("stop", "cancel"):
            at = int(exp(random.uniform(log(3), log(400))))
            self.loop.at_handle[at] = lambda: self._intrude(runner)
        return plugin, runner

    def _intrude(self, runner: WorkflowRunner) -> None:
        self.simulation.tally.stops += 1
        if self.trouble == "stop":
            runner.stop("signal")
        elif self.main is not None:
            self.main.cancel()

    async def _main(self, runner: WorkflowRunner) -> Result:
        if self.database.run is None:
            return await runner.run(self.case.graph(), self.case.inputs(), run_id=RUN_ID)
        graph = self.case.graph() if self.random.random() < 0.2 else None
        return await runner.resume(RUN_ID, graph=graph, updates=self.updates, replay=self.replay)

    def _judge(self, error: BaseException) -> str:
        """Whether a run may end like this."""
        self.simulation.tally.failures += 1
        cause = error.__cause__
        match error:
            case RunStopped() if self.trouble == "stop":
                return "stopped"
            case asyncio.CancelledError() if self.trouble == "cancel":
                return "cancelled"
            case StoreError() if self.trouble == "save":
                return "save failed"
            case HookError() if isinstance(cause, Injected) and self.trouble == "hook":
                return "hook failed"
            case OutcomeUnknown():
                self._check_unknown(error)
                return "unknown"
            case NodeFailed() if self.case.independent and not self._is_alone(error):
                return "failed"
            case NodeFailed() if isinstance(cause, Injected) or (
                isinstance(cause, ExceptionGroup) and cause.subgroup(Injected) is not None
            ):
                return "failed"
            case NodeFailed(node_id=node_id) if isinstance(cause, ReplayDiverged) and node_id.startswith("diverge"):
                return "diverged"
            case NodeFailed(node_id=node_id) if isinstance(cause, LogOverflow) and node_id == self.case.overflows:
                return "done"
        notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
        if isinstance(error, HookError) and isinstance(cause, BrokenPromise):
            raise self.simulation.failed(f"broken promise: {cause}") from error
        raise self.simulation.failed(f"it ended with {type(error).__name__}: {error}{notes}, from {cause!r}") from error

    def _is_alone(self, error: NodeFailed) -> bool:
        """Whether nothing but one node failed; otherwise each must have failed as it may."""
        for other in error.others:
            self._judge(other)
        return not error.others

    def _check_unknown(self, error: OutcomeUnknown) -> None:
        """The run stopped before anything began, at those nodes that were in progress and must not be repeated unasked."""
        nodes = [
            node
            for node_id, node in self.restored.items()
            if member_of(node_id) in self.case.careful and node_id not in self.case.movers
        ]
        began = [node for node in nodes if node.arguments is not None and node.status == "running"]
        unknown = {node.node_id for node in began if node.error is None}  # with one it waits for its next try
        undecided = unknown - self.replay - self.updates.keys()
        if not undecided or set(error.node_ids) != undecided:
            raise self.simulation.failed(f"of unknown outcome are {sorted(undecided)}, told were {sorted(error.node_ids)}")
        if any(attempt == self.number for attempt, _ in self.simulation.journal.begun):
            raise self.simulation.failed("bodies were called though somebody had to decide")
        self.simulation.tally.unknown += 1
        self.simulation.unknown = error.node_ids

    def _check_independent(self, error: NodeFailed) -> None:
        """All that did not need the nodes that failed came to its end, and that is saved."""
        if not self.case.independent or "error" not in self.case.save_at:
            return
        failed = [failure.node_id for failure in (error, *error.others)]
        stuck = self.case.needing([*failed, *self.database.waiting])
        left = {m.node_id for m in self.case.members if m.node_id not in stuck} - {
            node.node_id for node in self.database.nodes.values() if node.status == "completed"
        }
        if left:
            raise self.simulation.failed(f"nodes {sorted(left)} did not need {sorted(stuck)}, and are not completed")
        self.simulation.tally.independent += 1

    def _check_suspended(self, result: Result) -> None:
        """All that did not need the nodes that wait came to its end, and that is saved; who was not answered was not called."""
        simulation, nodes = self.simulation, self.database.nodes
        waiting = self.database.waiting
        if not waiting or set(result.suspensions) != set(waiting) or self.database.status != "suspended":
            told, kept = sorted(result.suspensions), sorted(waiting)
            raise simulation.failed(f"told as waiting: {told}, stored: {kept}, the store has the run as {self.database.status}")
        stuck = self.case.needing(waiting)
        completed = {node.node_id for node in nodes.values() if node.status == "completed"}
        if left := {member.node_id for member in self.case.members} - stuck - completed:
            raise simulation.failed(f"nodes {sorted(left)} did not need {sorted(waiting)}, and are not completed")
        assert self.plugin is not None
        fetched = {node_id for node_id, waits in self.asked.items() if (node_id, waits.since) in self.plugin.fetched}
        for node_id in self.asked.keys() - self.updates.keys() - fetched:
            if simulation.journal.begun[self.number, node_id]:
                raise simulation.failed(f"node {node_id} was called, and nobody had answered it")
        simulation.tally.suspended += 1

    def _check_end(self, outputs: Mapping[str, Sequence[Any]]) -> None:
        """The run is completed: its outputs, and how often each body was called."""
        simulation, case = self.simulation, self.case
        if case.overflows is not None:
            raise simulation.failed(f"node {case.overflows} took more items than its log may hold, and nothing happened")
        if problems := problems_of(case, outputs):
            raise simulation.failed("; ".join(problems))
        if self.database.status != "completed":
            raise simulation.failed(f"the run is over, and the store has it as {self.database.status}")
        if self.was_completed:
            return
        if self.lab.promised:
            raise simulation.failed(f"on_durable was never called for {sorted(self.lab.promised)}")
        total = expected_firings(case, known_items(case, outputs))
        for member in case.members:
            if isinstance(KINDS[member.kind].node, str):
                continue
            final = final_firings(member, {node_id: firings_of(node) for node_id, node in self.restored.items()})
            begun = of_member(
                member, {node_id: n for (world, node_id), n in simulation.journal.begun.items() if world == self.number}
            )
            keys = sum(node_id == member.node_id for node_id, _ in simulation.journal.contents)
            one_step_a_firing = KINDS[member.kind].role == "plain" and member.kind not in SEVERAL_STEPS
            # Of a step whose result was given, nobody knows whether it had begun.
            one_step_a_firing = one_step_a_firing and not simulation.given[member.node_id]
            if one_step_a_firing and member.node_id in case.pure and keys != total[member.node_id]:
                raise simulation.failed(
                    f"node {member.node_id} fires {total[member.node_id]} times, and had {keys} different idempotency keys"
                )
            woken = of_member(member, self.lab.suspended)  # in this very world, or it would not be at its end
            simulation.tally.woken += woken
            given = [node_id for node_id in self.updates.keys() - self.asked.keys() if member_of(node_id) == member.node_id]
            again = of_member(member, self.lab.retried) + woken - len(given)
            left = total[member.node_id] - final + again
            if begun > left or (begun < left and member.observed):  # without consumers a generator is closed
                raise simulation.failed(
                    f"node {member.node_id} fires {total[member.node_id]} times, {final} firings were final in the restored cut, "
                    f"and {begun} ran after it, which retries, answers and decisions change by {again}"
                )

    def _check_last_cut(self, outcome: str) -> None:
        """Where the plugin asked for it, the end of a stopped or failed run is the newest checkpoint."""
        moments: dict[str, tuple[str, RunStatus]] = {
            "stopped": ("signal", "paused"),
            "cancelled": ("cancel", "paused"),
            "failed": ("error", "failed"),
        }
        moment, status = moments.get(outcome, ("", "running"))
        begun = any(attempt == self.number for attempt, _ in self.simulation.journal.begun)
        if self.database.status == "completed" or not begun:
            return  # nothing had begun, or all was over
        if outcome == "cancelled" and (self.database.reasons[-1:], self.database.status) == (["suspend"], "suspended"):
            return  # all that is left waited for answers before the cancellation was heard
        if outcome in ("stopped", "cancelled") and self.case.overflows is not None and self.database.status == "failed":
            return  # its log had overflowed before
        if moment in self.case.save_at and (self.database.reasons[-1:], self.database.status) != ([moment], status):
            raise self.simulation.failed(
                f"{outcome}, and the newest checkpoint is {self.database.reasons[-1:]} with status {self.database.status}"
            )

    def _check_clean(self, plugin: MemoryPlugin) -> None:
        """A run that has ended leaves nothing behind."""
        simulation = self.simulation
        remains = self.loop.remains() + [f"thread {name}" for name in self.batons.alive()]
        if remains:
            raise simulation.failed(f"left behind: {', '.join(remains)}")
        if self.loop.unheard:
            raise simulation.failed(f"the loop heard: {self.loop.unheard}")
        if plugin.control is not None and not plugin.ended and not isinstance(plugin.control.ending.error, StoreError):
            raise simulation.failed("after_run was not called")


def _returned(member: Member, node: NodeSnapshot) -> Any:
    """What the unfinished firing of a cut would return."""
    step = KINDS[member.kind].step
    assert step is not None and node.arguments is not None
    arguments = [node.arguments[handle] for handle in KINDS[member.kind].handles]
    _, (emission,) = step(member.node_id, member.data, None, arguments[0] if KINDS[member.kind].collects else arguments)
    return emission["output"]
