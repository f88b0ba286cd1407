"""Apache Burr: `Application.arun` with its asynchronous persisters for SQLite and PostgreSQL.

A chain is one action in a cycle; every step saves the whole state.
"""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import parse_qs, urlsplit

from burr.core import ApplicationBuilder, State, action, default, expr

from benchmarks.payloads import following, kilobyte, large
from benchmarks.request import Request
from benchmarks.worker import clocked

__all__ = ["DISTRIBUTIONS", "WORK"]

DISTRIBUTIONS = ("apache-burr", "aiosqlite", "asyncpg")


@action(reads=["step", "value"], writes=["step", "value"])
async def hand_on(state: State) -> State:
    """W1, W4."""
    return state.update(value=following(state["value"]), step=state["step"] + 1)


@action(reads=["step"], writes=["step", "value"])
async def make(state: State) -> State:
    """W3, text only: a persister writes JSON."""
    return state.update(value=large("text", state["step"]), step=state["step"] + 1)


@action(reads=["step", "values"], writes=["step", "values"])
async def grow(state: State) -> State:
    """W6."""
    return state.append(values=kilobyte(state["step"])).update(step=state["step"] + 1)


@action(reads=[], writes=[])
async def done(state: State) -> State:
    """The end."""
    return state


ACTIONS = {"W1": hand_on, "W3": make, "W4": hand_on, "W6": grow}


async def _persister(request: Request) -> Any:
    logging.disable(logging.WARNING)
    if not request.store:
        return None
    persister: Any
    if request.is_postgresql:
        from burr.integrations.persisters.b_asyncpg import AsyncPostgreSQLPersister

        parts = urlsplit(request.store)
        host = parse_qs(parts.query).get("host", [parts.hostname or "localhost"])[0]
        persister = await AsyncPostgreSQLPersister.from_values(
            db_name=parts.path[1:],
            user=parts.username or "postgres",
            password=parts.password or "",
            host=host,
            port=parts.port or 5432,
            table_name="burr_state",
        )
    else:
        from burr.integrations.persisters.b_aiosqlite import AsyncSQLitePersister

        persister = await AsyncSQLitePersister.from_values(db_path=request.path)
    await persister.initialize()
    return persister


async def _application(request: Request, persister: Any, steps: int, resume: bool = False) -> Any:
    builder = ApplicationBuilder().with_actions(node=ACTIONS[request.workload], done=done)
    builder = builder.with_transitions(("node", "done", expr(f"step >= {steps}")), ("node", "node", default))
    begin = {"step": 0, "value": {"text": kilobyte(0)}, "values": []}
    if resume:
        builder = builder.initialize_from(
            persister, resume_at_next_action=True, default_state=begin, default_entrypoint="node"
        ).with_identifiers(app_id="measured", partition_key="one")
    else:
        builder = builder.with_state(**begin).with_entrypoint("node").with_identifiers(app_id="measured", partition_key="one")
    return await (builder if persister is None else builder.with_state_persister(persister)).abuild()


async def run(request: Request) -> dict[str, float]:
    """W1, W3, W6."""
    persister = await _persister(request)
    application = await _application(request, persister, request.size)
    seconds, (_, _, state) = await clocked(lambda: application.arun(halt_after=["done"]))
    assert state["step"] == request.size
    if persister is not None:
        await persister.cleanup()
    return {"seconds": seconds}


async def run_unfinished(request: Request) -> dict[str, float]:
    """W4."""
    if request.action == "fill":
        persister = await _persister(request)
        application = await _application(request, persister, request.size + 1)
        async for _ in application.aiterate(halt_after=["done"]):
            if application.state["step"] == request.size:
                break
        await persister.cleanup()
        return {"seconds": 0.0}

    async def work() -> Any:
        again = await _persister(request)
        resumed = await _application(request, again, request.size + 1, resume=True)
        assert resumed.state["step"] == request.size
        found = await resumed.arun(halt_after=["done"])
        await again.cleanup()
        return found

    seconds, (_, _, state) = await clocked(work)
    assert state["step"] == request.size + 1
    return {"seconds": seconds}


WORK = {"W1": run, "W3": run, "W4": run_unfinished, "W6": run}
