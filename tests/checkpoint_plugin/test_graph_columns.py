"""The graph of a run is stored by column; runs of before are read as they are, and bent columns are damage."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select, update

from checkpoint_plugin.checking.store_check import check_store
from checkpoint_plugin.codec import Codec
from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.location import locate
from checkpoint_plugin.errors import StoreDamaged
from checkpoint_plugin.models import RUN_DEFINITION
from checkpoint_plugin.store import Store
from checkpoint_plugin.stored_bytes.digests import digest_of
from checkpoint_plugin.tables.definition import graph_of
from checkpoint_plugin.tables.row_sql import JOBS
from hookspecs import GraphColumns, loads_tagged
from workflow_runner import Graph, NodeFailed, WorkflowRunner, node

FAILS = "GRAPH_COLUMNS_FAILS"
LENGTH = 30


@node
def add_one(x: int, more: int = 1) -> int:
    """What the chain does."""
    if x == LENGTH - 2 and FAILS in os.environ:
        raise ValueError("not yet")
    return x + more


def chain() -> Graph:
    graph = Graph()
    last = graph.input("n")
    for _ in range(LENGTH):
        last = graph.add(add_one, x=last, more=1)
    graph.output("end", last)
    return graph


def runner() -> WorkflowRunner:
    return WorkflowRunner(nodes=["tests.checkpoint_plugin.test_graph_columns"])


@pytest.fixture
async def stopped(store_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The url of a store with a run that stopped near its end."""
    monkeypatch.setenv(FAILS, "1")
    with pytest.raises(NodeFailed):
        await runner().run(chain(), {"n": 0}, enable={"checkpoint": {"url": store_url}}, run_id="r")
    monkeypatch.delenv(FAILS)
    return store_url


async def change(url: str, bend: Callable[[dict[str, Any]], None]) -> None:
    """Change what is stored of the run's definition, with the digest that belongs to it."""
    store = Store(locate(url), create=False)

    def work(connection: Connection) -> None:
        found = Codec().decode(bytes(connection.execute(select(RUN_DEFINITION.c.body)).scalar_one()))
        bend(found)
        body = Codec().encode(found, lambda: "here")
        connection.execute(update(RUN_DEFINITION).values(body=body, digest=digest_of(b"r", body)))

    await store.transact(work)
    await store.close()


async def stored_graph(url: str) -> Any:
    store = Store(locate(url), create=False)
    try:
        return (await store.load_job("r")).graph
    finally:
        await store.close()


def as_before(found: dict[str, Any]) -> None:
    found["graph"] = dict(graph_of(found))
    del found["columns"]


async def test_a_new_run_is_stored_by_column(stopped: str) -> None:
    found = await stored_graph(stopped)
    assert type(found) is GraphColumns and found == chain().to_document()
    assert (await runner().resume("r", url=stopped)).outputs == {"end": [LENGTH]}


async def test_people_read_the_document(stopped: str) -> None:
    store = Store(locate(stopped), create=False)
    row = await store.transact(lambda connection: connection.execute(JOBS).one(), write=False)
    await store.close()
    assert loads_tagged(row.graph) == chain().to_document()


async def test_a_run_of_before_goes_on(stopped: str) -> None:
    await change(stopped, as_before)
    found = await stored_graph(stopped)
    assert type(found) is dict and found == chain().to_document()
    assert (await runner().resume("r", url=stopped, graph=chain())).outputs == {"end": [LENGTH]}


@pytest.mark.parametrize(
    "bend",
    [
        lambda found: found["columns"].update(sources=b"\xff" * len(found["columns"]["sources"])),
        lambda found: found["columns"].update(sources=b"123"),
        lambda found: found["columns"]["ids"].pop(),
        lambda found: found["columns"].pop("handles"),
        lambda found: found.update(columns=None),
        lambda found: found.pop("columns"),
        lambda found: found.update(graph=[]) or found.pop("columns"),
    ],
)
async def test_a_bent_graph_is_damage(stopped: str, bend: Callable[[dict[str, Any]], None]) -> None:
    await change(stopped, bend)
    with pytest.raises(StoreDamaged, match=r"run 'r'.*its graph and inputs: "):
        await runner().resume("r", url=stopped)
    store = Store(locate(stopped), create=False)
    (report,) = (await check_store(store)).runs
    await store.close()
    assert any("its graph and inputs: " in finding.what for finding in report.findings)
