"""Docstrings of what is exported name the arguments of the signature, and the errors that are raised."""

from __future__ import annotations

import ast
import builtins
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any

import pytest

import checkpoint_plugin
import hookspecs
import workflow_runner

PACKAGES = (hookspecs, workflow_runner, checkpoint_plugin)
SECTION = r"^{}:\n((?:    .*\n|\n)+)"


def exported() -> Iterator[tuple[str, Any]]:
    for package in PACKAGES:
        for name in package.__all__:
            yield f"{package.__name__}.{name}", getattr(package, name)


def methods(kind: type) -> Iterator[tuple[str, FunctionType]]:
    """Public methods of a class that this project has written, its own and those of its bases."""
    for name in dir(kind):
        owner = next((base for base in kind.__mro__ if name in vars(base)), kind)
        if name.startswith("_") or owner.__module__.partition(".")[0] not in {package.__name__ for package in PACKAGES}:
            continue
        found = vars(owner)[name]
        found = found.__func__ if isinstance(found, classmethod | staticmethod) else found
        if inspect.isfunction(found):
            yield name, found


CLASSES = {name: item for name, item in exported() if inspect.isclass(item) and "__init__" in vars(item)}
FUNCTIONS: dict[str, Callable[..., Any]] = {name: item for name, item in exported() if inspect.isfunction(item)}
for name, item in list(exported()):
    if inspect.isclass(item):
        FUNCTIONS.update((f"{name}.{method}", function) for method, function in methods(item))


def section(title: str, item: Any) -> str | None:
    found = re.search(SECTION.format(title), (inspect.getdoc(item) or "") + "\n", re.MULTILINE)
    return textwrap.dedent(found[1]) if found else None


@pytest.mark.parametrize("name", [name for name, item in (CLASSES | FUNCTIONS).items() if section("Args", item)])
def test_every_argument_is_told(name: str) -> None:
    item = (CLASSES | FUNCTIONS)[name]
    told = re.findall(r"^(\w+):", section("Args", item) or "", re.MULTILINE)
    parameters = inspect.signature(item.__init__ if inspect.isclass(item) else item).parameters
    assert told == [parameter for parameter in parameters if parameter not in ("self", "cls")]


@pytest.mark.parametrize("name", [name for name, item in CLASSES.items() if issubclass(item, BaseException)])
def test_errors_tell_what_they_are_made_of(name: str) -> None:
    assert section("Args", CLASSES[name])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_errors_that_are_raised_are_told(name: str) -> None:
    function = FUNCTIONS[name]
    [tree] = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    told = section("Raises", function) or ""
    for statement in ast.walk(tree):
        if not isinstance(statement, ast.Raise) or not isinstance(statement.exc, ast.Call):
            continue
        called = ast.unparse(statement.exc.func)
        error: object = vars(sys.modules[function.__module__]).get(called, getattr(builtins, called, None))
        if inspect.isclass(error):
            assert any(re.search(rf"\b{kind.__name__}\b", told) for kind in error.__mro__), called
