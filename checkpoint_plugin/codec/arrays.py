"""Arrays and scalars of numpy: dtype, shape, order and byte order exactly, elements as raw bytes."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from math import prod
from struct import Struct
from typing import Any, Final

import numpy
import ormsgpack

from checkpoint_plugin.codec.foreign import Foreign, Pack, Unpack
from checkpoint_plugin.codec.tags import Tag

__all__ = ["encode_array", "find_array", "read_array", "read_numpy_scalar"]

LENGTH: Final = Struct(">I")
PLAIN: Final = re.compile(
    r"[<>][fc][248]|[<>]c16|[|<>][biu][1248]|[|<>][SUV][1-9]\d*|[<>][iIqQ]"
    r"|[<>][mM]8(\[\d*(Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])?"
)
"""What a dtype without fields is stored as: numpy's own short form, or a type code of C that has one size everywhere."""
MAX_NESTING: Final = 16
MAX_PADDING: Final = 64
"""Times that a structured dtype may be larger than its fields: a few bytes cannot ask for gigabytes."""


def find_array(kind: type) -> Foreign | None:
    """How arrays and scalars are stored; `None` for other classes, such as subclasses of the array."""
    if kind is numpy.ndarray:
        return encode_array
    return encode_scalar if issubclass(kind, numpy.generic) and kind.__module__ == "numpy" else None


def encode_array(value: Any, pack: Pack | None = None) -> tuple[Tag, bytes]:
    """An array's tag and bytes.

    Raises:
        TypeError: its dtype cannot be stored exactly.
    """
    order = "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"
    head = ormsgpack.packb([_describe(value.dtype, 0), list(value.shape), order])
    columns = list(_columns(value, order))
    if value.nbytes > MAX_PADDING * sum(map(len, columns)):
        raise TypeError("its dtype is mostly padding. Pack it first: numpy.lib.recfunctions.repack_fields.")
    return Tag.ARRAY, b"".join((LENGTH.pack(len(head)), head, *columns))


def encode_scalar(value: Any, pack: Pack | None = None) -> tuple[Tag, bytes]:
    """A scalar's tag and bytes, which are those of an array without dimensions; text and bytes may end in NUL.

    Raises:
        TypeError: its dtype cannot be stored exactly.
    """
    if type(value) is numpy.str_:
        return Tag.NUMPY_SCALAR, b"U" + str.encode(value, "utf-8", "surrogatepass")
    if type(value) is numpy.bytes_:
        return Tag.NUMPY_SCALAR, b"S" + bytes(value)
    data = b"A" + encode_array(numpy.asarray(value))[1]
    if type(read_numpy_scalar(data)) is not type(value):
        raise TypeError(f"it would come back as {type(read_numpy_scalar(data)).__name__}. Convert it to that first.")
    return Tag.NUMPY_SCALAR, data


def read_array(data: bytes, unpack: Unpack | None = None) -> Any:
    """The array of bytes, in memory of its own.

    Raises:
        ValueError, TypeError: they are not those of an array.
    """
    (length,) = LENGTH.unpack_from(data)
    start = LENGTH.size + length
    description, shape, order = ormsgpack.unpackb(data[LENGTH.size : start])
    dtype = _build(description, 0)
    if order not in ("C", "F") or not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError("an array has no shape")
    stored = len(data) - start
    if dtype.itemsize * prod(shape) > MAX_PADDING * stored:
        raise ValueError("an array is larger than its elements")
    found = numpy.zeros(shape, dtype, order=order)
    for column in _leaves(found):
        size = column.size * column.dtype.itemsize
        if start + size > len(data):
            raise ValueError("elements of an array are missing")
        if size:
            elements = numpy.frombuffer(data, column.dtype, column.size, start)
            column[...] = elements.reshape(column.shape, order=order)
        start += size
    if start != len(data):
        raise ValueError("an array has too many elements")
    return found


def read_numpy_scalar(data: bytes, unpack: Unpack | None = None) -> Any:
    """The scalar of bytes.

    Raises:
        ValueError, TypeError: they are not those of a scalar.
    """
    match data[:1]:
        case b"U":
            return numpy.str_(data[1:].decode("utf-8", "surrogatepass"))
        case b"S":
            return numpy.bytes_(data[1:])
        case b"A":
            found = read_array(data[1:])
            if found.shape == ():
                return found[()]
    raise ValueError("a scalar of numpy is none")


def _columns(value: Any, order: str) -> Iterator[Any]:
    """The elements as buffers, field by field: what lies between the fields is no value."""
    for column in _leaves(value):
        flat = numpy.ravel(column, order=order)
        yield flat.view(numpy.uint8).data if flat.size else b""


def _leaves(value: Any) -> Iterator[Any]:
    """The array, or the arrays of its fields, down to those without fields."""
    if value.dtype.names is None:
        yield value
        return
    for name in value.dtype.names:
        yield from _leaves(value[name])


def _describe(dtype: Any, depth: int) -> Any:
    """A dtype as plain values that mean the same to every version and platform."""
    if dtype.hasobject:
        raise TypeError(f"its dtype {dtype} holds Python objects. Use a list, or a dtype without objects.")
    if not dtype.itemsize or dtype.names == ():
        raise TypeError(f"its dtype {dtype} has elements without any content. Store its shape, or give it fields of some size.")
    if depth > MAX_NESTING:
        raise TypeError(f"its dtype is nested deeper than {MAX_NESTING} levels. Flatten it.")
    if dtype.metadata is not None:
        raise TypeError(f"the metadata of its dtype {dtype} would be lost. Convert it to a dtype without.")
    found: Any
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        found = ["array", _describe(base, depth + 1), list(shape)]
    elif dtype.names is not None:
        fields = []
        for name in dtype.names:
            field, offset, *title = dtype.fields[name]
            fields.append([name, _describe(field, depth + 1), offset, *title])
        found = ["fields", dtype.itemsize, dtype.isalignedstruct, fields]
    else:
        found = _short_form(dtype)
    built = _build(found, depth)
    if built != dtype or built.type is not dtype.type or built.isalignedstruct != dtype.isalignedstruct:
        raise TypeError(f"its dtype {dtype!r} would come back as {built!r}. Convert it to that first.")
    return found


def _short_form(dtype: Any) -> str:
    form: str = dtype.str
    if PLAIN.fullmatch(form) and numpy.dtype(form).num != dtype.num:  # two types of C that are one size here
        order = dtype.byteorder.replace("=", "<" if sys.byteorder == "little" else ">")
        form = f"{order}{dtype.char}"
    if not PLAIN.fullmatch(form):
        raise TypeError(f"its dtype {dtype!r} is not the same on every platform. Convert it, for example to float64.")
    return form


def _build(found: Any, depth: int) -> Any:
    """The dtype that was described."""
    if isinstance(found, str) and PLAIN.fullmatch(found):
        return numpy.dtype(found)
    if depth > MAX_NESTING:
        raise ValueError("a dtype is nested too deeply")
    kind, *rest = found
    if kind == "array":
        base, shape = rest
        if not all(type(size) is int and size > 0 for size in shape):
            raise ValueError("a field of an array has no shape")
        return numpy.dtype((_build(base, depth + 1), tuple(shape)))
    if kind != "fields":
        raise ValueError("a dtype is unknown")
    itemsize, aligned, fields = rest
    if type(itemsize) is not int or type(aligned) is not bool or not fields:
        raise ValueError("a dtype has no fields")
    names, formats, offsets, titles = [], [], [], []
    for name, field, offset, *title in fields:
        if not isinstance(name, str) or type(offset) is not int or not all(isinstance(word, str) for word in title):
            raise ValueError("a field of a dtype has no name")
        names.append(name)
        formats.append(_build(field, depth + 1))
        offsets.append(offset)
        titles.append(title[0] if title else None)
    layout = {"names": names, "formats": formats, "offsets": offsets, "titles": titles, "itemsize": itemsize}
    return numpy.dtype(layout, align=aligned)
