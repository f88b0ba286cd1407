"""Runs whose large values are files, by the command line: killed, resumed, read again, pruned by themselves."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from checkpoint_plugin.blobs.files import ENVIRONMENT
from checkpoint_plugin.database.location import ENVIRONMENT as STORE
from tests.cli.command import environment, start, workflow, write_graph

SECONDS = 30
ITEMS = 6
NODES = '''
import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

from workflow_runner import Context, node


@node
async def large(a: int, context: Context) -> AsyncIterator[str]:
    """Yields texts that no compression makes much smaller; waits after half of them for somebody to kill it."""
    done = context.state or 0
    for number in range(done, a):
        if number == a // 2 and not Path("go on").exists():
            Path("waiting").touch()
            await asyncio.sleep(600)
        yield random.Random(number).randbytes(20_000).hex()
        context.commit(number + 1)
'''


def expected() -> list[str]:
    import random

    return [random.Random(number).randbytes(20_000).hex() for number in range(ITEMS)]


@pytest.fixture
def graph(tmp_path: Path) -> str:
    name = write_graph(tmp_path, "large")
    (tmp_path / "nodes.py").write_text(NODES)
    return name


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


def options(**more: Any) -> str:
    return f"checkpoint={json.dumps({'blob_bytes': 10_000, 'every_firing': True, **more})}"


def kill_in_the_middle(graph: str, folder: Path, env: Mapping[str, str], enable: str) -> None:
    arguments = ["run", graph, "--nodes", "nodes.py", "--input", f"a={ITEMS}", "--run-id", "r", "--enable", enable]
    process = start(*arguments, cwd=folder, env=env)
    deadline = time.monotonic() + SECONDS
    while not (folder / "waiting").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.communicate()
    (folder / "go on").touch()


def outputs(told: str) -> Any:
    return json.loads(told.splitlines()[-1])["outputs"]["out"]


def test_a_killed_run_goes_on_from_its_files(graph: str, tmp_path: Path) -> None:
    env = environment(**{STORE: "sqlite:///store/c.db"})
    folder = tmp_path / "store" / "c.db.blobs"
    kill_in_the_middle(graph, tmp_path, env, options(blobs=True))
    before = files(folder)
    assert len(before) == ITEMS // 2
    done = workflow("resume", "r", "--nodes", "nodes.py", "--json", cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    assert outputs(done.stdout) == expected()
    assert before < files(folder) and len(files(folder)) == ITEMS  # a resume keeps to the option of the run
    again = workflow("resume", "r", "--json", cwd=tmp_path, env=env)
    assert outputs(again.stdout) == expected()
    next(folder.rglob(next(iter(before)))).unlink()
    damaged = workflow("resume", "r", "--json", cwd=tmp_path, env=env)
    assert damaged.returncode == 5
    assert "is damaged" in damaged.stderr and "is missing" in damaged.stderr


def test_a_url_is_given_again(graph: str, store_url: str, tmp_path: Path) -> None:
    url = f"file://{tmp_path}/kept"
    env = environment(**{STORE: store_url})
    kill_in_the_middle(graph, tmp_path, env, options(blobs=url))
    assert len(files(tmp_path / "kept")) == ITEMS // 2
    for path in tmp_path.glob("checkpoints.db*"):
        assert str(tmp_path / "kept").encode() not in path.read_bytes()
    lost = workflow("resume", "r", "--nodes", "nodes.py", "--json", cwd=tmp_path, env=env)
    assert lost.returncode == 5
    assert "lie under a url, which is not stored" in lost.stderr and ENVIRONMENT in lost.stderr
    told = workflow("resume", "r", "--nodes", "nodes.py", "--json", cwd=tmp_path, env={**env, ENVIRONMENT: url})
    assert told.returncode == 0, told.stderr
    assert outputs(told.stdout) == expected()
    assert len(files(tmp_path / "kept")) == ITEMS
    again = workflow("resume", "r", "--enable", options(blobs=url), "--json", cwd=tmp_path, env=env)
    assert outputs(again.stdout) == expected()
    assert workflow("show", "r", "--json", cwd=tmp_path, env=env).returncode == 0  # it reads no values
    checked = workflow("db", "check", "--blobs", url, "--json", cwd=tmp_path, env=env)
    assert (checked.returncode, json.loads(checked.stdout)["unverified"]) == (0, []), checked.stderr
    assert workflow("db", "check", "--json", cwd=tmp_path, env=env).stdout != checked.stdout  # it has not looked at the files


def test_retention_deletes_files_as_it_goes(graph: str, tmp_path: Path) -> None:
    env = environment(**{STORE: "sqlite:///c.db"})
    (tmp_path / "go on").touch()
    enable = options(blobs=True, retention={"drop_finished": 0})
    arguments = ["--nodes", "nodes.py", "--input", f"a={ITEMS}", "--run-id", "r", "--enable", enable, "--json"]
    done = workflow("run", graph, *arguments, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    assert outputs(done.stdout) == expected()
    assert files(tmp_path / "c.db.blobs") == set()


def test_a_server_without_a_url_is_refused_before_anything_starts(graph: str, postgres_url: str, tmp_path: Path) -> None:
    env = environment(**{STORE: postgres_url})
    refused = workflow(
        "run", graph, "--nodes", "nodes.py", "--input", "a=1", "--enable", options(blobs=True), "--json", cwd=tmp_path, env=env
    )
    assert refused.returncode == 2
    assert "this store is PostgreSQL. Give a url" in refused.stderr
    assert not (tmp_path / "waiting").exists()
    assert json.loads(workflow("runs", "--json", cwd=tmp_path, env=env).stdout) == {"runs": []}


@pytest.mark.parametrize(("more", "code"), [({}, 5), ({"best_effort": True}, 6)])
def test_a_place_that_refuses_ends_the_run_or_degrades_it(more: dict[str, Any], code: int, graph: str, tmp_path: Path) -> None:
    env = environment(**{STORE: "sqlite:///c.db"})
    (tmp_path / "go on").touch()
    (tmp_path / "c.db.blobs").touch()  # a file where the folder should be
    arguments = ["--nodes", "nodes.py", "--input", f"a={ITEMS}", "--run-id", "r", "--enable", options(blobs=True, **more)]
    done = workflow("run", graph, *arguments, "--json", cwd=tmp_path, env=env)
    assert done.returncode == code, done.stderr
    assert "c.db.blobs" in done.stderr and "cannot be written" in done.stderr
    if code == 6:
        assert outputs(done.stdout) == expected()
    else:
        (tmp_path / "c.db.blobs").unlink()
        assert outputs(workflow("resume", "r", "--nodes", "nodes.py", "--json", cwd=tmp_path, env=env).stdout) == expected()
