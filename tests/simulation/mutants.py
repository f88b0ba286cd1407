"""Copies of the runner that each lack one rule of the cut. The simulation must notice every one."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import workflow_runner

__all__ = ["MUTANTS", "Edit", "Mutant", "plant"]


@dataclass(frozen=True)
class Edit:
    """One piece of source replaced by another."""

    module: str
    old: str
    new: str


@dataclass(frozen=True)
class Mutant:
    """The runner without a rule.

    Args:
        rule: its number in the list of rules of the cut; see the page about writing nodes.
        name: what is missing.
        edits: that take it away.
    """

    rule: int
    name: str
    edits: Sequence[Edit]


def plant(mutant: Mutant, folder: Path) -> None:
    """Write the package without the rule into a folder.

    Raises:
        AssertionError: the source is not as the mutant expects, so that it would prove nothing.
    """
    package = Path(workflow_runner.__file__).parent
    copy = folder / "workflow_runner"
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for edit in mutant.edits:
        path = copy / f"{edit.module}.py"
        source = path.read_text(encoding="utf-8")
        count = source.count(edit.old)
        assert count == 1, f"{mutant.name}: {edit.module}.py has {count} times {edit.old!r}. Adapt the mutant to the source."
        path.write_text(source.replace(edit.old, edit.new), encoding="utf-8")


MUTANTS: Sequence[Mutant] = (
    Mutant(
        1,
        "what a body returned waits for the others before it is final",
        (
            Edit(
                "body",
                "        return value, self._publish_returned(value)\n",
                "        must_settle = self._publish_returned(value)\n"
                "        if must_settle or self.holds:\n"
                "            await self.settle()\n"
                "        return value, must_settle\n",
            ),
        ),
    ),
    Mutant(
        1,
        "what a body returned is handed on before after_node",
        (
            Edit(
                "outbox",
                "run.gate_reason is not None or (run.hooks.after_node is not None and not node_type.generates)",
                "run.gate_reason is not None",
            ),
        ),
    ),
    Mutant(
        2,
        "a commit while items remain to be swallowed is accepted",
        (
            Edit(
                "actor",
                "        if self.swallow_left:\n            raise ReplayDiverged",
                "        if False:\n            raise ReplayDiverged",
            ),
        ),
    ),
    Mutant(
        3,
        "states are not copied",
        (
            Edit(
                "actor",
                "if (self.run.saver is None and not self.planned.failure.retries) or type(state) in IMMUTABLE:",
                "if True:",
            ),
        ),
    ),
    Mutant(
        3,
        "commit keeps the state of the body itself",
        (Edit("actor", "        state = self.private(state)\n        self.check_replayed()", "        self.check_replayed()"),),
    ),
    Mutant(
        3,
        "context.state gives the kept state itself",
        (Edit("context", "return self._actor.private(self._actor.state)", "return self._actor.state"),),
    ),
    Mutant(
        5,
        "the log has no bound",
        (Edit("streaming", "if len(taken) >= self.run.settings.max_log:", "if False:"),),
    ),
    Mutant(
        5,
        "a stateless node does not commit at its reads",
        (Edit("streaming", "if self.taken or self.emitted or self.durable_calls:", "if False:"),),
    ),
    Mutant(
        7,
        "nobody is frozen when the run is stopped",
        (Edit("run", "        for other in self.actors.values():\n            other.freeze()\n", ""),),
    ),
    Mutant(
        7,
        "the last cut is taken after everybody was cancelled",
        (
            Edit("run", "        for other in self.actors.values():\n            other.freeze()\n", ""),
            Edit(
                "run",
                'self._save_last(status if wanted else None, reason, text if status == "failed" else None, failed)',
                "self.late = lambda: self._save_last(status if wanted else None, reason, None, failed)",
            ),
            Edit(
                "run",
                "            if self.saver is not None:\n                await self.saver.finish()\n",
                "            for actor in [*self.actors.values()]:\n"
                "                if actor.task is not None:\n"
                "                    actor.task.cancel()\n"
                "            await self.grace.wait_for(self.tasks)\n"
                "            if hasattr(self, 'late'):\n"
                "                self.late()\n"
                "            if self.saver is not None:\n                await self.saver.finish()\n",
            ),
        ),
    ),
    Mutant(
        8,
        "no edge grows when everybody waits",
        (Edit("growth", "if edge is None or edge.capacity >= self._limit:", "if True:"),),
    ),
    Mutant(
        8,
        "what is sent to a finished consumer is kept",
        (
            Edit(
                "edge",
                "            self.closed = True\n"
                "            if self.producer is not None:\n"
                "                self.producer.drop(self)\n"
                "                self.producer = None\n"
                "            self.clear()\n",
                "            pass\n",
            ),
        ),
    ),
    Mutant(
        8,
        "a generator goes on although nobody is left to hear it",
        (Edit("body", "            if self.orphaned:\n", "            if False:\n"),),
    ),
    Mutant(
        9,
        "a checkpoint asked for while swallowing is taken",
        (Edit("context", "if actor.run.saver is None or actor.swallow_left:", "if actor.run.saver is None:"),),
    ),
    Mutant(
        9,
        "asking for a checkpoint is a commit point",
        (
            Edit(
                "context",
                "        return await actor.run.saver.request(reason)\n",
                "        actor.pass_commit()\n        return await actor.run.saver.request(reason)\n",
            ),
        ),
    ),
    # Not rules of their own, but what "a consistent cut" means; each was once wrong.
    Mutant(
        0,
        "a cut forgets who was woken and has not begun",
        (Edit("cut", 'actor.status != "completed"}', 'actor.status == "running"}'),),
    ),
    Mutant(
        0,
        "a cut shares the log with the node",
        (
            Edit(
                "cut",
                "draft.taken = Prefix(taken) if taken and isinstance(taken, list) else ()",
                "draft.taken = taken",
            ),
        ),
    ),
    Mutant(
        0,
        "a cut does not look at the consumers of those that moved",
        (Edit("cut", "                visited[consumer] = None\n", "                pass\n"),),
    ),
    Mutant(
        0,
        "a cut does not look at those who got the last of a node that is over",
        (Edit("cut", "            run.changed[consumer] = None\n", "            pass\n"),),
    ),
    Mutant(
        0,
        "a cut forgets what is held for it",
        (Edit("edge", "return (*self.items, *self.held) if self.held else tuple(self.items)", "return tuple(self.items)"),),
    ),
    Mutant(
        0,
        "the latest values of on_any are not restored",
        (Edit("wiring", "actor.restore_latest(node.latest)", "pass"),),
    ),
    Mutant(
        0,
        "a step that runs again is not fed its script",
        (Edit("streaming", "self.script_left = len(self.taken)", "self.taken = []"),),
    ),
    Mutant(
        0,
        "a step that runs again sends again",
        (Edit("actor", "        self.swallow_left = self.emitted\n", ""),),
    ),
    Mutant(
        0,
        "what is held is not held until it is durable",
        (
            Edit(
                "actor",
                "                await run.saver.request(run.gate_reason)\n",
                "                run.saver.request(run.gate_reason)\n",
            ),
        ),
    ),
    # What happens when a node fails.
    Mutant(
        0,
        "a step that is tried again sends again",
        (Edit("body", "        self.attempt += 1\n        self.rewind()\n", "        self.attempt += 1\n"),),
    ),
    Mutant(
        0,
        "a wait for the next try is a standstill",
        (
            Edit(
                "body",
                "        await asyncio.sleep(delay)\n",
                "        self.waits += 1\n        run.enter_wait(self)\n"
                "        await asyncio.sleep(delay)\n        self.leave_wait()\n",
            ),
        ),
    ),
    Mutant(
        0,
        "what came for a node that failed is dropped",
        (
            Edit(
                "actor",
                "        self.frozen = True\n        self.choose_publish()\n\n    def check_alive",
                "        self.freeze()\n\n    def check_alive",
            ),
        ),
    ),
    Mutant(
        0,
        "a node that failed ends those that do not need it",
        (Edit("run", 'if self.independent and actor.status == "failed":', "if False:"),),
    ),
    Mutant(
        0,
        "a step that must not be repeated begins before that is durable",
        (
            Edit(
                "body",
                'await self.run.saver.request("not replayable")',
                'self.run.saver.request("not replayable")',
            ),
        ),
    ),
    Mutant(
        0,
        "a step of unknown outcome is repeated unasked",
        (
            Edit(
                "decisions",
                "            raise OutcomeUnknown(run_id, undecided, decided, arguments, keys)\n",
                "            pass\n",
            ),
        ),
    ),
    Mutant(
        0,
        "a step whose result is given is run all the same",
        (Edit("body", "if self.given is not None:", "if False:"),),
    ),
    Mutant(
        0,
        "a cut forgets a node that was answered and is about to run",
        (
            Edit(
                "cut",
                'if not actor.waits and actor.status != "completed"',
                'if not actor.waits and actor.status in ("idle", "running")',
            ),
        ),
    ),
    Mutant(
        0,
        "an answer goes on before it is durable",
        (
            Edit(
                "run",
                'await self.saver.request_first("answer" if',
                'self.saver.request_first("answer" if',
            ),
        ),
    ),
    Mutant(
        0,
        "what seemed to be over is taken to be over",
        (Edit("run", "if not self.plan.over <= over:", "if False:"),),
    ),
    Mutant(
        0,
        "an edge of what is left has another name",
        (Edit("rest", "name_edge(place, taken)", "name_edge(place + 1, taken)"),),
    ),
    Mutant(
        6,
        "a node that waits is called again before it is answered",
        (Edit("wiring", "actor.asleep = not suspension.answered", "actor.asleep = False"),),
    ),
    Mutant(
        6,
        "what was taken before a suspension is fed again",
        (
            Edit(
                "body",
                "        self.pass_commit()\n        self.suspension, self.resumption = kept, None\n",
                "        self.suspension, self.resumption = kept, None\n",
            ),
        ),
    ),
    Mutant(
        6,
        "what comes to a node that waits starts it",
        (Edit("body", "        self.asleep = True\n", "        self.asleep = False\n"),),
    ),
    Mutant(
        6,
        "an answer is given to whatever its node waits for",
        (Edit("waking", "actor.suspension.since == answer.since:", "True:"),),
    ),
    Mutant(
        6,
        "a node goes on before its answer is durable",
        (
            Edit(
                "waking",
                "            await self._save()\n            await self.correct(due)\n",
                "            await self.correct(due)\n",
            ),
        ),
    ),
    Mutant(
        6,
        "a cut does not tell that a node was answered",
        (Edit("actor", "        self.captured = None  # no number of its signature tells of an answer\n", ""),),
    ),
    Mutant(
        6,
        "a run ends as suspended though one of its nodes was answered",
        (
            Edit("run", "if self.stopping or self.moves:", "if self.stopping:"),
            Edit("waking", "if ends and not woken:", "if ends:"),
        ),
    ),
    Mutant(
        0,
        "the number of a firing is the lane's own",
        (Edit("movers", "        lane.consumer.number_next(self.firing)\n", ""),),
    ),
    Mutant(
        0,
        "a lane counts its commits by itself",
        (Edit("actor", "self.firing = self.commits = firing - 1", "self.firing = firing - 1"),),
    ),
    Mutant(
        0,
        "what lanes return goes on in turn",
        (Edit("movers", "lanes[order.items[0]]", "lanes[self.firing % len(lanes)]"),),
    ),
    Mutant(
        0,
        "nobody tells that a lane waits",
        (Edit("actor", "                edge.giver.wake()\n", "                pass\n"),),
    ),
    Mutant(
        0,
        "what is handed out waits to be durable",
        (
            Edit(
                "movers",
                "    acts = False\n\n    async def live(self) -> None:\n        *lanes",
                "    async def live(self) -> None:\n        *lanes",
            ),
        ),
    ),
    Mutant(
        0,
        "a list stays in its edge until all that is in it has gone",
        (
            Edit(
                "movers",
                "                    await self._emit(edge.pop())\n",
                "                    await self._emit(edge.items[0])\n                    edge.pop()\n",
            ),
        ),
    ),
    Mutant(
        0,
        "what is collected goes on when something is there",
        (Edit("movers", "while not edge.ended:", "while not (edge.ended or edge.items):"),),
    ),
    Mutant(
        0,
        "what lists hold counts as emitted by a step that is not final",
        (Edit("movers", "        self.emitted = 0\n        if must_flush:", "        if must_flush:"),),
    ),
)
