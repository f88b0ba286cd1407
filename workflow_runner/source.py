"""The source text of a node as it was when the node was defined: somebody may edit its file while the process goes on."""

from __future__ import annotations

import ast
import inspect
import linecache
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from tokenize import TokenError
from typing import Any, Final

__all__ = ["Source", "sources_of"]

LIBRARIES: Final = sys.stdlib_module_names | {__name__.partition(".")[0]}
"""Packages whose classes are nobody's node code."""


@dataclass(frozen=True, slots=True)
class Source:
    """A function or class with the lines of the file that it stands in.

    Args:
        definition: the function or class.
        lines: of its file; none where there is no file, as in some interactive sessions. Nodes of one file share them.
    """

    definition: Any
    lines: Sequence[str] = field(repr=False)

    @property
    def text(self) -> str:
        """All from its first line, which may be a decorator's, to its last; empty where nobody knows."""
        try:
            first = _first_line(self.definition, self.lines)
            return "" if first is None else "".join(inspect.getblock(self.lines[first - 1 :]))
        except (SyntaxError, TokenError):  # these are not the lines of what was loaded
            return ""


def sources_of(definition: Any) -> tuple[Source, ...]:
    """What a node is written in: its function, or its class and the classes that it has its fields and body from.

    Args:
        definition: the function or class.
    """
    if not inspect.isclass(definition):
        written = inspect.unwrap(definition)
        return (Source(written, _lines_of(written)),)
    bases = [base for base in definition.__mro__[1:] if base.__module__.partition(".")[0] not in LIBRARIES]
    return tuple(Source(each, _lines_of(each)) for each in (definition, *bases))


def _lines_of(definition: Any) -> Sequence[str]:
    try:
        file = inspect.getsourcefile(definition) or inspect.getfile(definition)
    except (OSError, TypeError):
        return ()
    linecache.checkcache(file)  # it may have been loaded before, and edited since
    module = sys.modules.get(definition.__module__)
    return linecache.getlines(file, None if module is None else vars(module))


def _first_line(definition: Any, lines: Sequence[str]) -> int | None:
    """From 1; `None` where it is not found."""
    if not inspect.isclass(definition):
        code = getattr(definition, "__code__", None)
        return None if code is None else code.co_firstlineno
    known: int | None = vars(definition).get("__firstlineno__")  # from Python 3.13 on
    if known is not None:
        return known
    return next((line for name, line in _classes(ast.parse("".join(lines))) if name == definition.__qualname__), None)


def _classes(tree: ast.AST, within: str = "") -> Iterator[tuple[str, int]]:
    """The classes below a part of a file, each by its qualified name and with its first line."""
    for part in ast.iter_child_nodes(tree):
        inside = within
        if isinstance(part, ast.ClassDef):
            yield f"{within}{part.name}", part.decorator_list[0].lineno if part.decorator_list else part.lineno
            inside = f"{within}{part.name}."
        elif isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
            inside = f"{within}{part.name}.<locals>."
        if not isinstance(part, ast.expr):
            yield from _classes(part, inside)
