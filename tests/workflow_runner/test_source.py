"""What tells whether the code of a node is what it was."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from types import ModuleType

import pytest

from workflow_runner import Node, node
from workflow_runner.node import node_type_of
from workflow_runner.registry import NodeRegistry

MODULE = dedent('''
    """Nodes."""

    from workflow_runner import Node, node

    def named(name):
        def name_it(item):
            return item
        return name_it

    class Doubled(Node):
        x: int

        async def process(self) -> int:
            return self.x * 2

    @named("a")
    class Kept(Doubled):
        pass

    @node
    async def tripled(x: int) -> int:
        return x * 3
''')
TYPES = ("nodes.Kept", "nodes.tripled")


def written(folder: Path, text: str) -> Path:
    folder.mkdir()
    path = folder / "nodes.py"
    path.write_text(text, encoding="utf-8")
    return path


def fingerprint(path: Path, name: str) -> str:
    found = NodeRegistry([path]).find(name)
    assert found is not None
    return found.fingerprint


@pytest.mark.parametrize("name", TYPES)
def test_a_node_goes_by_what_was_loaded_though_its_file_was_edited_since(tmp_path: Path, name: str) -> None:
    loaded = written(tmp_path / "loaded", MODULE)
    NodeRegistry([loaded]).load()
    loaded.write_text(MODULE.replace("x * 2", "x + 22").replace("x * 3", "x + 33").replace("Nodes.", "Nodes,\nedited."))
    assert fingerprint(loaded, name) == fingerprint(written(tmp_path / "same", MODULE), name) != ""


@pytest.mark.parametrize(
    ("name", "before", "after", "counts"),
    [
        pytest.param("nodes.Kept", "x * 2", "x + 2", True, id="a body that it inherits"),
        pytest.param("nodes.Kept", "x: int\n\n", "x: float\n\n", True, id="a field that it inherits"),
        pytest.param("nodes.Kept", '@named("a")', '@named("b")', True, id="a decorator of its class"),
        pytest.param("nodes.tripled", "x * 3", "x + 3", True, id="its body"),
        pytest.param("nodes.Kept", "x * 3", "x + 3", False, id="another node's body"),
        pytest.param("nodes.tripled", '"""Nodes."""', '"""Nodes,\nmoved down."""', False, id="where it stands"),
    ],
)
def test_what_counts_as_the_code_of_a_node(tmp_path: Path, name: str, before: str, after: str, counts: bool) -> None:
    assert before in MODULE
    one = written(tmp_path / "one", MODULE)
    other = written(tmp_path / "other", MODULE.replace(before, after))
    assert (fingerprint(one, name) != fingerprint(other, name)) is counts


def kept(function: Callable[..., object]) -> Callable[..., object]:
    return function


@node
@kept
async def decorated(x: int) -> int:
    """A body with what comes before it."""
    return x


class Outer:
    class Inner(Node):
        x: int

        async def process(self) -> int:
            return self.x


@pytest.mark.parametrize("item", [decorated, Outer.Inner])
def test_the_text_of_a_node_is_all_that_is_written_of_it(item: object) -> None:
    found = node_type_of(item)
    assert found is not None
    assert [source.text for source in found.sources] == [inspect.getsource(found.definition)]


def test_a_node_that_stands_in_no_file_has_no_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("nowhere")
    monkeypatch.setitem(sys.modules, "nowhere", module)
    exec("from workflow_runner import Node, node\n@node\nasync def made(x: int) -> int: return x", vars(module))
    exec("class Made(Node):\n  x: int\n  async def process(self) -> int: return self.x", vars(module))
    found = [node_type_of(vars(module)[name]) for name in ("made", "Made")]
    assert [None if each is None else each.fingerprint for each in found] == ["", ""]
