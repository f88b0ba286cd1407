"""Answers that suspended nodes wait for, brought by whoever has them: no runner is needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, select

from checkpoint_plugin.errors import NodeNotSuspended
from checkpoint_plugin.lease import database_now
from checkpoint_plugin.models import RUN_NODE_STATE, RunNodeState
from checkpoint_plugin.node_rows import lock_epoch, upsert_node_rows
from checkpoint_plugin.store import Store
from hookspecs import RunNotFound, dumps_tagged

__all__ = ["answer_nodes"]


async def answer_nodes(store: Store, run_id: str, answers: Mapping[str, Any], worker_id: str) -> None:
    """Hand suspended nodes what they wait for, all of them or none.

    Args:
        store: with the run.
        run_id: the run.
        answers: values with a JSON form, by node id. A dict is merged into a state that is one; anything else replaces it.
        worker_id: who brings them.

    Raises:
        RunNotFound: there is no such run.
        NodeNotSuspended: a node waits for nothing; nothing was changed.
        TaggedValueError: a value has no JSON form.
    """
    for value in answers.values():
        dumps_tagged(value)

    def work(connection: Connection) -> bool:
        if lock_epoch(connection, run_id) is None:
            return False
        query = select(RUN_NODE_STATE).where(RUN_NODE_STATE.c.run_id == run_id, RUN_NODE_STATE.c.node_id.in_(list(answers)))
        states = {row.node_id: RunNodeState(**row._mapping) for row in connection.execute(query)}
        now = database_now(connection)
        for node_id, value in answers.items():
            state = states.get(node_id)
            if state is None or not state.is_suspended:
                raise NodeNotSuspended(run_id, node_id, "idle" if state is None else state.status)
            old = state.resume_state
            merged = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
            state.resume_state_json, state.updated_at, state.wake_at = dumps_tagged(merged), now, now
        upsert_node_rows(connection, [states[node_id].model_dump() for node_id in answers])
        return True

    if not await store.transact(work):
        raise RunNotFound(run_id, store.location.shown)
