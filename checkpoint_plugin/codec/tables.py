"""Tables and record batches of Arrow, in the stream format of its IPC."""

from __future__ import annotations

from typing import Any

import pyarrow
from pyarrow import ipc

from checkpoint_plugin.codec.arrow_messages import refuse_compressed
from checkpoint_plugin.codec.foreign import Foreign, Pack, Unpack
from checkpoint_plugin.codec.tags import Tag

__all__ = ["find_table", "read_table"]

OLDEST = 15
"""Before pyarrow 14.0.1, reading a stream could unpickle what it held (CVE-2023-47248)."""


def find_table(kind: type) -> Foreign | None:
    """How tables and batches are stored; `None` for other classes."""
    return encode_table if kind is pyarrow.Table or kind is pyarrow.RecordBatch else None


def encode_table(value: Any, pack: Pack) -> tuple[Tag, bytes]:
    """A table's tag and bytes.

    Raises:
        TypeError: it would not come back equal.
    """
    is_table = isinstance(value, pyarrow.Table)
    data = (b"T" if is_table else b"B") + _stream(value)
    try:
        back = read_table(data)
    except ValueError as error:
        raise TypeError(f"Arrow does not read what it wrote of it ({error}). Convert its columns to other types.") from error
    # A NaN equals nothing, so a table that holds one equals its copy only in what is written of both.
    same = back.schema.equals(value.schema, check_metadata=True)
    if not same or (not back.equals(value) and _stream(back) != data[1:]):
        raise TypeError("it does not come back equal from Arrow's stream format. Convert its columns to other types.")
    return Tag.ARROW, data


def read_table(data: bytes, unpack: Unpack | None = None) -> Any:
    """The table of bytes.

    Raises:
        ValueError: they are not those of a table.
    """
    if int(pyarrow.__version__.partition(".")[0]) < OLDEST:
        raise ValueError(f"pyarrow {pyarrow.__version__} is too old to read tables safely; install {OLDEST} or newer")
    try:
        stream = pyarrow.py_buffer(data[1:])
        refuse_compressed(stream)
        found = ipc.open_stream(stream).read_all()
        if data[:1] == b"B":
            batches = found.to_batches()
            found = batches[0] if batches else pyarrow.RecordBatch.from_pylist([], schema=found.schema)
        elif data[:1] != b"T":
            raise ValueError("a table is of an unknown kind")
        found.validate(full=True)
    except (pyarrow.ArrowException, OSError, RuntimeError) as error:
        raise ValueError(f"a table is not what was written ({error})") from error
    return found


def _stream(value: Any) -> bytes:
    sink = pyarrow.BufferOutputStream()
    try:
        with ipc.new_stream(sink, value.schema) as writer:
            writer.write(value)
    except (pyarrow.ArrowException, NotImplementedError) as error:
        raise TypeError(f"Arrow cannot write it ({error}). Convert its columns to other types.") from error
    data: bytes = sink.getvalue().to_pybytes()
    return data
