"""Answers to nodes of runs that are saved without our runner: they become a part of the node's own row."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import select

from checkpoint_plugin.database.batches import batches
from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.errors import NodeNotSuspended, NotResumable
from checkpoint_plugin.models import JOB, RUN_NODE_STATE, RunNodeState
from checkpoint_plugin.runs.pending_answers import check_since
from checkpoint_plugin.store import Store
from checkpoint_plugin.tables.definition import is_storable_text
from checkpoint_plugin.tables.lease import database_now
from checkpoint_plugin.tables.node_rows import lock_epoch, upsert_node_rows
from checkpoint_plugin.tables.sealed_columns import NODE_TEXTS, open_texts, seal_texts
from hookspecs import dumps_tagged

__all__ = ["answer_by_hand"]


async def answer_by_hand(store: Store, run_id: str, answers: Mapping[str, Any], since: Mapping[str, datetime]) -> None:
    """Answer several nodes of a run, all of them or none; as `answers.update_suspended_state`.

    Args:
        store: with the run.
        run_id: the run.
        answers: values by node id.
        since: since when nodes wait for what is answered, by node id.
    """
    for value in answers.values():
        dumps_tagged(value)

    def work(connection: Connection) -> None:
        lock_epoch(connection, run_id)
        if connection.execute(select(JOB.c.status).where(JOB.c.id == run_id)).scalar() == "cancelled":
            raise NotResumable(run_id, "it is cancelled")
        seal = store.keys.find(connection, run_id)
        asked = [node_id for node_id in answers if is_storable_text(node_id)]
        query = select(RUN_NODE_STATE).where(RUN_NODE_STATE.c.run_id == run_id)
        parts = batches(connection, asked)
        found = (row for part in parts for row in connection.execute(query.where(RUN_NODE_STATE.c.node_id.in_(part))))
        rows = (open_texts(run_id, dict(row._mapping), NODE_TEXTS, seal) for row in found)
        states = {row["node_id"]: RunNodeState(**row) for row in rows}
        now = database_now(connection)
        for node_id, value in answers.items():
            state = states.get(node_id)
            if state is None or not state.is_suspended:
                raise NodeNotSuspended(run_id, node_id, "idle" if state is None else state.status)
            check_since(run_id, node_id, since.get(node_id), state.suspended_at)
            old = state.resume_state
            merged = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
            state.resume_state_json, state.updated_at, state.wake_at = dumps_tagged(merged), now, now
        upsert_node_rows(connection, [seal_texts(states[node_id].model_dump(), NODE_TEXTS, seal) for node_id in answers])

    await store.transact(work)
