"""Commands on damaged stores: exit code 5 with an error that says what to do, or the right answer; and the ways on."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Table, delete, update

from checkpoint_plugin import RecoveryService
from checkpoint_plugin.models import CHECKPOINT, JOB, LEASE, NODE_VERSION, RUN_NODE_STATE
from checkpoint_plugin.status import NODE_STATUSES
from hookspecs import CheckpointChoice
from tests.cli.command import workflow
from tests.damage.stored import store_run
from tests.damage.test_rows import change, is_row, read_rows
from workflow_runner import NodeFailed, WorkflowRunner
from workflow_runner.cli.main import main
from workflow_runner.cli.report import exit_code_of

NODES = """
from collections.abc import AsyncIterator
from pathlib import Path

from workflow_runner import Context, node


@node
async def steps(n: int, go: str, context: Context) -> AsyncIterator[int]:
    for number in range(context.state or 0, n):
        if number == 4 and not Path(go).exists():
            raise ValueError("not yet")
        yield number
        context.commit(number + 1)
        await context.checkpoint(f"step {number}")


@node
async def told(value: int) -> str:
    return f"item {value} " * 40
"""
EXPECTED = {"out": [f"item {number} " * 40 for number in range(6)]}
CHOICES: tuple[CheckpointChoice, ...] = (None, "latest-intact")
REFUSED = (4, 5)
"""Held by somebody else, where a flipped bit is in the lease; damaged."""


class Folder:
    """A run `r` that failed after some checkpoints, and may go on."""

    def __init__(self, path: Path, url: str) -> None:
        self.path = path
        self.url = url
        (path / "steps.py").write_text(NODES)
        graph = {
            "nodes": [
                {"id": "s", "type": "steps.steps", "data": {"n": 6, "go": str(path / "go")}},
                {"id": "t", "type": "steps.told"},
                {"id": "out", "type": "workflow.Output", "data": {"name": "out"}},
            ],
            "edges": [
                {"source": "s", "target": "t", "targetHandle": "value"},
                {"source": "t", "target": "out", "targetHandle": "value"},
            ],
        }
        (path / "flow.json").write_text(json.dumps(graph))
        (path / "flow.json").write_text(json.dumps(graph))
        options = {"checkpoint": {"url": url, "explicit": True, "on_error": True}}
        with pytest.raises(NodeFailed):
            asyncio.run(WorkflowRunner(nodes=self.nodes).run(graph, enable=options, run_id="r"))
        (path / "go").touch()

    @property
    def nodes(self) -> list[str]:
        return [str(self.path / "steps.py")]

    def resume(self, checkpoint: CheckpointChoice = None, url: str | None = None) -> tuple[int, Any]:
        """The exit code that the command would have, and the outputs or the error."""
        try:
            result = asyncio.run(WorkflowRunner(nodes=self.nodes).resume("r", url=url or self.url, checkpoint=checkpoint))
        except Exception as error:
            return exit_code_of(error), error
        return 0, result.outputs


@pytest.fixture
def folder(tmp_path: Path, store_url: str) -> Folder:
    return Folder(tmp_path, store_url)


def numbers(url: str) -> list[int]:
    return [row["number"] for row in asyncio.run(read_rows(url, CHECKPOINT))]


def flipped(data: bytes) -> bytes:
    """Other bytes, whatever they were: a fixed last byte would once in 256 times be the one that is there."""
    return data[:-1] + bytes([data[-1] ^ 1])


def bend(url: str, table: Table, **key: Any) -> None:
    """Change the bytes of a row."""
    column = "body" if "body" in table.c else "cut_hash"
    rows = asyncio.run(read_rows(url, table))
    (row,) = (row for row in rows if all(row[name] == value for name, value in key.items()))
    asyncio.run(change(url, update(table).where(is_row(table, row)).values({column: flipped(row[column])})))


def test_the_command_refuses_damage_and_goes_on_as_it_says(folder: Folder) -> None:
    newest = numbers(folder.url)[-1]
    bend(folder.url, NODE_VERSION, node_id="s", number=newest)
    before = asyncio.run(read_rows(folder.url, CHECKPOINT))
    arguments = ("resume", "r", "--nodes", *folder.nodes, "--url", folder.url, "--json")
    done = workflow(*arguments, cwd=folder.path)
    assert done.returncode == 5
    assert f"checkpoint {newest} of run 'r' is damaged: the row of node 's' was changed" in done.stderr
    assert "workflow resume r --latest-intact" in done.stderr
    assert json.loads(done.stdout)["error"]["type"] == "StoreDamaged"
    assert asyncio.run(read_rows(folder.url, CHECKPOINT)) == before
    done = workflow(*arguments, "--checkpoint", "99", cwd=folder.path)
    assert done.returncode == 5
    assert "has no checkpoint 99" in done.stderr
    done = workflow(*arguments, "--latest-intact", "--quiet", cwd=folder.path)
    assert done.returncode == 0
    assert json.loads(done.stdout)["outputs"] == EXPECTED
    assert f"checkpoint {newest} is passed over: the row of node 's' was changed" in done.stderr


@pytest.mark.parametrize("back", [0, 1, 2])
def test_a_named_checkpoint_is_gone_on_from_unless_it_is_damaged(folder: Folder, back: int) -> None:
    there = numbers(folder.url)
    bend(folder.url, CHECKPOINT, number=there[-1])
    assert folder.resume(there[-1])[0] == 5
    code, outputs = folder.resume(there[-1 - back])
    assert code == (0 if back else 5)
    if back:
        assert outputs == EXPECTED
        rows = asyncio.run(read_rows(folder.url, CHECKPOINT))
        assert rows[len(there)]["reason"] == f"back to {there[-1 - back]}"


@pytest.mark.parametrize("newest", [2, 99])
def test_a_number_of_the_newest_that_was_changed_is_no_silent_rewind(folder: Folder, newest: int) -> None:
    asyncio.run(change(folder.url, update(LEASE).where(LEASE.c.run_id == "r").values(newest_number=newest)))
    assert folder.resume()[0] == 5
    assert folder.resume("latest-intact") == (0, EXPECTED)
    assert folder.resume() == (0, EXPECTED)


@pytest.mark.parametrize("table", [LEASE, CHECKPOINT], ids=["lease", "checkpoint"])
def test_a_number_that_is_none_is_refused_until_the_user_says_so(tmp_path: Path, table: Table) -> None:
    """SQLite keeps anything in any column: one flipped bit makes a text of a number."""
    folder = Folder(tmp_path, f"sqlite:///{tmp_path / 'c.db'}")
    column = "newest_number" if table is LEASE else "number"
    last = numbers(folder.url)[-1]
    with closing(sqlite3.connect(tmp_path / "c.db", isolation_level=None)) as database:
        done = database.execute(f"UPDATE {table.name} SET {column} = 'x' WHERE {column} = {last}")
        assert done.rowcount == 1
    assert folder.resume()[0] == 5
    assert folder.resume("latest-intact") == folder.resume("latest-intact") == (0, EXPECTED)
    if table is LEASE:  # the row of a checkpoint stays as it is, and is told of until the database is restored
        assert folder.resume() == (0, EXPECTED)


def test_a_lost_tail_is_refused_until_the_user_says_so(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    last = numbers(folder.url)[-1]
    for table in (NODE_VERSION, CHECKPOINT):
        for row in asyncio.run(read_rows(folder.url, table)):
            if row["number"] == last:
                asyncio.run(change(folder.url, delete(table).where(is_row(table, row))))
    assert folder.resume()[0] == 5
    assert folder.resume("latest-intact") == (0, EXPECTED)
    assert f"checkpoint {last} is passed over: the checkpoint itself is missing" in caplog.text


@pytest.mark.parametrize("table", [JOB, RUN_NODE_STATE])
def test_a_status_that_is_none_is_not_shown(folder: Folder, table: Table, capfd: pytest.CaptureFixture[str]) -> None:
    row = asyncio.run(read_rows(folder.url, table))[0]
    asyncio.run(change(folder.url, update(table).where(is_row(table, row)).values(status="gailed")))
    assert main(["show", "r", "--url", folder.url, "--json"]) == 5
    assert "run 'r' is damaged: a status of it, 'gailed', is not one" in capfd.readouterr().err
    assert main(["runs", "--url", folder.url]) == (5 if table is JOB else 0)


def test_where_every_checkpoint_is_damaged_nothing_begins(folder: Folder) -> None:
    for number in numbers(folder.url):
        bend(folder.url, CHECKPOINT, number=number)
    before = asyncio.run(read_rows(folder.url, CHECKPOINT))
    assert folder.resume("latest-intact")[0] == 5
    assert asyncio.run(read_rows(folder.url, CHECKPOINT)) == before
    assert asyncio.run(read_rows(folder.url, JOB))[0]["status"] == "failed"


def test_a_completed_run_without_damage_gives_its_outputs_and_writes_nothing(folder: Folder) -> None:
    assert folder.resume() == (0, EXPECTED)
    tables = (CHECKPOINT, JOB, LEASE)
    before = [asyncio.run(read_rows(folder.url, table)) for table in tables]
    assert folder.resume("latest-intact") == folder.resume("latest-intact") == (0, EXPECTED)
    assert [asyncio.run(read_rows(folder.url, table)) for table in tables] == before


def test_a_completed_run_with_damage_gives_no_outputs(folder: Folder) -> None:
    assert folder.resume() == folder.resume() == (0, EXPECTED)
    bend(folder.url, NODE_VERSION, node_id="out", number=numbers(folder.url)[-1])
    assert folder.resume()[0] == 5
    assert folder.resume("latest-intact") == (0, EXPECTED)


def test_flipped_bits(tmp_path: Path, request: pytest.FixtureRequest, capfd: pytest.CaptureFixture[str]) -> None:
    folder = Folder(tmp_path, f"sqlite:///{tmp_path / 'whole.db'}")
    whole = (tmp_path / "whole.db").read_bytes()
    seed = random.SystemRandom().randrange(2**32)
    rng = random.Random(seed)
    places = [place for place, byte in enumerate(whole) if byte or place % 64 == 0]
    refused = 0
    count = max(10, request.config.getoption("--damage") // 10)
    for number in range(count):
        data = bytearray(whole)
        place, bit = rng.choice(places), rng.randrange(8)
        data[place] ^= 1 << bit
        (tmp_path / "damaged.db").write_bytes(data if rng.random() < 0.8 else whole[:place])
        url = f"sqlite:///{tmp_path / 'damaged.db'}?busy_seconds=1"
        told = f"seed {seed}, flip {number}: bit {bit} of byte {place}"
        try:
            for arguments in (["runs"], ["show", "r"], ["checkpoints", "r"]):
                capfd.readouterr()
                code = main([*arguments, "--url", url, "--json"])
                captured = capfd.readouterr()
                assert code in (0, 5), (told, code, arguments, captured.err)
                assert len(captured.out.splitlines()) == 1, told
                if not code:
                    document = json.loads(captured.out)
                    listed = [*document.get("runs", ()), *document.get("nodes", ()), document]
                    assert all(each.get("status", "idle") in NODE_STATUSES for each in listed), told
            for choice in CHOICES:
                code, found = folder.resume(choice, url)
                assert (code == 0 and found == EXPECTED) or code in REFUSED, (told, code, choice, found)
                refused += code != 0
        finally:
            for path in tmp_path.glob("damaged.db*"):
                path.unlink()
    assert refused


def test_a_strategy_that_is_another_does_not_make_a_run_one_saved_by_hand(folder: Folder) -> None:
    asyncio.run(change(str(folder.url), update(JOB).values(execution_strategy="runne2")))
    for choice in CHOICES:
        code, error = folder.resume(choice)
        assert code == 5
        assert "its row says strategy 'runne2', and a runner began it" in str(error)
    checked = workflow("db", "check", "--url", str(folder.url), "--json", cwd=folder.path)
    assert checked.returncode == 5
    assert "its row says strategy 'runne2'" in checked.stdout


def test_a_damaged_row_does_not_hide_the_other_runs(folder: Folder) -> None:
    url = str(folder.url)
    graph = json.loads((folder.path / "flow.json").read_text())
    for run_id in ("before", "after"):
        asyncio.run(WorkflowRunner(nodes=folder.nodes).run(graph, enable={"checkpoint": {"url": url}}, run_id=run_id))
    asyncio.run(change(url, update(JOB).where(JOB.c.id == "before").values(status="bent")))
    done = workflow("runs", "--url", url, "--json", cwd=folder.path)
    assert done.returncode == 5
    (line,) = done.stdout.splitlines()
    told = json.loads(line)
    assert [run["run_id"] for run in told["runs"]] == ["after", "r"]
    assert [each["run_id"] for each in told["damaged"]] == ["before"]
    assert done.stderr.startswith("Error: run 'before' is damaged: a status of it, 'bent', is not one")
    assert len(done.stderr.splitlines()) == 1
    only = workflow("runs", "--url", url, "--status", "failed", "--json", cwd=folder.path)
    assert (only.returncode, [run["run_id"] for run in json.loads(only.stdout)["runs"]]) == (0, ["r"])


NO_TIME = '20"7-01-01 00:00:00.000000'
"""One bit of a year: SQLite keeps it, and no time can be read from it."""


def damage_time(path: Path, table: Table, column: str, run_id: str) -> None:
    key = "id" if table is JOB else "run_id"
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        changed = database.execute(f"UPDATE {table.name} SET {column} = ? WHERE {key} = ?", (NO_TIME, run_id))
        assert changed.rowcount


@pytest.fixture
def two_runs(tmp_path: Path) -> Folder:
    folder = Folder(tmp_path, f"sqlite:///{tmp_path / 'c.db'}")
    graph = json.loads((tmp_path / "flow.json").read_text())
    asyncio.run(WorkflowRunner(nodes=folder.nodes).run(graph, enable={"checkpoint": {"url": folder.url}}, run_id="other"))
    return folder


@pytest.mark.parametrize(("table", "column"), [(JOB, "finished_at"), (CHECKPOINT, "created_at")], ids=["job", "checkpoint"])
def test_prune_leaves_a_damaged_run_and_prunes_the_others(two_runs: Folder, table: Table, column: str) -> None:
    damage_time(two_runs.path / "c.db", table, column, "r")
    before = [row for row in asyncio.run(read_rows(two_runs.url, NODE_VERSION)) if row["run_id"] == "r"]
    done = workflow("prune", "--drop-finished", "0", "--url", two_runs.url, "--json", cwd=two_runs.path)
    assert done.returncode == 5
    (line,) = done.stdout.splitlines()
    told = json.loads(line)
    assert [(run["run_id"], run["dropped"]) for run in told["runs"]] == [("other", True)]
    assert [each["run_id"] for each in told["damaged"]] == ["r"]
    (said,) = done.stderr.splitlines()
    assert said.startswith("Error: run 'r' is damaged: ")
    assert [row for row in asyncio.run(read_rows(two_runs.url, NODE_VERSION)) if row["run_id"] == "r"] == before


async def test_recover_refuses_a_damaged_run_and_goes_on_with_the_others(tmp_path: Path) -> None:
    folder = await asyncio.to_thread(Folder, tmp_path, f"sqlite:///{tmp_path / 'c.db'}")
    url = folder.url
    graph = json.loads((tmp_path / "flow.json").read_text())
    await WorkflowRunner(nodes=folder.nodes).run(graph, enable={"checkpoint": {"url": url}}, run_id="other")
    with closing(sqlite3.connect(tmp_path / "c.db", isolation_level=None)) as database:
        database.execute("UPDATE job SET status = 'running', heartbeat_at = '2026-01-01 00:00:00.000000'")
        database.execute("UPDATE job SET updated_at = '2026-01-01 00:00:00.000000'")
        database.execute("UPDATE lease SET owner = 'gone', expires_at = '2026-01-01 00:00:00.000000'")
    damage_time(tmp_path / "c.db", LEASE, "expires_at", "r")
    executed: list[str] = []

    async def execute(run_id: str) -> None:
        executed.append(run_id)

    service = RecoveryService(url=url, execute=execute)
    outcomes = {outcome.run_id: outcome async for outcome in service.recover(timedelta(days=1))}
    assert executed == ["other"]
    assert set(outcomes) == {"r", "other"}
    assert outcomes["r"].status == "refused"
    assert "run 'r' is damaged" in str(outcomes["r"].error)


@pytest.mark.parametrize(
    ("table", "column", "arguments"),
    [
        (JOB, "finished_at", ("savepoint", "r", "here")),
        (RUN_NODE_STATE, "updated_at", ("show", "r")),
        (RUN_NODE_STATE, "suspended_at", ("suspended",)),
    ],
    ids=["savepoint", "show", "suspended"],
)
def test_a_time_that_is_none_is_damage(
    two_runs: Folder, table: Table, column: str, arguments: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    damage_time(two_runs.path / "c.db", table, column, "r")
    with closing(sqlite3.connect(two_runs.path / "c.db", isolation_level=None)) as database:
        database.execute("UPDATE run_node_state SET status = 'suspended' WHERE run_id = 'r'")
    assert main([*arguments, "--url", two_runs.url, "--json"]) == 5
    said = capfd.readouterr().err
    assert "damaged" in said
    assert NO_TIME in said


@pytest.mark.parametrize("value", [b"\xff", "text", 1.5], ids=["bytes", "text", "fraction"])
@pytest.mark.parametrize(
    ("table", "column", "commands"),
    [
        ("checkpoint", "size_bytes", (("show", "r"), ("checkpoints", "r", "--json"))),
        ("checkpoint", "nodes", (("checkpoints", "r", "--json"),)),
        ("run_node_state", "attempt", (("show", "r", "--json"),)),
        ("job", "attempt", (("runs", "--json"), ("show", "r", "--json"))),
    ],
)
def test_a_number_that_is_none_is_told_as_damage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], table: str, column: str, commands: Any, value: Any
) -> None:
    """SQLite keeps anything in any column."""
    url = f"sqlite:///{tmp_path}/c.db"
    Folder(tmp_path, url)
    with closing(sqlite3.connect(tmp_path / "c.db")) as connection, connection:
        connection.execute(f"UPDATE {table} SET {column} = ?", (value,))
    for command in commands:
        assert main([*command, "--url", url]) == 5
        told = capsys.readouterr().err
        assert "run 'r'" in told and f"column {column!r} holds {type(value).__name__}" in told


@pytest.mark.parametrize(
    ("value", "shown"), [("x", "'x'"), (b"\x05", "b'\\x05'"), (2.5, "2.5")], ids=["text", "bytes", "fraction"]
)
def test_a_checkpoint_without_a_number_is_found_by_a_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], value: Any, shown: str
) -> None:
    url = f"sqlite:///{tmp_path}/c.db"
    Folder(tmp_path, url)
    with closing(sqlite3.connect(tmp_path / "c.db")) as connection, connection:
        connection.execute("UPDATE checkpoint SET number = ? WHERE number = 2", (value,))
    assert main(["db", "check", "--json", "--url", url]) == 5
    told = json.loads(capsys.readouterr().out)
    assert f"a checkpoint has the number {shown}" in [finding["what"] for finding in told["findings"]]
    assert 2 not in told["runs"][0]["damaged"] and told["runs"][0]["newest_intact"] is not None


@pytest.mark.parametrize("command", [("runs",), ("prune", "--keep-last", "1"), ("db", "check"), ("db", "size")], ids=" ".join)
def test_a_run_whose_id_is_no_text_is_told_in_json(two_runs: Folder, capsys: pytest.CaptureFixture[str], command: Any) -> None:
    with closing(sqlite3.connect(two_runs.path / "c.db")) as connection, connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute("UPDATE job SET id = CAST(id AS BLOB) WHERE id <> 'r'")
    assert main([*command, "--url", two_runs.url, "--json"]) in (0, 5)
    assert json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(("column", "what"), [("version", "its version is 'x'"), ("status", "a status of it, 'x', is not one")])
def test_a_damaged_row_is_told_where_a_run_is_cancelled(
    two_runs: Folder, capsys: pytest.CaptureFixture[str], column: str, what: str
) -> None:
    with closing(sqlite3.connect(two_runs.path / "c.db")) as connection, connection:
        connection.execute(f"UPDATE job SET {column} = 'x' WHERE id = 'r'")
    assert main(["cancel", "r", "--url", two_runs.url]) == 5
    assert f"run 'r' is damaged: {what}; nothing was changed" in capsys.readouterr().err


@pytest.mark.parametrize("column", ["status", "error", "updated_at"])
def test_a_text_that_is_none_does_not_hide_the_other_runs(
    two_runs: Folder, capsys: pytest.CaptureFixture[str], column: str
) -> None:
    """One bit of a letter makes bytes that no text has."""
    with closing(sqlite3.connect(two_runs.path / "c.db")) as connection, connection:
        connection.execute(f"UPDATE job SET {column} = CAST(x'6661ff' AS TEXT) WHERE id = 'other'")
    for command in (("runs",), ("prune", "--keep-last", "1")):
        assert main([*command, "--url", two_runs.url, "--json"]) == (0 if column == "error" else 5)
        told = json.loads(capsys.readouterr().out)
        assert [each["run_id"] for each in told.get("damaged", ())] == ([] if column == "error" else ["other"])
        assert "r" in [run["run_id"] for run in told["runs"]]


def test_bytes_that_have_become_no_text_are_passed_over(two_runs: Folder) -> None:
    with closing(sqlite3.connect(two_runs.path / "c.db")) as connection, connection:
        connection.execute(
            "UPDATE node_version SET body = CAST(x'ff' AS TEXT) WHERE run_id = 'r' AND number = "
            "(SELECT max(number) FROM node_version WHERE run_id = 'r')"
        )
    code, error = two_runs.resume()
    assert code == 5
    assert "run 'r' is damaged" in str(error)
    assert two_runs.resume("latest-intact") == (0, EXPECTED)


@pytest.mark.parametrize("table", ["node_version", "output_segment"])
@pytest.mark.parametrize("command", [("db", "check"), ("db", "size", "--run", "r")], ids=" ".join)
def test_a_node_whose_id_is_no_text_is_told_in_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], table: str, command: Any
) -> None:
    url = f"sqlite:///{tmp_path}/c.db"
    asyncio.run(store_run(url))
    with closing(sqlite3.connect(tmp_path / "c.db")) as connection, connection:
        connection.execute(f"UPDATE {table} SET node_id = CAST(node_id AS BLOB) WHERE number = (SELECT max(number) FROM {table})")
    assert main([*command, "--url", url, "--json"]) in (0, 5)
    assert json.loads(capsys.readouterr().out)
