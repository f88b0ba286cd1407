"""What tells whether the code of a node is what it was."""

from __future__ import annotations

import ast
import importlib
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


TWO = dedent("""
    from workflow_runner import Node

    if {first}:
        class Chosen(Node):
            x: int

            async def process(self) -> int:
                return self.x + 1
    else:
        class Chosen(Node):
            x: int

            async def process(self) -> int:
                return self.x + 2
""")


@pytest.mark.parametrize(("first", "body"), [("True", "self.x + 1"), ("False", "self.x + 2")])
def test_of_two_classes_of_one_name_the_text_is_that_of_the_one_that_was_made(tmp_path: Path, first: str, body: str) -> None:
    found = NodeRegistry([written(tmp_path / "two", TWO.replace("{first}", first))]).find("nodes.Chosen")
    assert found is not None
    (source,) = found.sources
    assert source.text.rstrip().endswith(body)


def test_a_file_is_parsed_once_for_all_its_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classes = "".join(f"class N{n}(Node):\n    async def process(self) -> int:\n        return {n}\n" for n in range(20))
    registry = NodeRegistry([written(tmp_path / "many", f"from workflow_runner import Node\n{classes}")])
    registry.load()
    parsed: list[str] = []
    parse = ast.parse

    def counted(text: str) -> ast.Module:
        parsed.append(text)
        return parse(text)

    found = [registry.find(f"nodes.N{n}") for n in range(20)]
    with monkeypatch.context() as patched:
        patched.setattr(ast, "parse", counted)
        fingerprints = {item.fingerprint for item in found if item is not None}
    assert len(fingerprints) == 20
    assert len(parsed) == (1 if sys.version_info < (3, 13) else 0)  # newer ones know their lines


def test_a_class_is_found_in_a_file_that_is_nested_as_deeply_as_python_reads(tmp_path: Path) -> None:
    """To Python each `elif` lies within the one before."""
    choice = "".join(f"elif {number} < 0:\n    pass\n" for number in range(1_500))
    path = written(tmp_path / "deep", f"if False:\n    pass\n{choice}{MODULE}")
    assert fingerprint(path, "nodes.Kept") == fingerprint(written(tmp_path / "flat", MODULE), "nodes.Kept") != ""


BASE = dedent("""
    from workflow_runner import Node

    class Doubled(Node):
        x: int

        def twice(self) -> int:
            return self.x * 2
""")
LATER = dedent("""
    from bases_of_nodes import Doubled

    class Later(Doubled):
        async def process(self) -> int:
            return self.twice()
""")


def test_what_a_node_inherits_is_what_was_loaded_though_its_file_was_edited_before_the_node_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "bases_of_nodes", raising=False)
    (tmp_path / "bases_of_nodes.py").write_text(BASE, encoding="utf-8")
    importlib.import_module("bases_of_nodes")
    (tmp_path / "bases_of_nodes.py").write_text(BASE.replace("x * 2", "x + 22"), encoding="utf-8")
    found = NodeRegistry([written(tmp_path / "later", LATER)]).find("nodes.Later")
    assert found is not None
    assert "self.x * 2" in found.sources[1].text


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
