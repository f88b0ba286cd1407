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
from checkpoint_plugin.database.statement import Statement
from checkpoint_plugin.database.unbroken import take
from checkpoint_plugin.errors import NodeNotSuspended, NotResumable, ValueNotReadable
from checkpoint_plugin.opening.held_runs import LEASE_SECONDS, RUNNER
from checkpoint_plugin.policy import NAME, Policy
from checkpoint_plugin.runs.access import StoreAccess
from checkpoint_plugin.runs.pending_answers import BRINGS, Inbox, check_since, encode_answers, hand_over
from checkpoint_plugin.saving.history import RunHistory
from checkpoint_plugin.store import Store
from checkpoint_plugin.tables.definition import is_storable_text
from checkpoint_plugin.tables.holder import Holder
from checkpoint_plugin.tables.lease import Lease
from hookspecs import NodeSnapshot, RunHeld, RunNotFound, Snapshot, Suspension

__all__ = ["answer_nodes", "update_suspended_state"]

PATIENCE_SECONDS: Final = LEASE_SECONDS
"""How long to wait for whoever holds a run without executing it: who brings another answer, and is done in a moment."""
EXECUTED_SECONDS: Final = 2.0
"""And for a node of one that is executed, which may be about to suspend."""
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
    `workflow recover --watch` does by itself. Where a process executes the run, because other nodes do not need this one, that
    takes the answer within about a second.

    In a run of a runner the answer is any value that the store keeps. In one that was saved by hand
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
        NodeNotSuspended: the node waits for nothing, or in a run of a runner was answered already, or is woken by its time in
            a run that is executed; nothing was changed.
        NotResumable: the run is cancelled, and nothing goes on with it; nothing was changed.
        SuspensionChanged: it waits for something else by now; nothing was changed.
        RunHeld: somebody else writes the run all the time; nothing was changed.
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
) -> str | None:
    """Answer several nodes of a run, all of them or none; as `update_suspended_state`.

    Args:
        store: with the run.
        run_id: the run.
        answers: values by node id.
        worker_id: who brings them; default: this process.
        since: since when nodes wait for what is answered, by node id.

    Returns:
        Who executes the run, and goes on with the answers; `None` where nobody does.
    """
    asked = _checked(since or {}, answers)
    row = None
    if is_storable_text(run_id):
        row = await store.transact(lambda connection: connection.execute(STRATEGY, {"of_run": run_id}).first(), write=False)
    if row is None:
        raise RunNotFound(run_id, store.location.shown)
    if row.execution_strategy == RUNNER:
        here = Holder.here(worker_id)
        return await _answer_runner(store, run_id, answers, asked, replace(here, owner=here.owner + BRINGS))
    else:
        await store.compute(partial(import_module, "checkpoint_plugin.runs.answers_by_hand"))  # with SQLAlchemy: it takes long
        from checkpoint_plugin.runs.answers_by_hand import answer_by_hand

        await answer_by_hand(store, run_id, answers, asked)
        return None


def _checked(since: Mapping[str, datetime], answers: Mapping[str, Any]) -> Mapping[str, datetime]:
    for node_id, moment in since.items():
        if node_id not in answers:
            raise ValueError(f"since names node {node_id!r}, for which there is no answer. Give it one, or leave it out.")
        if not isinstance(moment, datetime) or moment.utcoffset() is None:
            raise ValueError(f"since takes aware times, as `workflow suspended` tells them, not {moment!r} for {node_id!r}.")
    return since


async def _answer_runner(
    store: Store, run_id: str, answers: Mapping[str, Any], asked: Mapping[str, datetime], holder: Holder
) -> str | None:
    """By whoever executes the run, else under a lease of its own: one process at a time writes a run, and what a checkpoint goes
    on from."""
    codec = replace(store.codec, max_value_bytes=await _limit(store, run_id))
    encoded = await store.compute(partial(encode_answers, codec, run_id, answers))
    lease = await _take_or_hand_over(store, run_id, holder, encoded, asked)
    if isinstance(lease, str):
        return lease
    try:
        job = await store.job(run_id)
        if job.status == "cancelled":
            raise NotResumable(run_id, "it is cancelled")
        history = RunHistory(run_id, job.attempt, lease.epoch, generation=lease.generation)
        cut = await store.restore(history, None)
        known = {} if cut is None else {node.node_id: node for node in cut.nodes}
        left = {answer.node_id: answer.since for answer in await Inbox(store, run_id).look()}  # by who executed it, and died
        at = datetime.now(UTC)
        waiting = {node_id: _waiting(run_id, node_id, known.get(node_id), asked, left) for node_id in answers}
        nodes = tuple(
            replace(node, suspension=replace(suspension, answered=True, answer=answers[node_id]))
            for node_id, (node, suspension) in waiting.items()
        )
        error = (None, None) if cut is None else (cut.error, cut.error_node_id)
        whole = replace(store.codec, max_value_bytes=LARGEST_VALUE)  # what the nodes hold was stored: the run allows it
        await store.save(history, Snapshot(run_id, job.attempt, job.status, nodes, at, *error), "answer", whole)
    finally:
        await store.let_go(lease)
    return None


async def _limit(store: Store, run_id: str) -> int:
    """Bytes that an answer may take, for who brings it and for the run: that could save no more with a larger one."""
    try:
        options = (await store.load_job(run_id)).enable.get(NAME)
    except ValueNotReadable:  # who answers need not know the types of its inputs
        options = None
    given = options.get("max_value_bytes") if isinstance(options, Mapping) else None
    return min(store.codec.max_value_bytes, given if type(given) is int else Policy().max_value_bytes)


async def _take_or_hand_over(
    store: Store, run_id: str, holder: Holder, encoded: Mapping[str, bytes], asked: Mapping[str, datetime]
) -> Lease | str:
    """The run, to be answered here; or who executes it, and was given the answers."""
    began = time.monotonic()
    while True:
        try:
            return await take(store.take(run_id, holder, LEASE_SECONDS), store.let_go)
        except RunHeld:
            waited = time.monotonic() - began
            try:
                executes = await hand_over(store, run_id, encoded, asked)
            except NodeNotSuspended:  # it may be about to suspend
                if waited > EXECUTED_SECONDS:
                    raise
            else:
                if executes is not None:
                    return executes
                if waited > PATIENCE_SECONDS:
                    raise
        await asyncio.sleep(PAUSE_SECONDS)


def _waiting(
    run_id: str,
    node_id: str,
    node: NodeSnapshot | None,
    asked: Mapping[str, datetime],
    left: Mapping[str, datetime],
) -> tuple[NodeSnapshot, Suspension]:
    if node is None or node.suspension is None or node.status != "suspended":
        raise NodeNotSuspended(run_id, node_id, "idle" if node is None else node.status)
    if node.suspension.answered or left.get(node_id) == node.suspension.since:
        raise NodeNotSuspended(run_id, node_id, "answered already")
    check_since(run_id, node_id, asked.get(node_id), node.suspension.since)
    return node, node.suspension
