"""Values of other libraries: found by the module of their class, so that none is imported that is not in use."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

from checkpoint_plugin.codec.tags import Tag
from checkpoint_plugin.errors import ValueNotReadable

__all__ = ["Foreign", "Pack", "Unpack", "find_foreign", "foreign_mend", "read_foreign"]

Pack = Callable[[str, Any], bytes]
"""Encodes a value that stands in another; the first argument is the step to it in words, for an error."""
Unpack = Callable[[bytes], Any]
Foreign = Callable[[Any, Pack], tuple[Tag, bytes]]
"""Gives a value's tag and bytes.

Raises TypeError when it would not come back exactly.
"""
EXTRAS: Final = {Tag.ARRAY: "numpy", Tag.NUMPY_SCALAR: "numpy", Tag.ARROW: "arrow", Tag.PANDAS: "arrow", Tag.IMAGE: "images"}


def find_foreign(kind: type) -> Foreign | None:
    """How values of a library's class are stored; `None` when it is not one of those that are known."""
    root = kind.__module__.partition(".")[0]
    if root not in sys.modules:
        return None
    return None


def foreign_mend(kind: type) -> str | None:
    """What to do with a value of a library whose class cannot be stored, if there is something to say."""
    return None


def read_foreign(tag: Tag, data: bytes, unpack: Unpack) -> Any:
    """The value of a library.

    Args:
        tag: of the library.
        data: what was stored.
        unpack: reads a value that stands in it.

    Raises:
        ValueNotReadable: the library is not installed.
        ValueError, TypeError: the bytes are not what was written.
    """
    extra = EXTRAS[tag]
    raise ValueNotReadable(f"it needs a library that is not installed. Install it: pip install 'workflow-checkpoint[{extra}]'")
