"""Dataclasses and NamedTuples, field by field and by name: a field may be added (with a default) and moved."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from functools import cached_property
from typing import Any

from checkpoint_plugin.codec.shapes import Part, TypeRefused, type_name
from checkpoint_plugin.errors import ValueNotReadable
from hookspecs import text_of

__all__ = ["NamedTupleShape", "RecordShape", "check_known", "strangers"]

Default = Callable[[], Any]
"""Gives the value of a field that is newer than what is stored."""


class RecordShape:
    """A dataclass: frozen, slotted, with `init=False` fields or not.

    An instance is made without `__init__`: its fields are set to what was stored, computed ones included.
    """

    def __init__(self, kind: type) -> None:
        self._kind = kind
        self._fields = {field.name: _default_of(kind, field) for field in fields(kind)}
        self._slots = slots_of(kind)
        if inspect.getattr_static(kind, "__new__") is not vars(object)["__new__"]:
            raise TypeRefused(
                f"{type_name(kind)} is a dataclass with a __new__ or a built-in base, and more than its fields would have "
                "to be kept. Register it with encode=… and decode=…"
            )
        for name in self._fields:
            found = inspect.getattr_static(kind, name, None)
            if inspect.isdatadescriptor(found) and not inspect.ismemberdescriptor(found):
                raise TypeRefused(
                    f"{type_name(kind)}.{name} is a descriptor, which keeps its value elsewhere. Register the class with "
                    "encode=… and decode=…"
                )

    def take(self, value: Any, part: Part) -> list[Any]:
        """As `Shape`."""
        if strange := strangers(value, self._fields, self._slots):
            if strange[0] == "__orig_class__":  # `typing` sets it where it can, so not on what is frozen or has slots
                raise TypeError(
                    f"it remembers that it was made as {value.__orig_class__}, which would be lost. Leave out what stands in the "
                    "brackets where it is made: type checkers find it out."
                )
            raise TypeError(
                f"its attribute {strange[0]!r} is no field of {type_name(self._kind)} and would be lost. Make it a field, "
                "or register the class with encode=… and decode=…"
            )
        parts = {}
        for name in self._fields:
            try:
                member = object.__getattribute__(value, name)
            except AttributeError:
                raise TypeError(f"its field {name!r} is not set. Set it.") from None
            parts[name] = part(f".{name}", member)
        return [parts]

    def make(self, parts: list[Any]) -> Any:
        """As `Shape`."""
        (found,) = parts
        value: Any = object.__new__(self._kind)
        for name, member in check_known(self._kind, found, self._fields).items():
            object.__setattr__(value, name, member)
        return value


class NamedTupleShape:
    """A class made by `typing.NamedTuple` or `collections.namedtuple`."""

    def __init__(self, kind: type) -> None:
        self._kind = kind
        self._names: tuple[str, ...] = tuple(kind._fields)  # type: ignore[attr-defined]
        defaults: Mapping[str, Any] = getattr(kind, "_field_defaults", {})
        self._fields = {name: (lambda n=name: defaults[n]) if name in defaults else None for name in self._names}

    def take(self, value: Any, part: Part) -> list[Any]:
        """As `Shape`."""
        if vars_of(value):
            raise TypeError(f"its attribute {next(iter(vars_of(value)))!r} is no field of {type_name(self._kind)}. Remove it.")
        members = tuple.__iter__(value)
        return [{name: part(f".{name}", member) for name, member in zip(self._names, members, strict=True)}]

    def make(self, parts: list[Any]) -> Any:
        """As `Shape`."""
        (found,) = parts
        return tuple.__new__(self._kind, check_known(self._kind, found, self._fields).values())


def check_known(kind: type, found: Any, known: Mapping[str, Default | None]) -> dict[str, Any]:
    """The fields of a stored value in the order of today's class, with defaults for those that were added.

    Args:
        kind: the class.
        found: what was stored.
        known: today's fields, each with what gives its default, if it has one.

    Raises:
        ValueNotReadable: a field is gone, or was added without a default.
        TypeError: they are not fields.
    """
    if not isinstance(found, dict):
        raise TypeError("its fields are not fields")
    for name in found:
        if name not in known:
            raise ValueNotReadable(
                f"{type_name(kind)} has no field {name!r} any more. Give it back, with a default if it is no longer used."
            )
    members = {}
    for name, default in known.items():
        if name in found:
            members[name] = found[name]
        elif default is None:
            raise ValueNotReadable(f"the field {name!r} of {type_name(kind)} is newer than the value. Give it a default.")
        else:
            try:
                members[name] = default()
            except Exception as error:  # a default_factory is anybody's function
                what = f"the default of {type_name(kind)}.{name} raised {type(error).__name__}: {text_of(error)}"
                raise ValueNotReadable(f"{what}. Mend it.") from error
    return members


def strangers(value: Any, known: Mapping[str, Any], slots: tuple[str, ...] = ()) -> list[str]:
    """What an instance holds beside its fields; what a `cached_property` keeps is made again when it is asked for."""
    kind = type(value)
    held = [name for name in vars_of(value) if name not in known]
    held = [name for name in held if not isinstance(inspect.getattr_static(kind, name, None), cached_property)]
    for name in slots:
        if name not in known and hasattr(value, name):
            held.append(name)
    return held


def vars_of(value: Any) -> Mapping[str, Any]:
    """The instance's `__dict__`, empty where it has none."""
    try:
        found: Mapping[str, Any] = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return {}
    return found


def slots_of(kind: type) -> tuple[str, ...]:
    """The slots of a class and its bases that hold values."""
    found = [name for base in kind.__mro__ for name, item in vars(base).items() if inspect.ismemberdescriptor(item)]
    return tuple(name for name in found if name not in ("__dict__", "__weakref__"))


def _default_of(kind: type, field: Field[Any]) -> Default | None:
    """What gives the value of a field that is newer than what is stored."""
    pydantic_fields = getattr(kind, "__pydantic_fields__", None)
    if pydantic_fields is not None and field.name in pydantic_fields:
        info = pydantic_fields[field.name]  # in a dataclass of pydantic the dataclass's own default is this description
        return None if info.is_required() else lambda: info.get_default(call_default_factory=True)
    if field.default is not MISSING:
        return lambda: field.default
    return None if field.default_factory is MISSING else field.default_factory
