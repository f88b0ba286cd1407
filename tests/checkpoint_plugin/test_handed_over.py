"""A resume opens its store once: what read the run hands its connections to the plugin that goes on with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from checkpoint_plugin.database import open_database
from checkpoint_plugin.loader import CheckpointLoader
from checkpoint_plugin.location import Location, locate
from checkpoint_plugin.transaction import Database
from hookspecs import RunHeld, RunNotFound
from workflow_runner import Graph, NodeFailed, WorkflowRunner, node

FAILS = "HANDED_OVER_FAILS"


@node
def fail_at_first() -> int:
    """Fails while the environment says so."""
    if FAILS in os.environ:
        raise ValueError("not yet")
    return 7


class Counted:
    """The databases that were opened, and those that were closed."""

    def __init__(self) -> None:
        self.opened: list[Database] = []
        self.closed: list[Database] = []

    def open(self, location: Location, *, create: bool) -> Database:
        """As `open_database`."""
        database = open_database(location, create=create)
        close = database.close

        async def closed() -> None:
            self.closed.append(database)
            await close()

        database.close = closed  # type: ignore[method-assign]
        self.opened.append(database)
        return database


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counted]:
    found = Counted()
    monkeypatch.setattr("checkpoint_plugin.open_store.open_database", found.open)
    yield found
    assert len(found.closed) == len(set(found.closed)) == len(found.opened), "each is closed, and by one owner"


async def begin(url: str, run_id: str, monkeypatch: pytest.MonkeyPatch) -> WorkflowRunner:
    """A run that has failed, and a runner that may go on with it."""
    graph = Graph()
    graph.output("end", graph.add(fail_at_first))
    runner = WorkflowRunner(nodes=["tests.checkpoint_plugin.test_handed_over"])
    monkeypatch.setenv(FAILS, "1")
    with pytest.raises(NodeFailed):
        await runner.run(graph, enable={"checkpoint": {"url": url}}, run_id=run_id)
    monkeypatch.delenv(FAILS)
    return runner


async def test_a_resume_opens_the_store_once(store_url: str, counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = await begin(store_url, "r", monkeypatch)
    counted.opened.clear()
    counted.closed.clear()
    assert (await runner.resume("r", url=store_url)).outputs == {"end": [7]}
    assert len(counted.opened) == 1


async def test_what_is_read_alone_is_closed(store_url: str, counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = await begin(store_url, "r", monkeypatch)
    await runner.resume("r", url=store_url)
    assert (await runner.resume("r", url=store_url)).outputs == {"end": [7]}  # it has completed: no plugin is asked
    with pytest.raises(RunNotFound):
        await runner.resume("other", url=store_url)


async def test_a_refused_resume_closes_what_it_took(store_url: str, counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = await begin(store_url, "r", monkeypatch)

    async def refuse(*arguments: object, **more: object) -> None:
        raise RunHeld("r", "somebody", None)

    monkeypatch.setattr("checkpoint_plugin.store.Store.begin_attempt", refuse)
    with pytest.raises(RunHeld):
        await runner.resume("r", url=store_url)


async def test_only_the_same_store_is_handed_over(tmp_path: Path, counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    url, other = f"sqlite:///{tmp_path}/a.db", f"sqlite:///{tmp_path}/b.db"
    await begin(url, "r", monkeypatch)
    loader = CheckpointLoader(url)
    assert loader.take(locate(url), "r") is None  # nothing is open yet
    await loader.load("r")
    assert loader.take(locate(other), "r") is None
    taken = loader.take(locate(url), "r")
    assert taken is not None and taken.database is counted.opened[-1]
    assert taken.seen is not None and taken.seen.number == 1
    assert loader.take(locate(url), "r") is None
    await loader.close()
    assert taken.database not in counted.closed
    await taken.database.close()
