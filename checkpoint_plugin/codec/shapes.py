"""How the values of a registered class are taken apart and put together again: exactly, or not at all."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from typing import Any, Protocol

from checkpoint_plugin.errors import CheckpointError, ValueNotReadable
from hookspecs import text_of

__all__ = ["Part", "RegisteredType", "Shape", "TypeRefused", "shape_of", "type_name"]

Part = Callable[[str, Any], Any]
"""Encodes a member of a value; the first argument is the step to it in words, for an error."""


class TypeRefused(CheckpointError, TypeError):
    """Raised when a class cannot be registered; the message says why, and what to do."""

    exit_code = 2


class Shape(Protocol):
    """One way to be stored. What is stored is a list of parts, whose meaning only the shape knows."""

    def take(self, value: Any, part: Part) -> list[Any]:
        """A value's parts, encoded.

        Raises:
            TypeError: this value would not come back exactly; the message says why, and what to do.
        """

    def make(self, parts: list[Any]) -> Any:
        """The value of decoded parts. No code of the class runs but the defaults of fields that were added.

        Raises:
            ValueNotReadable: the class has changed, and says no longer what the parts are.
            ValueError, TypeError: they are not what was written.
        """


@dataclass(frozen=True, slots=True)
class RegisteredType:
    """A class that can be stored.

    Args:
        kind: the class.
        name: under which its values are stored.
        shape: how.
        checked: read each value back before it is stored.
    """

    kind: type
    name: str
    shape: Shape
    checked: bool


def shape_of(kind: type, encode: Callable[[Any], Any] | None, decode: Callable[[Any], Any] | None) -> Shape:
    """The way to store a class.

    Raises:
        TypeRefused: there is none.
    """
    from checkpoint_plugin.codec.models import ModelShape, is_model
    from checkpoint_plugin.codec.records import NamedTupleShape, RecordShape

    if encode is not None or decode is not None:
        if encode is None or decode is None:
            raise TypeRefused(f"{type_name(kind)}: encode and decode belong together. Give both.")
        return OwnShape(kind, encode, decode)
    if issubclass(kind, enum.Enum):
        return EnumShape(kind)
    if is_model(kind):
        return ModelShape(kind)
    if is_dataclass(kind):
        return RecordShape(kind)
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return NamedTupleShape(kind)
    raise TypeRefused(
        f"{type_name(kind)} is no Enum, dataclass, NamedTuple or pydantic model. Register it with encode=… and decode=…"
    )


class EnumShape:
    """Members by name; flags by the names of those that are set."""

    def __init__(self, kind: type[enum.Enum]) -> None:
        self._kind = kind
        self._members = kind.__members__

    def take(self, value: Any, part: Part) -> list[Any]:
        """As `Shape`."""
        name = value._name_ or ""
        if self._members.get(name) is value:
            return [part("", name)]
        if not isinstance(value, enum.Flag):  # _missing_ may make others, of which the class knows nothing later
            raise TypeError(f"{name!r} is none of the members of {type_name(self._kind)}. Store its value instead.")
        names = [name for name, member in self._members.items() if _is_bit(member) and member.value & value.value]
        left = value.value & ~self._joined(names).value
        for name, member in self._members.items():  # bits that have a name only together
            if member.value & left and member.value & ~value.value == 0:
                names.append(name)
                left &= ~member.value
        joined = self._joined(names)
        if type(joined) is not self._kind or joined != value:  # Python 3.11.2 makes some of these anew each time
            raise TypeError(f"its flags {value.value:#x} are not all members of {type_name(self._kind)}. Clear the others.")
        return [part("", names)]

    def make(self, parts: list[Any]) -> Any:
        """As `Shape`."""
        (found,) = parts
        if isinstance(found, list) and issubclass(self._kind, enum.Flag):
            return self._joined([self._member(name)._name_ for name in found])
        return self._member(found)

    def _member(self, name: Any) -> enum.Enum:
        if name not in self._members:
            raise ValueNotReadable(
                f"{type_name(self._kind)} has no member {name!r} any more. Give it back; an alias of another member will do."
            )
        return self._members[name]

    def _joined(self, names: list[str]) -> Any:
        joined: Any = self._kind(0)
        for name in names:
            joined |= self._members[name]
        return joined


def _is_bit(member: Any) -> bool:
    return isinstance(member.value, int) and member.value > 0 and not member.value & (member.value - 1)


class OwnShape:
    """By functions of the user: each value is read back before it is stored, so that none is kept that cannot be had."""

    def __init__(self, kind: type, encode: Callable[[Any], Any], decode: Callable[[Any], Any]) -> None:
        self._kind = kind
        self._encode = encode
        self._decode = decode

    def take(self, value: Any, part: Part) -> list[Any]:
        """As `Shape`."""
        try:
            plain = self._encode(value)
        except Exception as error:  # it is anybody's function, and what it raises is told with the value's place
            raise TypeError(f"the encode=… of {type_name(self._kind)} raised {type(error).__name__}: {text_of(error)}") from error
        return [part("", plain)]

    def make(self, parts: list[Any]) -> Any:
        """As `Shape`."""
        (plain,) = parts
        try:
            value = self._decode(plain)
        except Exception as error:  # as above
            raise ValueNotReadable(
                f"the decode=… of {type_name(self._kind)} raised {type(error).__name__}: {text_of(error)}. Mend it."
            ) from error
        if type(value) is not self._kind:
            raise ValueNotReadable(
                f"the decode=… of {type_name(self._kind)} gave {type_name(type(value))}. Let it give exactly its own class."
            )
        return value


def type_name(kind: type) -> str:
    """A class's name for people."""
    return f"{kind.__module__}.{kind.__qualname__}" if kind.__module__ != "builtins" else kind.__qualname__
