"""Standard streams that are closed, that nobody reads, or that lead to a full device: the work decides how a command ends."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from tests.cli.command import COMMAND, environment, workflow, write_graph
from workflow_runner.cli.streams import settle, standard_streams

NODES = ("--nodes", "nodes.py", "--input", "a=1")
FULL = Path("/dev/full")
full_device = pytest.mark.skipif(not FULL.exists(), reason="this system has no device that is always full")


def shell(redirections: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command to its end with streams that a shell has closed."""
    script = f'"$@" {redirections}'
    command = ["sh", "-c", script, "sh", *COMMAND, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, check=False, timeout=60)


def lead(*arguments: str, cwd: Path, stdout: int | IO[Any] = subprocess.PIPE, stderr: int | IO[Any] = subprocess.PIPE) -> Any:
    """Run the command to its end with streams that lead somewhere."""
    return subprocess.run(
        [*COMMAND, *arguments], cwd=cwd, env=environment(), stdout=stdout, stderr=stderr, text=True, check=False, timeout=60
    )


@contextmanager
def unread() -> Iterator[int]:
    """The end of a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        yield writer
    finally:
        os.close(writer)


@pytest.mark.parametrize(("node", "code"), [("value", 0), ("loud", 0), ("fails", 1)])
@pytest.mark.parametrize("more", [(), ("--json",)], ids=["text", "json"])
def test_nobody_gave_it_a_standard_output(tmp_path: Path, node: str, code: int, more: tuple[str, ...]) -> None:
    done = shell(">&-", "run", write_graph(tmp_path, node), *NODES, *more, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (code, "")
    assert "Traceback" not in done.stderr and "fault" not in done.stderr


def test_what_programs_that_a_body_starts_print_is_no_part_of_the_json(tmp_path: Path) -> None:
    graph = write_graph(tmp_path, "runs_a_program")
    done = workflow("run", graph, *NODES, "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["outputs"] == {"out": [1]}
    assert "said by a program" in done.stderr
    assert "said by a program" in workflow("run", graph, *NODES, cwd=tmp_path).stdout


def test_nobody_gave_it_a_standard_error(tmp_path: Path) -> None:
    done = shell("2>&-", "run", write_graph(tmp_path, "loud"), *NODES, "--json", cwd=tmp_path)
    assert (done.returncode, json.loads(done.stdout)["outputs"]) == (0, {"out": [1]})
    refused = shell("2>&-", "run", "nothing.json", "--json", cwd=tmp_path)
    assert (refused.returncode, json.loads(refused.stdout)["error"]["type"]) == (2, "GraphInvalid")
    assert shell("2>&-", "run", cwd=tmp_path).returncode == 2


@pytest.mark.plugin
def test_a_database_does_not_get_the_place_of_a_stream(tmp_path: Path) -> None:
    graph = write_graph(tmp_path, "loud")
    options = ("--enable", "checkpoint", "--run-id", "r")
    assert shell("<&- >&- 2>&-", "run", graph, *NODES, *options, cwd=tmp_path).returncode == 0
    assert json.loads(workflow("show", "r", "--json", cwd=tmp_path).stdout)["status"] == "completed"
    assert workflow("db", "check", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("run", "flow.json", *NODES, "--json"), 0),
        (("run", "flow.json", *NODES), 0),
        (("plugins",), 0),
        (("--help",), 0),
        (("run",), 2),
    ],
    ids=["json", "text", "plugins", "help", "usage"],
)
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_the_reader_is_gone(tmp_path: Path, stream: str, arguments: tuple[str, ...], code: int) -> None:
    write_graph(tmp_path, "value")
    with unread() as writer:
        done = lead(*arguments, cwd=tmp_path, **{stream: writer})
    assert done.returncode == code
    if stream == "stdout":
        assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


def test_a_node_may_print_to_a_reader_that_is_gone(tmp_path: Path) -> None:
    graph = write_graph(tmp_path, "value")
    (tmp_path / "nodes.py").write_text(
        "from workflow_runner import node\n"
        "@node\n"
        "async def value(a: int) -> int:\n"
        "    for _ in range(3):\n"
        "        print('x' * 100_000, flush=True)\n"
        "    return a\n"
    )
    with unread() as writer:
        done = lead("run", graph, *NODES, cwd=tmp_path, stdout=writer)
    assert (done.returncode, done.stderr.count("Error")) == (0, 0)


def test_a_terminal_that_is_gone_has_no_reader(tmp_path: Path) -> None:
    reader, terminal = pty.openpty()
    os.close(reader)
    done = lead("run", write_graph(tmp_path, "loud"), *NODES, cwd=tmp_path, stdout=terminal)
    os.close(terminal)
    assert done.returncode == 0
    assert "Error" not in done.stderr


@full_device
@pytest.mark.parametrize(
    ("node", "more", "code"),
    [("value", (), 74), ("value", ("--json",), 74), ("loud", ("--quiet",), 74), ("fails", ("--json",), 1)],
)
def test_a_full_device_is_told_in_one_line(tmp_path: Path, node: str, code: int, more: tuple[str, ...]) -> None:
    with FULL.open("w") as full:
        done = lead("run", write_graph(tmp_path, node), *NODES, *more, cwd=tmp_path, stdout=full)
    assert done.returncode == code
    told = [line for line in done.stderr.splitlines() if "standard output could not be written" in line]
    assert told == ["Error: standard output could not be written: No space left on device. Make room, or lead it elsewhere."]
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


@full_device
def test_messages_that_a_full_device_does_not_take_change_nothing(tmp_path: Path) -> None:
    with FULL.open("w") as full:
        done = lead("run", write_graph(tmp_path, "loud"), *NODES, "--json", cwd=tmp_path, stderr=full)
    assert (done.returncode, json.loads(done.stdout)["outputs"]) == (0, {"out": [1]})


@full_device
@pytest.mark.plugin
def test_commands_of_plugins_end_likewise(tmp_path: Path) -> None:
    with FULL.open("w") as full:
        assert lead("runs", "--json", cwd=tmp_path, stdout=full).returncode == 74
    assert shell(">&-", "runs", cwd=tmp_path).returncode == 0
    assert shell("2>&-", "show", "nothing", cwd=tmp_path).returncode == 5


def test_a_run_that_is_left_keeps_its_code_without_streams(tmp_path: Path) -> None:
    graph = write_graph(tmp_path, "sleeps")
    command = ["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *COMMAND, "run", graph, *NODES]
    with subprocess.Popen(command, cwd=tmp_path, env=environment()) as process:
        while not (tmp_path / "waiting").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 143


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_the_encoding_of_standard_output_lacks_is_escaped(tmp_path: Path, encoding: str) -> None:
    graph = write_graph(tmp_path, "value")
    name = os.fsdecode(b"\xc5\x81\xff.json")  # one that no text names, as a file may have it
    (tmp_path / graph).rename(tmp_path / name)
    env = environment(PYTHONIOENCODING=encoding)
    done = workflow("validate", name, "--nodes", "nodes.py", cwd=tmp_path, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("\\udcff.json: valid, 3 nodes, 2 edges\n")


@pytest.mark.plugin
def test_commands_of_plugins_escape_it_too(tmp_path: Path) -> None:
    graph = write_graph(tmp_path, "value")
    assert workflow("run", graph, *NODES, "--enable", "checkpoint", "--run-id", "Łódź", cwd=tmp_path).returncode == 0
    env = environment(PYTHONIOENCODING="latin-1:strict")
    done = subprocess.run([*COMMAND, "runs"], cwd=tmp_path, env=env, capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout.splitlines()[1].split()[0]) == (0, "\\u0141ód\\u017a".encode("latin-1"))


@pytest.mark.parametrize("more", [(), ("--json",)], ids=["text", "json"])
@pytest.mark.parametrize(
    "deed",
    [
        "with sys.stdout: print('said')",
        "with sys.stderr: print('said')",
        "io.TextIOWrapper(sys.stdout.buffer).close()",
        "sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding='utf-8')",
        "sys.stdout = codecs.getwriter('utf-8')(sys.stdout.buffer)",
    ],
)
def test_a_node_may_close_standard_streams_or_put_its_own_there(tmp_path: Path, deed: str, more: tuple[str, ...]) -> None:
    graph = write_graph(tmp_path, "value")
    (tmp_path / "nodes.py").write_text(
        "import codecs, io, sys\n"
        "from workflow_runner import node\n"
        "@node\n"
        "async def value(a: int) -> int:\n"
        f"    {deed}\n"
        "    print('said later')\n"
        "    return a\n"
    )
    done = workflow("run", graph, *NODES, *more, cwd=tmp_path)
    assert (done.returncode, "Error" in done.stderr) == (0, False)
    assert "said later" in (done.stderr if more else done.stdout)
    assert json.loads(done.stdout)["outputs"] == {"out": [1]} if more else done.stdout.endswith("out: 1\n")


@pytest.mark.parametrize("more", [(), ("--json",)], ids=["text", "json"])
def test_a_node_that_switches_standard_streams_off_hides_no_end(tmp_path: Path, more: tuple[str, ...]) -> None:
    graph = write_graph(tmp_path, "value")
    (tmp_path / "nodes.py").write_text(
        "import sys\n"
        "from workflow_runner import node\n"
        "@node\n"
        "async def value(a: int) -> int:\n"
        "    sys.stdout = sys.stderr = None\n"
        "    print('said by nobody')\n"
        "    return 1 // a\n"
    )
    done = workflow("run", graph, *NODES, *more, cwd=tmp_path)
    assert (done.returncode, "Error" in done.stderr, "said" in done.stdout) == (0, False, False)
    assert json.loads(done.stdout)["outputs"] == {"out": [1]} if more else done.stdout == "out: 1\n"
    failed = workflow("run", graph, "--nodes", "nodes.py", "--input", "a=0", *more, cwd=tmp_path)
    assert (failed.returncode, "ZeroDivisionError" in failed.stderr, "Traceback" in failed.stderr) == (1, True, False)
    assert json.loads(failed.stdout)["status"] == "failed" if more else failed.stdout == ""


def test_streams_of_who_called_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    own = io.StringIO()
    monkeypatch.setattr(sys, "stdout", own)
    with standard_streams():
        print("said")
    assert (sys.stdout, own.getvalue()) == (own, "said\n")
    monkeypatch.setattr(sys, "stdout", None)
    assert settle(3) == 3
