"""Values of other libraries: found by the module of their class, so that none is imported that is not in use."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

from checkpoint_plugin.codec.tags import Tag
from checkpoint_plugin.errors import ValueNotReadable

__all__ = ["EXTRAS", "Foreign", "Pack", "Unpack", "find_foreign", "foreign_mend", "read_foreign"]

Pack = Callable[[str, Any], bytes]
"""Encodes a value that stands in another; the first argument is the step to it in words, for an error."""
Unpack = Callable[[bytes], Any]
Foreign = Callable[[Any, Pack], tuple[Tag, bytes]]
"""Gives a value's tag and bytes.

Raises TypeError when it would not come back exactly.
"""
EXTRAS: Final = {Tag.ARRAY: "numpy", Tag.NUMPY_SCALAR: "numpy", Tag.ARROW: "arrow", Tag.PANDAS: "arrow", Tag.IMAGE: "images"}
"""The extra of the distribution that brings the library of a tag."""
LIBRARIES: Final = {
    "numpy": "Of numpy, arrays and scalars can be stored: convert it with numpy.asarray first.",
    "pandas": "Of pandas, DataFrame, Series, Index, Timestamp and Timedelta can be stored: convert it to one of them first.",
    "pyarrow": "Of Arrow, Table and RecordBatch can be stored: convert it to one of them first.",
    "PIL": "Of PIL, Image.Image can be stored: take image.copy() of one that was opened from a file.",
}
"""What to say of other classes of a library."""


def find_foreign(kind: type) -> Foreign | None:
    """How values of a library's class are stored; `None` when it is not one of those that are known."""
    root = kind.__module__.partition(".")[0]
    if root not in LIBRARIES or root not in sys.modules:
        return None
    if root == "numpy":
        from checkpoint_plugin.codec.arrays import find_array

        return find_array(kind)
    if root == "pandas":
        from checkpoint_plugin.codec.frames import find_frame

        return find_frame(kind)
    if root == "pyarrow":
        from checkpoint_plugin.codec.tables import find_table

        return find_table(kind)
    from checkpoint_plugin.codec.images import find_image

    return find_image(kind)


def foreign_mend(kind: type) -> str | None:
    """What to do with a value of a library whose class cannot be stored, if there is something to say."""
    root = kind.__module__.partition(".")[0]
    return LIBRARIES.get(root)


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
    try:
        read = _reader(tag)
    except ImportError as error:
        extra = EXTRAS[tag]
        what = f"it needs the library {error.name!r}, which is not installed"
        raise ValueNotReadable(f"{what}. Install it: pip install 'workflow-checkpoint[{extra}]'") from error
    return read(data, unpack)


def _reader(tag: Tag) -> Callable[[bytes, Unpack], Any]:
    match tag:
        case Tag.ARRAY:
            from checkpoint_plugin.codec.arrays import read_array

            return read_array
        case Tag.NUMPY_SCALAR:
            from checkpoint_plugin.codec.arrays import read_numpy_scalar

            return read_numpy_scalar
        case Tag.ARROW:
            from checkpoint_plugin.codec.tables import read_table

            return read_table
        case Tag.PANDAS:
            from checkpoint_plugin.codec.frames import read_frame

            return read_frame
        case Tag.IMAGE:
            from checkpoint_plugin.codec.images import read_image

            return read_image
    raise ValueError("it has a part of an unknown kind")
