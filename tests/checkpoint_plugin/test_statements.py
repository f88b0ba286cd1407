"""What is kept of statements is what SQLAlchemy makes of them, and a run on SQLite needs nothing else of it."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import bindparam, create_engine, insert, select, update

from checkpoint_plugin.compile_statements import compile_all
from checkpoint_plugin.database import statement
from checkpoint_plugin.database.compiling import for_sqlite
from checkpoint_plugin.database.connection import SqliteTransaction
from checkpoint_plugin.database.sqlite_engine import make_sqlite_engine
from checkpoint_plugin.database.sqlite_rows import Rows
from checkpoint_plugin.database.statement import Statement, sqlite_schema
from checkpoint_plugin.database.text import Text
from checkpoint_plugin.models import JOB, LEASE, NODE_VERSION, Base
from checkpoint_plugin.restoring import cut_sql

NOON = datetime(2027, 3, 4, 12, 0, 0, 7, tzinfo=UTC)
PROGRAM = """
import asyncio, contextlib, io, sys
from workflow_runner import Context, Graph, NodeFailed, WorkflowRunner, node
from workflow_runner.cli import main as cli

url, step = sys.argv[1:]

@node
def make(number: int) -> list[int]:
    return [number] * 10_000

@node
async def ask(values: list[int], context: Context) -> int:
    number: int = await context.suspend("which number?")
    return len(values) + number

@node
def take(number: int) -> int:
    if step == "fail":
        raise RuntimeError("not yet")
    return number

graph = Graph()
asked = graph.add(ask, values=graph.add(make, number=1)) if step in ("suspend", "answer") else 7
graph.output("end", graph.add(take, number=asked))
options = {"url": url, "every_firing": True, "events": True}

async def main():
    runner = WorkflowRunner()
    if step == "resume":
        await runner.resume("r", graph=graph, url=url)
    elif step == "answer":
        await runner.resume("r", graph=graph, url=url, updates={"ask": 3})
    else:
        try:
            await runner.run(graph, enable={"checkpoint": options}, run_id="r")
        except NodeFailed:
            pass

if step.startswith("workflow"):
    with contextlib.redirect_stdout(io.StringIO()):
        assert cli.main([*step.split()[1:], "--url", url]) == 0
else:
    asyncio.run(main())
heavy = ("sqlalchemy", "sqlmodel", "alembic", "asyncpg", "checkpoint_plugin.models")
print(sorted(name for name in heavy if name in sys.modules))
"""


def told(text: str) -> str:
    """A statement without the spaces that releases of SQLAlchemy put elsewhere."""
    return " ".join(text.split())


def test_what_is_kept_is_what_sqlalchemy_makes_of_the_statements() -> None:
    path = Path(str(statement.__file__)).with_name(statement.STATEMENTS)
    kept, made = json.loads(path.read_text()), json.loads(json.dumps(compile_all()))
    for content in (kept, made):
        content["schema"] = list(map(told, content["schema"]))
        for entry in content["statements"].values():
            entry["sql"] = told(entry["sql"])
    assert kept == made, "run `python -m checkpoint_plugin.compile_statements`"


def test_the_tables_are_those_of_the_models(tmp_path: Path) -> None:
    theirs = create_engine(f"sqlite:///{tmp_path}/theirs.db")
    Base.metadata.create_all(theirs)
    theirs.dispose()
    names, made = sqlite_schema()
    with sqlite3.connect(tmp_path / "ours.db") as ours:
        for text in made:
            ours.execute(text)
    ours.close()
    query = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name"
    found: list[list[Any]] = []
    for name in ("ours", "theirs"):
        connection = sqlite3.connect(tmp_path / f"{name}.db")
        found.append([(*row[:3], told(row[3] or "")) for row in connection.execute(query)])
        connection.close()
    assert found[0] == found[1]
    assert names == {row[1] for row in found[0] if row[0] == "table"}


LISTS = ["workflow runs", "workflow show r", "workflow checkpoints r", "workflow events r", "workflow suspended"]


@pytest.mark.parametrize(
    "steps", [["whole", *LISTS], ["fail", "resume"], ["suspend", "workflow suspended", "answer"]], ids=lambda steps: steps[0]
)
def test_a_run_on_sqlite_never_imports_sqlalchemy(tmp_path: Path, steps: list[str]) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    for step in steps:
        command = [sys.executable, str(program), f"sqlite:///{tmp_path}/s.db", step]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr
    connection = sqlite3.connect(tmp_path / "s.db")
    assert connection.execute("SELECT status FROM job").fetchall() == [("completed",)]
    assert connection.execute("SELECT count(*) FROM event").fetchone()[0] > 3
    connection.close()


LATE = """
import asyncio, sys, threading
from concurrent.futures import ThreadPoolExecutor

importing = []

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "sqlalchemy":
            importing.append(threading.current_thread() is threading.main_thread())

sys.meta_path.insert(0, Watch())
from checkpoint_plugin import CheckpointManager, NodeStateSnapshot, update_suspended_state
from workflow_runner import Graph, WorkflowRunner, node

url, step = sys.argv[1:]

@node
async def take(number: int) -> int:
    return number

class Full(ThreadPoolExecutor):  # whose threads may all be waiting for what is done here
    def submit(self, *work):
        raise AssertionError("it may never come to its turn")

async def main():
    manager = CheckpointManager("by hand", enabled=True, url=url)
    asyncio.get_running_loop().set_default_executor(Full())
    if step == "save":
        await manager.save_checkpoint(node_states={"a": NodeStateSnapshot("a", "suspended", error="later")})
    elif step == "answer":
        await update_suspended_state("by hand", "a", {"b": 1}, url)
    elif step == "can resume":
        assert await manager.can_resume()
    elif step == "restore":
        assert (await manager.restore_checkpoint()).node_states["a"].resume_state == {"b": 1}
    elif step == "clear":
        assert await manager.clear_checkpoint()
    else:
        graph = Graph()
        graph.output("end", graph.add(take, number=3))
        await WorkflowRunner().run(graph, enable={"checkpoint": {"url": url, "retention": {"keep_last": 1}}})

asyncio.run(main())
print(importing)
"""


def test_sqlalchemy_is_not_imported_on_the_event_loop(tmp_path: Path) -> None:
    """It takes a third of a second, in which nothing else there would move."""
    program = tmp_path / "program.py"
    program.write_text(LATE)
    for step in ("save", "answer", "can resume", "restore", "clear", "a run that prunes"):
        command = [sys.executable, str(program), f"sqlite:///{tmp_path}/s.db", step]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (step, done.stdout, done.returncode) == (step, "[False]\n", 0), done.stderr


def executed(connection: sqlite3.Connection, text: Text, values: dict[str, Any]) -> Rows:
    return Rows(connection.execute(*text.filled(values)), text.row, text.made)


@pytest.fixture
def raw() -> Any:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for text in sqlite_schema()[1]:
        connection.execute(text)
    yield connection
    connection.close()


def test_rows_are_as_sqlalchemy_gives_them(raw: sqlite3.Connection) -> None:
    columns = [column.name for column in JOB.columns]
    values = dict.fromkeys(columns) | {
        "id": "r",
        "attempt": 1,
        "has_checkpoint": True,
        "status": "running",
        "job_type": "workflow",
        "created_at": NOON,
        "updated_at": NOON,
        "cost": 1,
        "retry_count": 0,
        "max_retries": 3,
        "version": 0,
    }
    executed(raw, for_sqlite(insert(JOB).values({name: bindparam(name) for name in columns})), values)
    (row,) = executed(raw, for_sqlite(select(JOB)), {})
    with make_sqlite_engine(raw).connect() as core:
        theirs = core.execute(select(JOB)).one()
    assert tuple(row) == tuple(theirs)
    assert row._mapping == dict(theirs._mapping)
    assert (row.created_at, row.has_checkpoint, row.cost, row.finished_at) == (NOON, True, 1.0, None)
    assert type(row.has_checkpoint) is bool
    assert not hasattr(row, "no_such_column")


def test_an_update_of_any_column_changes_those_that_are_given(raw: sqlite3.Connection) -> None:
    columns = "id, attempt, has_checkpoint, status, job_type, created_at, updated_at, retry_count, max_retries, version"
    raw.execute(f"INSERT INTO job ({columns}) VALUES ('r', 1, 0, 'running', 'workflow', '', '', 0, 3, 7)")
    text = Statement.known["tables.row_sql.update_job()"].on_sqlite
    assert executed(raw, text, {"of_run": "r", "failed_at": NOON, "status": "failed", "error": None}).rowcount == 1
    assert executed(raw, text, {"of_run": "another", "status": "x"}).rowcount == 0
    found = raw.execute("SELECT status, failed_at, error, version, attempt FROM job").fetchall()
    assert found == [("failed", "2027-03-04 12:00:00.000007", None, 8, 1)]
    executed(raw, text, {"of_run": "r"})  # nothing but the version
    assert raw.execute("SELECT status, version FROM job").fetchall() == [("failed", 9)]
    with pytest.raises(sqlite3.OperationalError, match="no such column"):
        executed(raw, text, {"of_run": "r", "no_such": 1})


def test_lists_are_given_value_by_value(raw: sqlite3.Connection) -> None:
    raw.execute("PRAGMA foreign_keys = 0")
    for number, node_id in ((1, "a"), (1, "b"), (2, "a"), (3, "c")):
        raw.execute("INSERT INTO node_version VALUES ('r', ?, ?, x'00', NULL, x'01', NULL)", (number, node_id))
    pairs = executed(raw, for_sqlite(cut_sql.rows_by_pair()), {"run": "r", "pairs": [(1, "b"), (2, "a"), (2, "c")]})
    assert {(row.node_id, row.number) for row in pairs} == {("b", 1), ("a", 2)}
    parts = {"run": "r", "numbers": [1, 3], "node_ids": ["a", "c"]}
    found = executed(raw, for_sqlite(cut_sql.rows_by_parts()), parts)
    assert {(row.node_id, row.number) for row in found} == {("a", 1), ("c", 3)}
    assert NODE_VERSION.name == "node_version"


def test_one_row_is_one(raw: sqlite3.Connection) -> None:
    raw.execute("PRAGMA foreign_keys = 0")
    text = for_sqlite(select(LEASE.c.run_id))
    assert executed(raw, text, {}).scalar_one_or_none() is None
    assert executed(raw, text, {}).first() is None
    for name in ("r", "s"):
        raw.execute("INSERT INTO lease (run_id, epoch, generation, newest_number) VALUES (?, 1, 0, 0)", (name,))
    assert list(executed(raw, text, {}).scalars()) == ["r", "s"]
    with pytest.raises(ValueError, match="too many"):
        executed(raw, text, {}).scalar_one_or_none()
    assert executed(raw, for_sqlite(update(LEASE).values(epoch=2)), {}).rowcount == 2


def test_a_part_is_undone_alone_whoever_wrote_it(raw: sqlite3.Connection) -> None:
    raw.execute("PRAGMA foreign_keys = 0")
    new = "INSERT INTO lease (run_id, epoch, generation, newest_number) VALUES (?, 1, 0, 0)"
    connection = SqliteTransaction(raw, lambda: make_sqlite_engine(raw))
    raw.execute("BEGIN")
    with connection.nested():
        connection.driver.execute(new, ("by the driver",))
    with suppress(LookupError), connection.nested():
        connection.driver.execute(new, ("undone",))
        connection.execute(insert(LEASE).values(run_id="undone too", epoch=1, generation=0, newest_number=0))
        raise LookupError
    connection.execute(insert(LEASE).values(run_id="by SQLAlchemy", epoch=1, generation=0, newest_number=0))
    raw.execute("COMMIT")
    connection.close()
    assert sorted(raw.execute("SELECT run_id FROM lease")) == [("by SQLAlchemy",), ("by the driver",)]
