"""`workflow answer RUN NODE=JSON`, on both databases."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from checkpoint_plugin import NodeNotSuspended
from checkpoint_plugin.cli.answer import answer
from checkpoint_plugin.cli.suspended import suspended
from hookspecs import RunNotFound, SuspensionChanged
from tests.checkpoint_plugin.test_answered_meanwhile import DONE, SEEN, WHOLE, Executed, beside, waiting
from tests.checkpoint_plugin.test_plugin import runner

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workflow_runner.waking.LOOK_SECONDS", 0.005)
    monkeypatch.setattr("checkpoint_plugin.runs.answers.EXECUTED_SECONDS", 0.0)
    DONE[:], SEEN[:] = [asyncio.Event()], []


async def call(url: str, *arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, answer, [*arguments, "--url", url])


async def test_a_run_that_is_executed_goes_on_with_it(store_url: str) -> None:
    async with Executed(store_url, beside()) as executed:
        done = await call(store_url, "r", "waits=true", "--json")
        told = json.loads(done.stdout)
        assert (done.exit_code, told["run_id"], told["answered"]) == (0, "r", ["waits"])
        assert "process" in told["executed_by"]
        assert (await executed.result()).outputs == {**WHOLE, "approved": ["1 True"]}
    (row,) = re.findall(r"^\| `answer` \| `\{(.*)\}`", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert re.findall(r'"(\w+)"', row) == list(told)


async def test_a_run_that_nobody_executes_waits_for_its_resume(store_url: str, tmp_path: Path) -> None:
    DONE[-1].set()
    await runner(store_url).run(beside(), {"x": 1}, enable={"checkpoint": True}, run_id="r")
    (waits,) = await waiting(store_url)
    assert waits.since is not None
    since = f"waits={waits.since.isoformat()}"
    (tmp_path / "text.json").write_text('{"a": "yes"}', encoding="utf-8")
    done = await call(store_url, "r", f"waits=@{tmp_path / 'text.json'}", "--since", since)
    assert (done.exit_code, done.stdout) == (0, "waits: answered. Go on with the run: workflow resume r\n")
    assert isinstance((await call(store_url, "r", "waits=true", "--since", since)).exception, NodeNotSuspended)
    listed = await asyncio.to_thread(CliRunner().invoke, suspended, ["--url", store_url, "--json"])
    assert [node["due"] for node in json.loads(listed.stdout)["suspended"]] == [True]
    assert (await runner(store_url).resume("r", graph=beside())).outputs == {**WHOLE, "approved": ["1 {'a': 'yes'}"]}


async def test_what_is_refused_changes_nothing(store_url: str) -> None:
    DONE[-1].set()
    await runner(store_url).run(beside(), {"x": 1}, enable={"checkpoint": True}, run_id="r")
    for arguments, error in (
        (("s", "waits=true"), RunNotFound),
        (("r", "waits=true", "works=1"), NodeNotSuspended),
        (("r", "waits=true", "--since", "waits=2020-01-01T00:00:00+00:00"), SuspensionChanged),
    ):
        assert isinstance((await call(store_url, *arguments)).exception, error), arguments
    (waits,) = await waiting(store_url)
    assert not waits.due


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "Missing argument 'NODE=JSON...'"),
        (("waits",), "'waits' is not NODE=JSON. For example: approve=true"),
        (("=1",), "'=1' is not NODE=JSON"),
        (("waits=yes",), """'yes' is not JSON. Text needs quotes: 'waits="yes"'"""),
        (("waits=NaN",), "NaN is not a JSON value"),
        (('waits={"a": 1, "a": 2}',), "a key of an object is there twice"),
        (("waits=1", "waits=2"), "node 'waits' is given twice"),
        (("waits=" + "[" * 100_000,), "is not JSON"),
        (("waits=@no such file",), "the file 'no such file' cannot be read: No such file or directory"),
        (("waits=1", "--since", "waits=2020-01-01"), "is no time with a zone"),
        (("waits=1", "--since", "waits=soon"), "is no time with a zone"),
        (("waits=1", "--since", "other=2020-01-01T00:00:00+00:00"), "node 'other' is given no answer"),
    ],
)
def test_arguments_that_make_no_sense(arguments: tuple[str, ...], told: str) -> Any:
    done = CliRunner().invoke(answer, ["r", *arguments, "--url", "sqlite:///nowhere.db"], terminal_width=1_000)
    assert done.exit_code == 2
    assert told in " ".join(done.output.split())


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'"\xff"', "the file 'answer' cannot be read: 'utf-8' codec can't decode"),
        (b"yes", "node 'waits': the file is not JSON (Expecting value"),
        (b"[" * 100_000, "node 'waits': the file is not JSON (maximum recursion depth"),
        (b"", "the file is not JSON"),
    ],
    ids=["no UTF-8", "no JSON", "deep", "empty"],
)
def test_a_file_that_is_no_answer(content: bytes, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "answer").write_bytes(content)
    done = CliRunner().invoke(answer, ["r", "waits=@answer", "--url", "sqlite:///nowhere.db"], terminal_width=1_000)
    assert done.exit_code == 2
    assert told in " ".join(done.output.split())
