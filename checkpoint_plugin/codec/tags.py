"""The extensions of the format: what MessagePack lacks is a one-byte tag and bytes."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["MalformedValue", "Tag"]


class MalformedValue(Exception):
    """Raised when bytes are not the encoding of a value."""


class Tag(IntEnum):
    """Extension tags. Stored: never renumber, only add."""

    TUPLE = 1
    SET = 2
    FROZENSET = 3
    DICT = 4
    BIG_INT = 5
    SURROGATES = 6
    BYTEARRAY = 7
    DATETIME = 8
    DATE = 9
    TIME = 10
    TIMEDELTA = 11
    UUID = 12
    DECIMAL = 13
    FRACTION = 14
    COMPLEX = 15
    PATH = 16
    REGISTERED = 17
    ARRAY = 18
    NUMPY_SCALAR = 19
    ARROW = 20
    PANDAS = 21
    IMAGE = 22
