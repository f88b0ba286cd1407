"""Errors of graphs, nodes and runs. Each names the thing and says what to do."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from shlex import quote
from types import MappingProxyType
from typing import Any, Final

from hookspecs import WorkflowError, shorten, text_of
from workflow_runner.shell import shell_word

__all__ = [
    "Cancelled",
    "Deadlock",
    "GraphChanged",
    "GraphInvalid",
    "InputChanged",
    "InputInvalid",
    "ItemTypeError",
    "LogOverflow",
    "NodeDefinitionError",
    "NodeFailed",
    "NodeModuleError",
    "NodeNotWaiting",
    "NodeProtocolError",
    "NodeTimeout",
    "NotResuming",
    "OutcomeUnknown",
    "ReplayDiverged",
    "RunIdInvalid",
    "RunStopped",
    "RunnerError",
    "SourceChanged",
    "StateNotCopyable",
    "StoreUnknown",
    "SuspensionUnavailable",
]


TOLD_PROBLEMS: Final = 20
"""Of a graph; who wants all of them reads `GraphInvalid.problems`."""
TOLD_STEPS: Final = 5
"""Of unknown outcome; who wants all of them reads `OutcomeUnknown.arguments`."""
NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


class RunnerError(WorkflowError):
    """Root of the runner's own errors."""


class Cancelled(asyncio.CancelledError):
    """Raised inside a body that reads, emits or commits after its run was stopped."""


class NodeDefinitionError(RunnerError, TypeError):
    """Raised when a function or class cannot be a node; names it and the parameter."""

    exit_code = 2


class NodeModuleError(RunnerError):
    """Raised when a module of node types cannot be loaded, or two have one name."""

    exit_code = 2


class GraphInvalid(RunnerError, ValueError):
    """Raised when a graph cannot run.

    Args:
        problems: every problem found, each naming node, edge or handle.
    """

    exit_code = 2

    def __init__(self, problems: Sequence[str]) -> None:
        more = len(problems) - TOLD_PROBLEMS
        told = [*problems[:TOLD_PROBLEMS], *([f"… and {more} more. Mend these first."] if more > 0 else [])]
        super().__init__("\n".join(told))
        self.problems = tuple(problems)


class InputInvalid(RunnerError, ValueError):
    """Raised when what the caller gives a run (inputs, options, answers, a checkpoint) is unknown, missing or wrong."""

    exit_code = 2


class RunIdInvalid(RunnerError, ValueError):
    """Raised when a run id breaks the rule: 1 to 200 characters, no control characters or `/`, not `.` or `..`."""

    exit_code = 2


class SuspensionUnavailable(RunnerError):
    """Raised when a node suspends in a run that nothing stores: who would know where to go on?

    Args:
        node_id: the node.
    """

    exit_code = 2

    def __init__(self, node_id: str) -> None:
        super().__init__(
            f"node {node_id!r} suspends, and nothing is enabled that stores the run. "
            "Enable it: --enable checkpoint, or enable={'checkpoint': True}."
        )
        self.node_id = node_id


class NotResuming(RunnerError):
    """Raised when a body asks for what it kept at a suspension and does not go on after one.

    Args:
        node: names it for people.
    """

    def __init__(self, node: str) -> None:
        super().__init__(f"{node} does not go on after a suspension: nothing was kept. Ask `is_resuming` first.")


class NodeNotWaiting(RunnerError):
    """Raised when an answer or a decision is given for a node that waits for none; nothing was changed.

    Args:
        run_id: the run.
        node_id: the node.
        status: how it stands instead.
    """

    exit_code = 2

    def __init__(self, run_id: str, node_id: str, status: str) -> None:
        if status == "suspended":
            answer = shell_word(f"{node_id}=JSON")
            text = f"waits for an answer or a time, not for a decision whether to repeat it. Answer it with --set {answer}."
        else:
            text = (
                f"waits for no answer, nor for a decision whether to repeat it: it is {status}. "
                "See who waits with `workflow suspended`, and how each node stands with `workflow show`."
            )
        super().__init__(f"node {node_id!r} of run {run_id!r} {text}")
        self.run_id = run_id
        self.node_id = node_id


class RunStopped(RunnerError):
    """Raised when a run was stopped from outside before its end.

    Args:
        run_id: the run.
        reason: as given to `WorkflowRunner.stop`.
        durable: whether a plugin stored the run, so that it can be resumed.
    """

    def __init__(self, run_id: str, reason: str, durable: bool) -> None:
        mend = (
            f"Continue it with `workflow resume {quote(run_id)}`."
            if durable
            else "Nothing was stored: enable the checkpoint plugin to be able to resume."
        )
        super().__init__(f"run {run_id!r} was stopped ({reason}). {mend}")
        self.run_id = run_id
        self.reason = reason
        self.durable = durable


class StoreUnknown(RunnerError):
    """Raised when a run cannot be resumed because the plugin that stored it is switched off."""

    exit_code = 2


class GraphChanged(RunnerError):
    """Raised when a resume names a graph that differs from the stored one.

    Args:
        run_id: the run.
        differences: what differs, one line each.
    """

    exit_code = 2

    def __init__(self, run_id: str, differences: Sequence[str]) -> None:
        lines = "\n".join(f"  {line}" for line in differences)
        super().__init__(
            f"the graph differs from the one that run {run_id!r} was started with:\n{lines}\n"
            "Resume without --graph (in Python without graph=, and with nodes=[...]) to go on with the stored graph, or start a"
            " new run with the new one."
        )
        self.run_id = run_id
        self.differences = tuple(differences)


class SourceChanged(RunnerError):
    """Raised when the code of a node changed while the node was in the middle of a step that has emitted.

    Args:
        run_id: the run.
        node_id: the node.
        type_name: its type.
        emitted: items that the step had emitted.
    """

    exit_code = 2

    def __init__(self, run_id: str, node_id: str, type_name: str, emitted: int) -> None:
        super().__init__(
            f"the source of {type_name!r} changed, and node {node_id!r} of run {run_id!r} was stopped in the middle of a "
            f"step that had already emitted {emitted} item(s): the new code may emit others. Restore the old source, or "
            f"accept the change with --accept-changed {shell_word(node_id)}."
        )
        self.run_id = run_id
        self.node_id = node_id


class InputChanged(RunnerError):
    """Raised when the code of a node that had begun changed, and an input is a stream now and was none, or was one and is none.

    Args:
        run_id: the run.
        node_id: the node.
        type_name: its type.
        handle: the input.
        streams: whether it is a stream now.
    """

    exit_code = 2

    def __init__(self, run_id: str, node_id: str, type_name: str, handle: str, streams: bool) -> None:
        change = "is a stream now and was none" if streams else "was a stream and is none now"
        super().__init__(
            f"the source of {type_name!r} changed: input {handle!r} {change}, so node {node_id!r} of run {run_id!r}, which had "
            "begun, cannot go on with what it holds. Restore the old source until the node is over, or go on from a checkpoint "
            "before it began, with --checkpoint."
        )
        self.run_id = run_id
        self.node_id = node_id
        self.handle = handle


class NodeFailed(RunnerError):
    """Raised when a node failed; what the node raised is the cause.

    Args:
        run_id: the run.
        node_id: the node.
        cause: what it raised.

    `others` are those that failed after it, where `on_failure` is `finish_independent`.
    """

    others: tuple[NodeFailed, ...] = ()

    def __init__(self, run_id: str, node_id: str, cause: BaseException) -> None:
        super().__init__(f"node {node_id!r} of run {run_id!r} failed: {type(cause).__name__}: {text_of(cause)}")
        self.run_id = run_id
        self.node_id = node_id


class ItemTypeError(RunnerError, TypeError):
    """Raised when an item does not fit the annotation of the handle that receives it.

    Args:
        node_id: the node.
        handle: its input.
        expected: what the annotation asks for.
        item: what was sent.
        mend: what to do about it.
    """

    def __init__(
        self,
        node_id: str,
        handle: str,
        expected: str,
        item: object,
        mend: str = "Change what is sent there, or the annotation.",
    ) -> None:
        super().__init__(
            f"node {node_id!r}, handle {handle!r}: expected {expected}, got {type(item).__name__} ({shorten(item)}). {mend}"
        )
        self.node_id = node_id
        self.handle = handle


class NodeProtocolError(RunnerError):
    """Raised when a body breaks a rule of nodes: an unknown output handle, a second item on a plain input, …"""


class NodeTimeout(RunnerError, TimeoutError):
    """Raised when a try of a node took longer than its `timeout`.

    Args:
        node_id: the node.
        seconds: its timeout.
        abandoned: whether its body runs in a thread, which cannot be ended: it was left, and what it asks is refused.
    """

    def __init__(self, node_id: str, seconds: float, abandoned: bool) -> None:
        left = " Its thread could not be ended and was left; whatever it asks of the run is refused." if abandoned else ""
        super().__init__(f"node {node_id!r} did not end within {seconds:g} s.{left} Give it a longer timeout, or retries.")
        self.node_id = node_id
        self.seconds = seconds
        self.abandoned = abandoned


class LogOverflow(RunnerError):
    """Raised when a streaming body has taken too many items without a commit.

    Args:
        node_id: the node.
        limit: items that it may take; `WorkflowRunner(max_log=...)`.
    """

    def __init__(self, node_id: str, limit: int) -> None:
        super().__init__(
            f"node {node_id!r} took {limit} items without a commit, and all of them must be kept to run its step again. "
            "Call context.commit(state) now and then, or declare it @node(stateless=True) when it keeps nothing between items."
        )
        self.node_id = node_id


class StateNotCopyable(RunnerError, TypeError):
    """Raised when the state given to `commit` cannot be copied.

    Args:
        node_id: the node.
        state: what was given.
        cause: what copying it raised.
    """

    def __init__(self, node_id: str, state: object, cause: BaseException) -> None:
        super().__init__(
            f"node {node_id!r}: the state given to commit ({type(state).__name__}) cannot be copied: {cause}. "
            "Commit plain values: numbers, text, lists, dicts."
        )
        self.node_id = node_id


class ReplayDiverged(RunnerError):
    """Raised when a body that runs a step again does not repeat what it did before.

    Args:
        run_id: the run.
        node_id: the node.
        expected: emissions of the step before the interruption.
        got: emissions when the step was run again.
        how: what it did otherwise, where that is not how much it emitted.
    """

    def __init__(self, run_id: str, node_id: str, expected: int, got: int, how: str | None = None) -> None:
        how = how or f"it had emitted {expected} item(s) since its last commit and emitted {got} when it ran again"
        super().__init__(
            f"node {node_id!r} of run {run_id!r} did not repeat its interrupted step: {how}. Yield first, then commit; "
            "between two commits a body must be deterministic: no clock, randomness, set order, hash() or id(). Commit after "
            "what is not."
        )
        self.run_id = run_id
        self.node_id = node_id
        self.expected = expected
        self.got = got


class OutcomeUnknown(RunnerError):
    """Raised when a run ended while nodes declared `replayable=False` were in progress: a person must decide.

    Nothing ran; the run can be resumed with a decision for each, all in one command.

    Args:
        run_id: the run.
        node_ids: the nodes that are not decided.
        decided: the other nodes of unknown outcome, whose decisions must be given again.
        arguments: what each of the first was called with, by input, as far as it came over edges.
        keys: the idempotency keys that their steps had, of those of which that is known.
    """

    def __init__(
        self,
        run_id: str,
        node_ids: Sequence[str],
        decided: Sequence[str] = (),
        arguments: Mapping[str, Mapping[str, Any]] = NOTHING,
        keys: Mapping[str, str] = NOTHING,
    ) -> None:
        first, names = node_ids[0], ", ".join(map(repr, node_ids))
        subject = f"nodes {names} were" if len(node_ids) > 1 else f"node {names} was"
        together = (*node_ids, *decided)
        if len(together) > 1:
            replays = " ".join(f"--replay {shell_word(node_id)}" for node_id in together)
            choice = (
                f"decide for {', '.join(map(repr, together))} in one command: `workflow resume {quote(run_id)} {replays}` runs "
                "them again, and `--set NODE=JSON` in the place of `--replay NODE` takes JSON for what it returned."
            )
        else:
            choice = (
                f"decide for it: `workflow resume {quote(run_id)} --replay {shell_word(first)}` runs it again, "
                f"`workflow resume {quote(run_id)} --set {shell_word(f'{first}=JSON')}` takes JSON for what it returned."
            )
        super().__init__(
            f"run {run_id!r} ended while {subject} in progress, declared replayable=False: whether it did its work is unknown, "
            f"and it is not run again unasked. See what happened outside{_told_steps(node_ids, arguments, keys)}, then {choice}"
        )
        self.run_id = run_id
        self.node_ids = tuple(node_ids)
        self.node_id = first
        self.arguments = dict(arguments)
        self.keys = dict(keys)


class Deadlock(RunnerError):
    """Raised when every unfinished node waits for another and no edge may grow further.

    Args:
        run_id: the run.
        edges: ids of the full edges, or of the nodes that wait when none is full.
    """

    def __init__(self, run_id: str, edges: Sequence[str]) -> None:
        super().__init__(
            f"run {run_id!r} cannot move: every unfinished node waits, and these edges are at their limit: {', '.join(edges)}. "
            "Raise WorkflowRunner(max_edge_capacity=...), or let the consumer read them sooner."
        )
        self.run_id = run_id
        self.edges = tuple(edges)


def _told_steps(node_ids: Sequence[str], arguments: Mapping[str, Mapping[str, Any]], keys: Mapping[str, str]) -> str:
    """What the steps were, for who looks for their traces."""
    steps = []
    for node_id in node_ids[:TOLD_STEPS]:
        parts = [f"{name}={shorten(value)}" for name, value in arguments.get(node_id, {}).items()]
        parts += [f"idempotency key {keys[node_id]}"] if node_id in keys else []
        steps += [f"{node_id!r} with {', '.join(parts)}"] if parts else []
    if steps and len(node_ids) > TOLD_STEPS:
        steps.append(f"and {len(node_ids) - TOLD_STEPS} more")
    return f" ({'; '.join(steps)})" if steps else ""
