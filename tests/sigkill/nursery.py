"""A nursery: a process that has imported everything, and forks a child for every attempt of a run.

So a kill costs a few milliseconds instead of the start of an interpreter, and hundreds of them fit into a test. What the
child does is what `workflow resume` does; it never sees that it will be killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from types import ModuleType, TracebackType
from typing import Any

from checkpoint_plugin.database.location import locate
from checkpoint_plugin.errors import StoreMissing
from checkpoint_plugin.events.log import EventLogger
from checkpoint_plugin.restoring import remembered
from checkpoint_plugin.saving import holding, rows
from checkpoint_plugin.store import RunHistory, Store
from hookspecs import CheckpointRef, PluginHost, RunExists, RunHeld, RunInfo, RunNotFound, Snapshot, hookimpl, to_tagged
from tests.sigkill.witness import WitnessLab, open_journal
from tests.simulation.cases import Case
from tests.simulation.lab import LAB, member_of
from tests.simulation.models import KINDS
from tests.simulation.shapes import make_case
from workflow_runner import OutcomeUnknown, Result, WorkflowRunner
from workflow_runner.node import node_type_of

__all__ = ["KILLED", "Nursery", "Order", "reap"]

KILLED = -signal.SIGKILL
LIMIT_SECONDS = 60.0


@dataclass(frozen=True)
class Order:
    """One attempt.

    Args:
        seed: of the case.
        attempt: counted by the test.
        run_id: of the run.
        url: of the store.
        options: of the plugin, for the first attempt.
        folder: where the journal and the outputs are.
        pace_seconds: the longest pause of a body.
        kill_after_seconds: when it is killed; `None` for never.
        at_work: count that from its first body, not from its start.
    """

    seed: int
    attempt: int
    run_id: str
    url: str
    options: Mapping[str, Any]
    folder: str
    pace_seconds: float
    kill_after_seconds: float | None
    at_work: bool

    @property
    def journal(self) -> Path:
        """Where the bodies write what they do."""
        return Path(self.folder) / f"{self.run_id}.journal"

    @property
    def outputs(self) -> Path:
        """Where the outputs are, as tagged JSON, when the run is completed."""
        return Path(self.folder) / f"{self.run_id}.json"

    @property
    def messages(self) -> Path:
        """Where a child complains."""
        return Path(self.folder) / f"{self.run_id}.log"


class Nursery:
    """A nursery in a process of its own.

    Args:
        hash_seed: its PYTHONHASHSEED.
    """

    def __init__(self, hash_seed: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.sigkill.nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
        )

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.communicate()

    def run(self, order: Order) -> int:
        """Run one attempt to its end, or to its kill; its exit code, negative for a signal."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(order)) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise AssertionError(f"the nursery itself ended with {self._process.wait()}")
        return int(answer)


def serve() -> None:
    """Take orders from standard input, and answer each with an exit code."""
    for module in node_modules():
        for node_type in filter(None, map(node_type_of, vars(module).values())):
            assert node_type.fingerprint  # read here once, not in every child
    for line in sys.stdin:
        order = Order(**json.loads(line))
        working, works = os.pipe()
        child = os.fork()
        if not child:
            os._exit(_attempt(order, works))
        os.close(works)
        print(_watch(child, working, order), flush=True)
        os.close(working)


def node_modules() -> list[ModuleType]:
    """The modules of the simulation's node types."""
    names = {kind.node.__module__ for kind in KINDS.values() if not isinstance(kind.node, str)}
    return [sys.modules[name] for name in sorted(names)]


def _watch(child: int, working: int, order: Order) -> int:
    # Nobody else waits for the child, so its id stays its own until we do: the kill cannot hit a stranger.
    descriptor = os.pidfd_open(child)
    try:
        if order.at_work:
            select.select([descriptor, working], [], [], LIMIT_SECONDS)
    finally:
        os.close(descriptor)
    return reap(child, order.kill_after_seconds)


def reap(child: int, kill_after_seconds: float | None) -> int:
    """Wait for a child's end, or bring it about after some time; its exit code, negative for a signal."""
    descriptor = os.pidfd_open(child)
    try:
        delay_seconds = LIMIT_SECONDS if kill_after_seconds is None else kill_after_seconds
        over, _, _ = select.select([descriptor], [], [], delay_seconds)
        if not over:
            os.kill(child, signal.SIGKILL)
    finally:
        os.close(descriptor)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _attempt(order: Order, works: int) -> int:
    """In the child: go on with the run, or begin it; the exit code."""
    messages = order.messages.open("a", encoding="utf-8")
    os.dup2(messages.fileno(), 1)
    os.dup2(messages.fileno(), 2)
    try:
        outputs = asyncio.run(_live(order, works))
    except BaseException:  # this is the child's last stop: nothing may return into the nursery
        traceback.print_exc(file=messages)
        messages.flush()
        return 1
    order.outputs.write_text(json.dumps(to_tagged(outputs)), encoding="ascii")
    return 0


class Notary:
    """Writes into the journal what an attempt goes on from, and what it is told to be durable.

    Not before the attempt has its number: a save that was under way when its process was killed may become visible
    until then. PostgreSQL commits for a client that is gone; SQLite finds the commit when it recovers its log.
    """

    def __init__(self, order: Order, lab: WitnessLab) -> None:
        self._order = order
        self._lab = lab

    @hookimpl(trylast=True)
    async def before_run(self, run: RunInfo) -> None:
        """Read the newest durable cut; the plugin has made this attempt the newest."""
        snapshot, logged = await _durable_cut(self._order)
        for number in logged:
            self._lab.saved(number)
        self._lab.restored(snapshot)

    @hookimpl
    async def checkpoint_saved(self, run: RunInfo, ref: CheckpointRef) -> None:
        """A checkpoint is durable, whoever waited for it."""
        self._lab.saved(ref.number)


async def _durable_cut(order: Order) -> tuple[Snapshot | None, list[int]]:
    """The newest cut, and the checkpoints that the run's events call durable."""
    store = Store(locate(order.url), create=False)
    try:
        events = await EventLogger(order.run_id, store=store).events(kind="checkpointed")
        return await store.restore(RunHistory(order.run_id, 0), None), [event.payload["number"] for event in events]
    finally:
        await store.close()


async def _live(order: Order, works: int) -> dict[str, list[Any]]:
    case = make_case(order.seed)
    random = Random(f"{order.seed} {order.attempt}")
    if order.seed % 2:  # these graphs are small: let a node that holds anything hold much, so that its rows continue others
        for module in (holding, remembered, rows):
            vars(module)["MANY"] = 1
    lab = WitnessLab(open_journal(order.journal), works, order.attempt, random, order.pace_seconds)
    LAB.set(lab)
    host = PluginHost().register(Notary(order, lab), "notary")
    runner = WorkflowRunner(plugins=host, nodes=node_modules(), edge_capacity=case.edge_capacity, max_log=case.max_log)
    replay: set[str] = set()
    while True:
        try:
            result = await _go_on(order, case, runner, replay)
        except (RunHeld, RunExists):
            continue  # the attempt that was killed became visible just now
        except OutcomeUnknown as error:
            # Here a body may begin again: the journal tells.
            replay.update(node_id for node_id in error.node_ids if member_of(node_id) in case.careful)
            continue
        return result.outputs


async def _go_on(order: Order, case: Case, runner: WorkflowRunner, replay: set[str]) -> Result:
    try:
        return await runner.resume(order.run_id, url=order.url, replay=replay)
    except (RunNotFound, StoreMissing):  # killed before the run's row was durable
        options = {**order.options, "url": order.url}
        return await runner.run(case.graph(), case.inputs(), enable={"checkpoint": options}, run_id=order.run_id)


if __name__ == "__main__":
    serve()
