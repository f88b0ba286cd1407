"""Values as bytes and back: a closed set of types, each exactly itself after the round trip.

The bytes are MessagePack. What it lacks is an extension: a one-byte tag from `tags` and the encoding of plain parts.
Nothing in the bytes can name code, and they depend on nothing but the value: sets are written sorted by encoding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from checkpoint_plugin.codec.decoding import decode_outline, decode_value
from checkpoint_plugin.codec.encoding import encode_value, pack_scalars
from checkpoint_plugin.codec.registry import REGISTERED, TypeRegistry, register
from checkpoint_plugin.codec.shapes import TypeRefused
from checkpoint_plugin.codec.tags import MalformedValue
from hookspecs import PluginHost, TeachCodecs

__all__ = [
    "MAX_VALUE_BYTES",
    "Codec",
    "MalformedValue",
    "OutlineCodec",
    "TypeRefused",
    "TypeRegistry",
    "decode",
    "encode",
    "register",
]

MAX_VALUE_BYTES: Final = 268_435_456


@dataclass(frozen=True, slots=True)
class Codec:
    """How the values of one store are written and read.

    Args:
        registry: the types of users and plugins; default: what modules registered when they were imported.
        max_value_bytes: that the encoding of one value may have.
    """

    registry: TypeRegistry = field(default_factory=lambda: REGISTERED)
    max_value_bytes: int = MAX_VALUE_BYTES

    @classmethod
    def taught(cls, teach: TeachCodecs | None = None, max_value_bytes: int = MAX_VALUE_BYTES) -> Codec:
        """With a registry of its own: what modules registered, what installed packages and the plugins of a run teach.

        Args:
            teach: of the run; without a run, installed packages alone.
            max_value_bytes: as above.
        """
        registry = TypeRegistry(REGISTERED)
        (teach or PluginHost().teacher())(registry)
        return cls(registry, max_value_bytes)

    def encode(self, value: Any, place: Callable[[], str]) -> bytes:
        """A value's bytes.

        Args:
            value: of the known types, exactly, not of a subclass.
            place: tells where it stands, for the error.

        Raises:
            ValueNotStorable: naming the place, the path inside the value, and what to do.
        """
        return encode_value(value, place, self.registry, self.max_value_bytes)

    def pack_scalars(self, values: Sequence[Any]) -> bytes | None:
        """Many small numbers and texts, which need no encoding of their own, as one list; `None` for others."""
        return pack_scalars(values)

    def decode(self, data: bytes) -> Any:
        """The value of bytes that `encode` gave.

        Raises:
            MalformedValue: they are something else.
            ValueNotReadable: they are whole, but a type or a library that they need is not here.
        """
        return decode_value(data, self.registry)


class OutlineCodec(Codec):
    """Reads what every process can read: of values of registered types and of libraries only that they are there."""

    __slots__ = ()

    def decode(self, data: bytes) -> Any:
        """As `Codec.decode`, but no type and no library is needed.

        Raises:
            MalformedValue: they are something else.
        """
        return decode_outline(data)


def encode(value: Any, place: Callable[[], str], registry: TypeRegistry = REGISTERED) -> bytes:
    """As `Codec.encode`, with the default limit."""
    return encode_value(value, place, registry, MAX_VALUE_BYTES)


def decode(data: bytes, registry: TypeRegistry = REGISTERED) -> Any:
    """As `Codec.decode`."""
    return decode_value(data, registry)
