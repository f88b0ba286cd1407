"""Answers that suspended nodes wait for, brought by whoever has them: no runner is needed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from typing import Any, Final

from checkpoint_plugin.bounds import LARGEST_VALUE
from checkpoint_plugin.codec import Codec
from checkpoint_plugin.database.statement import Statement
from checkpoint_plugin.database.unbroken import take
from checkpoint_plugin.errors import NodeNotSuspended, NotResumable
from checkpoint_plugin.runs.access import StoreAccess
from checkpoint_plugin.saving.history import RunHistory
from checkpoint_plugin.store import RUNNER, Store
from checkpoint_plugin.tables.definition import is_storable_text
from checkpoint_plugin.tables.holder import Holder
from checkpoint_plugin.tables.lease import Lease
from hookspecs import NodeSnapshot, RunHeld, RunNotFound, Snapshot, Suspension, SuspensionChanged

__all__ = ["answer_nodes", "check_since", "update_suspended_state"]

LEASE_SECONDS: Final = 30.0
PATIENCE_SECONDS: Final = LEASE_SECONDS
"""How long to wait for whoever holds a run that is not executed: who brings another answer, and is done in a moment."""
EXECUTED_SECONDS: Final = 2.0
"""And for one that is executed, and may be about to suspend."""
EXECUTED: Final = ("running", "recovering")
PAUSE_SECONDS: Final = 0.05
STRATEGY: Final = Statement("checkpoint_plugin.tables.row_sql", "execution_strategy")


async def update_suspended_state(
    run_id: str,
    node_id: str,
    value: Any,
    url: str | None = None,
    *,
    store: Store | None = None,
    since: datetime | None = None,
) -> None:
    """Hand a suspended node what it waits for, without a runner. It goes on when its run is resumed, which
    `workflow recover --watch` does by itself.

    In a run of a runner the answer is another checkpoint, and any value that the store keeps. In one that was saved by hand
    it becomes the node's resume state: a dict is merged into a state that is one, anything else with a JSON form replaces it;
    until the node goes on it takes further ones.

    Args:
        run_id: the run.
        node_id: the node.
        value: the answer.
        url: of the store; `None` for the default.
        store: an open one instead; its owner closes it.
        since: since when the node waits for what is answered (`SuspendedNode.since`); default: the answer is to whatever it
            waits for.

    Raises:
        RunNotFound: there is no such run.
        NodeNotSuspended: the node waits for nothing, or in a run of a runner was answered already; nothing was changed.
        NotResumable: the run is cancelled, and nothing goes on with it; nothing was changed.
        SuspensionChanged: it waits for something else by now; nothing was changed.
        RunHeld: somebody executes the run, or answers another node in this moment; nothing was changed.
        ValueNotStorable: the value cannot be stored; nothing was changed.
        ValueError: `since` is no time with a zone.
        StoreError: the store is missing, damaged or cannot be used.
    """
    async with StoreAccess(url, store).open(create=False) as opened:
        await answer_nodes(opened, run_id, {node_id: value}, since=None if since is None else {node_id: since})


async def answer_nodes(
    store: Store,
    run_id: str,
    answers: Mapping[str, Any],
    worker_id: str | None = None,
    since: Mapping[str, datetime] | None = None,
) -> None:
    """Answer several nodes of a run, all of them or none; as `update_suspended_state`.

    Args:
        store: with the run.
        run_id: the run.
        answers: values by node id.
        worker_id: who brings them; default: this process.
        since: since when nodes wait for what is answered, by node id.
    """
    asked = _checked(since or {}, answers)
    row = None
    if is_storable_text(run_id):
        row = await store.transact(lambda connection: connection.execute(STRATEGY, {"of_run": run_id}).first(), write=False)
    if row is None:
        raise RunNotFound(run_id, store.location.shown)
    if row.execution_strategy == RUNNER:
        await _answer_runner(store, run_id, answers, asked, Holder.here(worker_id))
    else:
        await store.compute(partial(import_module, "checkpoint_plugin.runs.answers_by_hand"))  # with SQLAlchemy: it takes long
        from checkpoint_plugin.runs.answers_by_hand import answer_by_hand

        await answer_by_hand(store, run_id, answers, asked)


def _checked(since: Mapping[str, datetime], answers: Mapping[str, Any]) -> Mapping[str, datetime]:
    for node_id, moment in since.items():
        if node_id not in answers:
            raise ValueError(f"since names node {node_id!r}, for which there is no answer. Give it one, or leave it out.")
        if not isinstance(moment, datetime) or moment.utcoffset() is None:
            raise ValueError(f"since takes aware times, as `workflow suspended` tells them, not {moment!r} for {node_id!r}.")
    return since


async def _answer_runner(
    store: Store, run_id: str, answers: Mapping[str, Any], asked: Mapping[str, datetime], holder: Holder
) -> None:
    """Under a lease of its own: what a run is written by, and what a checkpoint goes on from, is one process at a time."""
    lease = await _take(store, run_id, holder)
    try:
        job = await store.job(run_id)
        if job.status == "cancelled":
            raise NotResumable(run_id, "it is cancelled")
        history = RunHistory(run_id, job.attempt, lease.epoch, generation=lease.generation)
        cut = await store.restore(history, None)
        known = {} if cut is None else {node.node_id: node for node in cut.nodes}
        at = datetime.now(UTC)
        waiting = {node_id: _waiting(run_id, node_id, known.get(node_id), asked.get(node_id)) for node_id in answers}
        nodes = tuple(
            replace(node, suspension=replace(suspension, answered=True, answer=answers[node_id]))
            for node_id, (node, suspension) in waiting.items()
        )
        await store.compute(partial(_check_storable, store.codec, run_id, answers))
        error = (None, None) if cut is None else (cut.error, cut.error_node_id)
        whole = replace(store.codec, max_value_bytes=LARGEST_VALUE)  # what the nodes hold was stored: the run allows it
        await store.save(history, Snapshot(run_id, job.attempt, job.status, nodes, at, *error), "answer", whole)
    finally:
        await store.let_go(lease)


def _check_storable(codec: Codec, run_id: str, answers: Mapping[str, Any]) -> None:
    for node_id, value in answers.items():
        codec.encode(value, partial("run {!r}, node {!r}, answer".format, run_id, node_id))


async def _take(store: Store, run_id: str, holder: Holder) -> Lease:
    began = time.monotonic()
    while True:
        try:
            return await take(store.take(run_id, holder, LEASE_SECONDS), store.let_go)
        except RunHeld:
            waited, executed = time.monotonic() - began, (await store.job(run_id)).status in EXECUTED
            if waited > (EXECUTED_SECONDS if executed else PATIENCE_SECONDS):
                raise
        await asyncio.sleep(PAUSE_SECONDS)


def _waiting(run_id: str, node_id: str, node: NodeSnapshot | None, asked: datetime | None) -> tuple[NodeSnapshot, Suspension]:
    if node is None or node.suspension is None or node.status != "suspended":
        raise NodeNotSuspended(run_id, node_id, "idle" if node is None else node.status)
    if node.suspension.answered:
        raise NodeNotSuspended(run_id, node_id, "answered already")
    check_since(run_id, node_id, asked, node.suspension.since)
    return node, node.suspension


def check_since(run_id: str, node_id: str, asked: datetime | None, since: datetime | None) -> None:
    """Refuse an answer to what a node waited for before.

    Raises:
        SuspensionChanged: it waits for something else by now.
    """
    if asked is not None and asked != since:
        raise SuspensionChanged(run_id, node_id, asked, since)
