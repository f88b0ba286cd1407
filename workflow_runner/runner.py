"""`WorkflowRunner`: runs graphs, and resumes runs that a plugin has stored."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from inspect import iscoroutinefunction
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Literal, Self

from hookspecs import (
    NO_HOOKS,
    CheckpointChoice,
    PluginHost,
    ResourcePool,
    RunHooks,
    RunInfo,
    StoreError,
    Suspension,
)
from workflow_runner.compiled import CompiledGraph
from workflow_runner.decisions import NO_DECISIONS, Decisions
from workflow_runner.enabling import by_name, enabled, merge_enable
from workflow_runner.errors import GraphChanged, InputInvalid, NodeNotWaiting, RunStopped, StoreUnknown
from workflow_runner.events import Event
from workflow_runner.failure import OnFailure
from workflow_runner.graph import Graph
from workflow_runner.identity import check_run_id, new_run_id
from workflow_runner.loading import open_run
from workflow_runner.nodetype import NodeType
from workflow_runner.plan import Plan
from workflow_runner.planning import make_plan
from workflow_runner.registry import NodeRegistry
from workflow_runner.rest import rest_of
from workflow_runner.run import Run
from workflow_runner.settings import Settings
from workflow_runner.task import start_task
from workflow_runner.threads import BodyThread

__all__ = ["AnyGraph", "Listener", "Result", "WorkflowRunner"]

Listener = Callable[[Event], None]
AnyGraph = Graph | CompiledGraph | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended that did not fail.

    Args:
        run_id: the run.
        status: `completed`, or `suspended`: it goes on when `resume` is given an answer that a node waits for.
        outputs: what each output collected, in order; of a suspended run so far.
        degraded: why the run went on without the durability it was promised; `None` for a run that had it.
        suspensions: what nodes of a suspended run wait for, by node id.
    """

    run_id: str
    status: Literal["completed", "suspended"]
    outputs: dict[str, list[Any]]
    degraded: str | None = None
    suspensions: Mapping[str, Suspension] = field(default_factory=dict)


class WorkflowRunner:
    """Runs workflows.

        async with WorkflowRunner() as runner:
            await asyncio.gather(*(runner.run(graph, {"order": order}) for order in orders))

    Open, as here, plugins keep what they open for the next run, a connection to the store for example; else each run opens
    and closes its own.

    Args:
        plugins: where plugins are found; default: the entry points of installed packages.
        nodes: Python files, dotted module names or modules with node types.
        edge_capacity: items that an edge holds before its producer waits.
        max_edge_capacity: items to which an edge may grow when everything waits.
        max_log: stream items that a body may take without a commit where a plugin saves or its node has retries.
        max_threads: plain bodies of one run written with `def` that run at once; those that stream or yield do not count.
        validate: `"deep"` checks items all the way down.
        grace_seconds: how long a stopped run waits for its bodies.
        on_event: called with every event of every run, on the event loop; a plain `def`.
        threads: makes the thread of a `def` body.
        on_failure: `"fail_fast"`: a run ends as soon as a node has failed; `"finish_independent"`: when those that do not need
            it have come to their end. Wins over what the graph says; without both, `"fail_fast"`.

    Raises:
        ValueError, TypeError: an argument has a value that makes no sense.
    """

    def __init__(
        self,
        *,
        plugins: PluginHost | None = None,
        nodes: Iterable[str | Path | ModuleType] = (),
        edge_capacity: int = 64,
        max_edge_capacity: int = 65_536,
        max_log: int = 10_000,
        max_threads: int = 64,
        validate: Literal["shallow", "deep"] = "shallow",
        grace_seconds: float = 5.0,
        on_event: Listener | None = None,
        threads: Callable[[], BodyThread] = BodyThread,
        on_failure: OnFailure | None = None,
    ) -> None:
        _refuse_text("nodes", nodes)
        if validate not in ("shallow", "deep"):
            raise ValueError(f"validate is 'shallow' or 'deep', not {validate!r}.")
        self._host = plugins if plugins is not None else PluginHost()
        self._registry = NodeRegistry(nodes, self._host.node_modules)
        self._validate = validate
        self._settings = Settings(edge_capacity, max_edge_capacity, max_log, max_threads, grace_seconds, threads, on_failure)
        self._listeners: list[Listener] = [_plain(on_event)] if on_event is not None else []
        self._running: set[Run] = set()
        self._pool: ResourcePool | None = None
        self._stopped = (0, "")
        """How often `stop` was called, and why: for runs that are still being read meanwhile."""

    async def __aenter__(self) -> Self:
        """Open it: what plugins open for a run, connections for example, they keep for its next runs, until it is closed.

        Raises:
            RuntimeError: it is open.
        """
        if self._pool is not None:
            raise RuntimeError("this runner is open already. Open it once, for all its runs.")
        self._pool = ResourcePool()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close()

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Have a function called with every event of every run.

        Args:
            listener: a plain `def`, called on the event loop; what it raises fails the run.

        Returns:
            A function that ends this, and may be called again.

        Raises:
            TypeError: it is an `async def`, whose coroutine nobody would await.
        """
        subscribed = True

        def end() -> None:
            nonlocal subscribed
            if subscribed:
                subscribed = False
                self._listeners.remove(listener)

        self._listeners.append(_plain(listener))
        return end

    def compile(self, graph: Graph | Mapping[str, Any]) -> CompiledGraph:
        """Check a graph once, for many runs of it.

        Args:
            graph: the graph, or its document; what is done to it later does not count.

        Returns:
            What `run` takes in its place, with the checks of this runner's `validate`.

        Raises:
            GraphInvalid: with every problem found.
            NodeModuleError: a module of node types cannot be loaded.
        """
        compiled = self._compiled(_graph_of(graph).copy())
        compiled.graph.types = {node.type.name: node.type for node in compiled.plan.nodes.values()}  # for a resume elsewhere
        compiled.make_ready()
        return compiled

    def validate(self, graph: AnyGraph, inputs: Mapping[str, Any] | None = None) -> None:
        """Check a graph, and the inputs if given, without running anything.

        Args:
            graph: as for `run`.
            inputs: as for `run`; `None` leaves them unchecked.

        Raises:
            GraphInvalid: with every problem found.
            InputInvalid: an input is unknown or missing.
            NodeModuleError: a module of node types cannot be loaded.
        """
        plan = self._compiled(graph).plan
        if inputs is not None:
            plan.given(by_name(inputs, "inputs"))

    async def run(
        self,
        graph: AnyGraph,
        inputs: Mapping[str, Any] | None = None,
        enable: Mapping[str, Any] | None = None,
        run_id: str | None = None,
    ) -> Result:
        """Run a workflow to its end.

        Args:
            graph: the graph, its document, or what `compile` made of it.
            inputs: values of the `workflow.Input` nodes, by name.
            enable: plugins by name, `True`, `False` or options; wins over the graph's own. `True` keeps the options of
                the graph.
            run_id: 1 to 200 characters; default a new UUIDv7.

        Returns:
            How it ended: completed, or suspended.

        Raises:
            GraphInvalid, InputInvalid, RunIdInvalid, NodeModuleError: nothing was started.
            PluginError: an enabled plugin is missing, blocked, broken or misused; nothing was started.
            RunExists: a plugin has stored a run of this id.
            StoreError: the store cannot be used, or a save failed; where the run had begun, it can be resumed.
            LeaseLost: another worker took the run over meanwhile, or it was cancelled in the store.
            NodeFailed: a node failed; what it raised is the cause.
            HookError: a plugin failed.
            Deadlock: every node waits and no edge may grow.
            RunStopped: `stop` was called.
            asyncio.CancelledError: the caller was cancelled, and the last cut is taken.
        """
        run_id = new_run_id() if run_id is None else check_run_id(run_id)
        compiled = self._compiled(graph)
        given = dict(by_name(inputs, "inputs"))
        plan = compiled.plan.given(given)
        chosen = merge_enable(plan.graph.enable, by_name(enable))
        hooks = self._host.bind(chosen)
        is_told = hooks != NO_HOOKS
        document = compiled.document if is_told else {}
        if document and self._settings.on_failure is not None:
            document = {**document, "on_failure": self._settings.on_failure}
        teach = self._host.teacher(hooks) if is_told else None
        info = RunInfo(run_id, 1, document, given, enabled(chosen), teach, pool=self._pool)
        return await self._execute(plan, info, hooks)

    async def resume(
        self,
        run_id: str,
        enable: Mapping[str, Any] | None = None,
        graph: AnyGraph | None = None,
        url: str | None = None,
        accept_changed: Iterable[str] = (),
        checkpoint: CheckpointChoice = None,
        steal: bool = False,
        updates: Mapping[str, Any] | None = None,
        replay: Collection[str] = (),
        since: Mapping[str, datetime] | None = None,
    ) -> Result:
        """Go on with a stored run where its last checkpoint was taken. A completed run gives its outputs.

        Args:
            run_id: the run.
            enable: as in `run`, over the options stored with the run.
            graph: must be the stored graph. One that was built in Python brings its node types; else `nodes` has to name them.
            url: of the store; default what `enable` names, then what `graph` enables, then the plugin's own default.
            accept_changed: ids of nodes that may go on with changed source in the middle of a step.
            checkpoint: the number of the checkpoint to go on from, `"latest-intact"` for the newest that is not damaged,
                `None` for the newest, which must not be. A completed run, too, goes on from a checkpoint that is named.
            steal: take the run over from another worker that still holds it.
            updates: answers for suspended nodes, by node id, which are durable before anything goes on; and what nodes of
                unknown outcome are taken to have returned.
            replay: ids of nodes of unknown outcome that are to run their step again.
            since: by node, what it waits for that is answered, told by the time since when it does (`Suspension.since`): where
                somebody else was faster and it waits for something else by now, the answer is refused.

        Returns:
            How the run stands: completed, or suspended.

        Raises:
            TypeError: `accept_changed` or `replay` is one text.
            RunNotFound, StoreError: the store has no such run or checkpoint, is missing or damaged.
            PluginMissing: no installed plugin has a store.
            PluginConflict: several have one, and `enable` does not name one of them.
            StoreUnknown: the plugin that has it is switched off.
            GraphChanged: the graph is another one.
            OutcomeUnknown: a node that is not replayable was in progress when the run ended, and nothing is decided about it.
            InputInvalid: a value does not fit its node, a node is decided twice, `accept_changed` names none of the run,
                `checkpoint` is no such choice, or `since` holds no such times.
            SourceChanged: a node's source changed in the middle of a step.
            InputChanged: a node that had begun takes an input as a stream that was none, or the other way round.
            NodeNotWaiting: an answer or decision is for a node that waits for none; nothing was changed.
            SuspensionChanged: a node waits for something else than what it waited for `since`; nothing was changed.
            RunHeld: another worker holds the run.
            LeaseLost: another worker took it over meanwhile.
            Exception: else as `run`.
        """
        check_run_id(run_id)
        _refuse_text("accept_changed", accept_changed)
        _refuse_text("replay", replay)
        _check_choice(checkpoint)
        answers = dict(by_name(updates, "updates"))
        decisions = Decisions(frozenset(replay), answers, dict(by_name(since, "since")))
        changed = frozenset(accept_changed)
        stopped = self._stopped
        self._registry.load()  # modules of nodes register the types of their values when they are imported
        own = None if graph is None else _graph_of(graph)
        opened = open_run(
            self._host,
            run_id,
            by_name(enable),
            url,
            self._pool,
            outputs=checkpoint is None,
            enabled_by_graph=by_name(None if own is None else own.enable),
        )
        async with opened as loaded:
            if checkpoint == "latest-intact" and loaded.stored.status == "completed":
                with suppress(StoreError):  # where its newest checkpoint is damaged, it goes on from another one
                    await loaded.read_outputs()
            name, stored = loaded.plugin, loaded.stored
            types: dict[str, NodeType] = {}
            if own is not None:
                differences = Graph.from_document(stored.graph).differences(own)
                if differences:
                    raise GraphChanged(run_id, differences)
                types = own.types
            is_over = stored.status == "completed" and (checkpoint is None or stored.outputs is not None)
            for node_id in (*answers, *replay):
                is_there = any(node_id == node["id"] for node in stored.graph["nodes"])
                if is_over or not is_there:
                    raise NodeNotWaiting(run_id, node_id, "completed" if is_there else "not in its graph")
            if unknown := sorted(changed.difference(node["id"] for node in stored.graph["nodes"]) if changed else ()):
                raise InputInvalid(f"run {run_id!r} has no node {unknown[0]!r} that could have changed. Leave it out.")
            if stored.status == "completed" and stored.outputs is not None:
                return Result(run_id, "completed", {name: list(items) for name, items in stored.outputs.items()})

            def plan_stored(over: Set[str] = frozenset()) -> Plan:
                left = rest_of(stored.graph, over) if over else Graph.from_document(stored.graph)
                left.types = types
                return make_plan(left, self._registry, self._validate, over).given(stored.inputs)

            plan = plan_stored(stored.over if checkpoint is None else frozenset())
            chosen = merge_enable(stored.enable, by_name(enable))
            options = chosen.get(name)
            if loaded.url is not None and options is not None and options is not False and name not in self._host.registered():
                chosen[name] = {**options, "url": loaded.url}
            hooks = self._host.bind(chosen)
            if hooks.restore_checkpoint is None:
                raise StoreUnknown(
                    f"run {run_id!r} cannot be resumed with plugin {name!r} switched off. Leave out --disable {name}."
                )
            info = RunInfo(
                run_id,
                stored.attempt + 1,
                stored.graph,
                dict(stored.inputs),
                enabled(chosen),
                self._host.teacher(hooks),
                steal,
                loaded.loader,
                self._pool,
            )
            if self._stopped != stopped:
                raise RunStopped(run_id, self._stopped[1], durable=True)
            return await self._execute(plan, info, hooks, changed, checkpoint, decisions, plan_stored)

    def stop(self, reason: str) -> None:
        """Stop the runs in progress: each takes a last cut, as soon as its event loop gets to it, and then raises `RunStopped`.

        One that is still being read to be resumed does not begin. It may be called in any thread, and by a handler of
        `signal.signal`.

        Args:
            reason: `"signal"`, or a word of your own.
        """
        self._stopped = (self._stopped[0] + 1, reason)
        for run in tuple(self._running):
            # Not at once: a signal handler may stand in the middle of a step, and a sleeping loop has to be woken.
            with suppress(RuntimeError):  # the loop is closed, and nothing runs in it any more
                run.loop.call_soon_threadsafe(run.stop, reason)

    @property
    def abandoned(self) -> bool:
        """Whether a stopped run had to leave a body that did not end within the grace period."""
        return self._abandoned

    _abandoned = False

    def _compiled(self, graph: AnyGraph) -> CompiledGraph:
        if isinstance(graph, CompiledGraph):
            return graph
        return CompiledGraph(make_plan(_graph_of(graph), self._registry, self._validate))

    async def _execute(
        self,
        plan: Plan,
        info: RunInfo,
        hooks: RunHooks,
        accept_changed: frozenset[str] = frozenset(),
        checkpoint: CheckpointChoice = None,
        decisions: Decisions = NO_DECISIONS,
        whole: Callable[[], Plan] | None = None,
    ) -> Result:
        run = Run(plan, info, hooks, self._settings, self._listeners, accept_changed, checkpoint, decisions, whole)
        self._running.add(run)
        # A task of its own: cancelling the caller must take the cut first, not tear the run apart.
        task = start_task(run.loop, run.execute(), f"workflow-{info.run_id}")
        cancelled: asyncio.CancelledError | None = None
        try:
            while not task.done():
                try:
                    await asyncio.wait((task,))
                except asyncio.CancelledError as error:
                    cancelled = error
                    run.stop("cancel")
        finally:
            self._running.discard(run)
            self._abandoned = self._abandoned or bool(run.grace.abandoned)
        if cancelled is not None:
            if not task.cancelled():
                task.exception()  # told by the cancellation
            raise cancelled
        if task.cancelled() and run.ending.error is not None:
            raise run.ending.error  # its own task was, and not the caller
        status: Literal["completed", "suspended"] = "suspended" if run.ending.suspensions else "completed"
        return Result(info.run_id, status, task.result(), run.ending.degraded, run.ending.suspensions)


def _graph_of(graph: AnyGraph) -> Graph:
    if isinstance(graph, CompiledGraph):
        return graph.graph
    return graph if isinstance(graph, Graph) else Graph.from_document(graph)


def _plain(listener: Listener) -> Listener:
    """The listener itself, which is called in the middle of a step and not awaited."""
    if not callable(listener):
        raise TypeError(f"a listener is a function that is called with each event, not {listener!r}.")
    if iscoroutinefunction(listener):
        raise TypeError(
            f"events are told to a `def`, not to an `async def` like {listener!r}: nobody would await it. "
            "Put them into an asyncio.Queue with put_nowait, and await what is in it in a task of your own."
        )
    return listener


def _refuse_text(name: str, given: object) -> None:
    """A text is a list of its letters to Python, and never what was meant."""
    if isinstance(given, str):
        raise TypeError(f"{name} is a list, not the text {given!r}. Give {name}=[{given!r}].")


def _check_choice(checkpoint: object) -> None:
    """Another text would be told as damage, and `True` would go on from checkpoint 1."""
    if checkpoint is not None and checkpoint != "latest-intact" and type(checkpoint) is not int:
        raise InputInvalid(f"checkpoint is the number of one, 'latest-intact', or None for the newest, not {checkpoint!r}.")
