"""The source text of a node as it was when the node was defined: somebody may edit its file while the process goes on."""

from __future__ import annotations

import ast
import inspect
import linecache
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from tokenize import TokenError
from typing import Any, Final
from weakref import WeakValueDictionary

__all__ = ["Source", "keep_source", "sources_of"]

LIBRARIES: Final = sys.stdlib_module_names | {__name__.partition(".")[0]}
"""Packages whose classes are nobody's node code."""
KEPT: Final = "__node_source__"
"""Where a class of nodes has its own: one that inherits from it may be defined later."""


class SourceFile:
    """The lines of a file as it was when something in it was loaded. What stands in one file shares them.

    Args:
        lines: with their ends; none where there is no file, as in some interactive sessions.
    """

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines = lines

    @cached_property
    def classes(self) -> Mapping[str, Sequence[tuple[int, int]]]:
        """The classes, each by its qualified name, with the first and the last line of every one of that name, in order.

        Raises:
            SyntaxError: these are not the lines of what was loaded.
        """
        found: dict[str, list[tuple[int, int]]] = {}
        for name, first, last in sorted(_classes(ast.parse("".join(self.lines))), key=itemgetter(1)):
            found.setdefault(name, []).append((first, last))
        return found


@dataclass(frozen=True, slots=True)
class Source:
    """A function or class with the file that it stands in.

    Args:
        definition: the function or class.
        file: as it was loaded.
    """

    definition: Any
    file: SourceFile

    @property
    def text(self) -> str:
        """All from its first line, which may be a decorator's, to its last; empty where nobody knows."""
        try:
            first = _first_line(self.definition, self.file)
            return "" if first is None else "".join(inspect.getblock(self.file.lines[first - 1 :]))
        except (SyntaxError, TokenError):  # these are not the lines of what was loaded
            return ""


def sources_of(definition: Any) -> tuple[Source, ...]:
    """What a node is written in: its function, or its class and the classes that it has its fields and body from.

    Args:
        definition: the function or class.
    """
    if not inspect.isclass(definition):
        written = inspect.unwrap(definition)
        return (Source(written, _written_in(written)),)
    bases = [base for base in definition.__mro__[1:] if _is_code(base)]
    return tuple(vars(each).get(KEPT) or Source(each, _written_in(each)) for each in (definition, *bases))


def keep_source(definition: type) -> None:
    """Let a class that has just been defined keep the lines of its file for those that inherit from it.

    Args:
        definition: the class.
    """
    if _is_code(definition):
        setattr(definition, KEPT, Source(definition, _written_in(definition)))


def _is_code(definition: type) -> bool:
    return definition.__module__.partition(".")[0] not in LIBRARIES


_NEWEST: Final[WeakValueDictionary[str, SourceFile]] = WeakValueDictionary()
"""By the path, as long as a node of the file lives."""


def _written_in(definition: Any) -> SourceFile:
    path = _path_of(definition)
    if path is None:
        return SourceFile(())
    linecache.checkcache(path)  # it may have been loaded before, and edited since
    module = sys.modules.get(definition.__module__)
    lines = linecache.getlines(path, None if module is None else vars(module))
    file = _NEWEST.get(path)
    if file is None or file.lines is not lines:
        file = _NEWEST[path] = SourceFile(lines)
    return file


def _path_of(definition: Any) -> str | None:
    try:
        return inspect.getsourcefile(definition) or inspect.getfile(definition)
    except (OSError, TypeError):
        return None


def _first_line(definition: Any, written: SourceFile) -> int | None:
    """From 1; `None` where it is not found."""
    if not inspect.isclass(definition):
        code = getattr(definition, "__code__", None)
        return None if code is None else code.co_firstlineno
    known: int | None = vars(definition).get("__firstlineno__")  # from Python 3.13 on
    if known is not None:
        return known
    spans = written.classes.get(definition.__qualname__, ())
    path, codes = _path_of(definition), [each.__code__ for each in vars(definition).values() if inspect.isfunction(each)]
    own = [code.co_firstlineno for code in codes if code.co_filename == path]  # the others a decorator has made
    made = (first for first, last in spans if any(first <= line <= last for line in own))
    return next(made, spans[0][0] if spans else None)


def _classes(tree: ast.AST) -> Iterator[tuple[str, int, int]]:
    """The classes of a file in any order, each by its qualified name, with its first line and its last."""
    left = [(tree, "")]
    while left:  # each `elif` lies within the one before, deeper than calls may
        part, within = left.pop()
        for inner in ast.iter_child_nodes(part):
            inside = within
            if isinstance(inner, ast.ClassDef):
                first = inner.decorator_list[0] if inner.decorator_list else inner
                yield f"{within}{inner.name}", first.lineno, inner.end_lineno or inner.lineno
                inside = f"{within}{inner.name}."
            elif isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                inside = f"{within}{inner.name}.<locals>."
            if not isinstance(inner, ast.expr):
                left.append((inner, inside))
