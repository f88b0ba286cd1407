"""Text as one word of a command line that people may copy."""

from __future__ import annotations

from shlex import quote
from typing import Final

__all__ = ["shell_word"]

ESCAPES: Final = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\t": "\\t"}


def shell_word(text: str) -> str:
    """The word of a shell that stands for a text, on one line: `$'…'`, where it holds what is not printed as it is.

    Args:
        text: any; names of nodes and inputs may hold line breaks.
    """
    if text.isprintable():
        return quote(text)
    return f"$'{''.join(map(_escaped, text))}'"


def _escaped(character: str) -> str:
    if character in ESCAPES:
        return ESCAPES[character]
    return character if character.isprintable() else f"\\U{ord(character):08x}"
