from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import environment, workflow, write_graph

DEEP = "[" * 900 + "]" * 900


def run(folder: Path, node: str, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return workflow("run", write_graph(folder, node, **more), "--nodes", "nodes.py", *arguments, cwd=folder)


def document(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The one object on standard output."""
    found = json.loads(done.stdout)
    assert list(found) == ["run_id", "status", "outputs", "error"]
    assert done.stdout.count("\n") == 1
    assert isinstance(found, dict)
    return found


def test_a_completed_run(tmp_path: Path) -> None:
    done = run(tmp_path, "count", "--input", "a=3", "--run-id", "my run", "--json")
    assert done.returncode == 0
    assert document(done) == {"run_id": "my run", "status": "completed", "outputs": {"out": [0, 1, 2]}, "error": None}
    assert "run my run: completed" in done.stderr


def test_without_json_the_outputs_are_lines(tmp_path: Path) -> None:
    assert run(tmp_path, "value", "--input", 'a={"x": "ü"}').stdout == 'out: {"x": "ü"}\n'
    many = run(tmp_path, "count", "--input", "a=30").stdout.splitlines()
    assert many[:2] == ["out: 30 items", "  0"]
    assert many[-1] == "  … 10 more; --json prints all"


def test_quiet_says_nothing(tmp_path: Path) -> None:
    done = run(tmp_path, "value", "--input", "a=3", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    failed = run(tmp_path, "fails", "--input", "a=3", "--quiet")
    assert failed.stdout == ""
    assert failed.stderr.startswith("Error: node 'body'")


def test_what_a_node_prints_stays_out_of_the_json(tmp_path: Path) -> None:
    done = run(tmp_path, "loud", "--input", "a=3", "--json")
    assert document(done)["outputs"] == {"out": [3]}
    assert "said by a node" in done.stderr
    assert "said by a node" in run(tmp_path, "loud", "--input", "a=3").stdout


def test_values_that_json_lacks_are_tagged(tmp_path: Path) -> None:
    done = run(tmp_path, "oddities", "--input", "a=0", "--json")
    *tagged, mute, unknown = document(done)["outputs"]["out"]
    assert tagged == [
        {"$type": "float", "value": "nan"},
        {"$type": "tuple", "value": [1, 2]},
        {"$type": "bytes", "value": "YWJj"},
        {"$type": "dict", "value": [[1, 2]]},
        {"$type": "dict", "value": [["$type", "x"]]},
        2**70,
    ]
    assert unknown["$type"] == "repr"
    assert mute == {"$type": "repr", "value": "<Mute, whose repr fails: RuntimeError>"}
    assert "<Mute, whose repr fails" in run(tmp_path, "oddities", "--input", "a=0").stdout
    assert "Warning: an output is printed as its repr" in done.stderr


def test_a_node_that_fails(tmp_path: Path) -> None:
    done = run(tmp_path, "fails", "--input", "a=3", "--run-id", "r", "--json")
    assert done.returncode == 1
    assert document(done) == {
        "run_id": "r",
        "status": "failed",
        "outputs": {},
        "error": {"type": "ValueError", "message": "the reason", "node_id": "body"},
    }
    assert "node 'body' of run 'r' failed: ValueError: the reason" in done.stderr
    assert "in fails, " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_node_that_leaves_has_failed(tmp_path: Path) -> None:
    done = run(tmp_path, "leaves", "--input", "a=3", "--json")
    assert done.returncode == 1
    assert document(done)["error"]["type"] == "SystemExit"


def test_the_traceback_comes_on_request(tmp_path: Path) -> None:
    graph = write_graph(tmp_path, "fails")
    done = workflow("run", graph, "--nodes", "nodes.py", "--input", "a=1", cwd=tmp_path, env=environment(WORKFLOW_DEBUG="1"))
    assert "Traceback" in done.stderr


def test_an_input_that_does_not_fit_its_node_is_wrong_usage(tmp_path: Path) -> None:
    done = run(tmp_path, "count", "--input", 'a="3"', "--json")
    assert done.returncode == 2
    assert document(done)["error"]["message"].startswith("input 'a', for 'a' of node 'body': expected int, got '3'")


@pytest.mark.parametrize(
    ("arguments", "kind", "told"),
    [
        ((), "InputInvalid", "'a' is missing"),
        (("--input", "b=1"), "InputInvalid", "no input 'b'"),
        (("--input", "a=word"), "InputInvalid", """Text needs quotes: --input 'a="word"'"""),
        (("--input", "a=NaN"), "InputInvalid", "NaN is not a JSON value"),
        (("--input", 'a={"k": 1, "k": 2}'), "InputInvalid", "the key 'k' stands twice in one object"),
        (("--input", "a"), "InputInvalid", "not NAME=JSON"),
        (("--input", "a=1", "--input", "a=2"), "InputInvalid", "given twice"),
        (("--input", "a=@nowhere.json"), "InputInvalid", "'nowhere.json' cannot be read"),
        (("--input", "a=@nodes.py"), "InputInvalid", "line 2, column 1"),
        (("--input", "a=1", "--run-id", "a/b"), "RunIdInvalid", "no '/'"),
        (("--input", "a=1", "--run-id", ""), "RunIdInvalid", "1 to 200 characters"),
        (("--input", "a=1", "--run-id", ".."), "RunIdInvalid", "'..'"),
        (("--input", "a=1", "--nodes", "other.py"), "NodeModuleError", "other.py"),
        (("--input", "a=1", "--enable", "sampel"), "PluginMissing", "'sampel' is enabled but not installed"),
        (("--input", "a=1", "--enable", "x=[1]"), "UsageError", "found a list"),
        (("--input", "a=1", "--enable", "x={"), "UsageError", "line 1, column 2"),
        (("--input", "a=1", "--enable", "=1"), "UsageError", "not NAME or NAME=JSON"),
        (("--input", "a=1", "-p", "sample"), "UsageError", "not no:NAME"),
        (("--input", "a=1", "--unheard-of"), "UsageError", "--unheard-of"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_wrong_usage(tmp_path: Path, arguments: tuple[str, ...], kind: str, told: str) -> None:
    done = run(tmp_path, "value", *arguments, "--json")
    assert done.returncode == 2
    found = document(done)
    assert found["status"] == "failed"
    assert found["outputs"] == {}
    assert found["error"]["type"] == kind
    assert told in found["error"]["message"]
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_a_module_of_nodes_that_is_not_there_is_told_without_a_line_of_the_import_system(tmp_path: Path) -> None:
    done = workflow("run", write_graph(tmp_path, "value"), "--nodes", "absent", cwd=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("Error: there is no module 'absent'")


def test_a_node_file_that_ends_as_a_script_does_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("import sys\n\nsys.exit(3)\n")
    done = run(tmp_path, "value", "--input", "a=1", "--nodes", "script.py", "--json")
    assert (done.returncode, document(done)["error"]["type"]) == (2, "NodeModuleError")
    assert "script.py, line 3\n" in done.stderr


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "cannot be read: No such file"),
        ('{"nodes": [\n  {"id": }]}', "line 2, column 10"),
        ("[]", "a JSON list, not an object"),
        ("{}", 'needs "nodes"'),
        ('{"nodes": [{"id": "x", "type": "os.system"}]}', "unknown type 'os.system'"),
        ('{"nodes": NaN}', "NaN is not a JSON value"),
        ('{"nodes": [{"id": "x", "type": "t"}], "nodes": []}', "the key 'nodes' stands twice in one object"),
        ("[" * 100_000, "nested too deeply"),
        (
            f'{{"nodes": [{{"id": "x", "type": "t", "data": {{"a": {DEEP}}}}}], "edges": []}}',
            "node 'x': a property is nested too",
        ),
        (f'{{"nodes": [], "edges": [], "enable": {{"p": {{"a": {DEEP}}}}}}}', "`enable`: an option is nested too deeply"),
    ],
    ids=["missing", "syntax", "list", "empty", "type", "nan", "twice", "deep", "deep property", "deep option"],
)
@pytest.mark.parametrize("command", ["run", "validate"])
def test_a_bad_graph(tmp_path: Path, command: str, text: str | None, told: str) -> None:
    if text is not None:
        (tmp_path / "bad.json").write_text(text)
    done = workflow(command, "bad.json", "--json", cwd=tmp_path)
    assert done.returncode == 2
    found = json.loads(done.stdout)
    assert found["error"]["type"] == "GraphInvalid"
    assert told in found["error"]["message"]
    assert command == "run" or (found["valid"] is False and found["problems"])


def test_an_input_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text('{"rows": [1, 2]}', encoding="utf-8-sig")
    done = run(tmp_path, "value", "--input", "a=@rows.json", "--json")
    assert document(done)["outputs"] == {"out": [{"rows": [1, 2]}]}


@pytest.mark.parametrize(
    ("content", "told"),
    [(b'"\xff"', "'a.json' cannot be read: 'utf-8' codec"), (b"[" * 100_000, "nested too deeply"), (b"", "'a.json' is not JSON")],
    ids=["no UTF-8", "deep", "empty"],
)
def test_a_file_that_is_no_input(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "a.json").write_bytes(content)
    done = run(tmp_path, "value", "--input", "a=@a.json", "--json")
    error = document(done)["error"]
    assert (done.returncode, error["type"]) == (2, "InputInvalid")
    assert told in error["message"] and "Traceback" not in done.stderr


def test_without_a_plugin_nothing_is_written(tmp_path: Path) -> None:
    run(tmp_path, "value", "--input", "a=1")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "__pycache__") == ["flow.json", "nodes.py"]
