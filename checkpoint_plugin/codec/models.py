"""Pydantic models: fields, private attributes, extra values, and which fields were set; nothing is validated again."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

from checkpoint_plugin.codec.records import check_known, slots_of, strangers
from checkpoint_plugin.codec.shapes import Part, type_name
from checkpoint_plugin.errors import ValueNotReadable

__all__ = ["ModelShape", "is_model"]

OWN_SLOTS: Final = ("__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")


def is_model(kind: type) -> bool:
    """Whether a class is a model of pydantic 2; pydantic need not be imported for the answer."""
    return any(base.__module__ == "pydantic.main" and base.__name__ == "BaseModel" for base in kind.__mro__)


class ModelShape:
    """A model. An instance is made without its validators: it was valid, or meant to be as it is."""

    def __init__(self, kind: Any) -> None:
        self._kind = kind
        kind.model_rebuild()  # else the fields of a model with forward references are not known yet
        self._fields = {name: _default(field) for name, field in kind.model_fields.items()}
        self._private = {name: _private_default(attribute) for name, attribute in kind.__private_attributes__.items()}
        # A root model has no place for extra values and private attributes, but `None` on the class.
        self._own = [name for name in OWN_SLOTS if inspect.ismemberdescriptor(inspect.getattr_static(kind, name))]
        self._slots = tuple(name for name in slots_of(kind) if name not in OWN_SLOTS)

    def take(self, value: Any, part: Part) -> list[Any]:
        """As `Shape`."""
        name = type_name(self._kind)
        if strange := strangers(value, self._fields, self._slots):
            raise TypeError(f"its attribute {strange[0]!r} is no field of {name} and would be lost. Make it a field.")
        held = value.__dict__
        for field in self._fields:
            if field not in held:
                raise TypeError(f"its field {field!r} is not set. Set it.")
        private = value.__pydantic_private__
        if strange := [key for key in private or () if key not in self._private]:
            raise TypeError(f"its private attribute {strange[0]!r} is not declared in {name} and would be lost. Declare it.")
        if unset := [key for key, default in self._private.items() if default is not None and key not in (private or ())]:
            raise TypeError(f"its private attribute {unset[0]!r} was deleted, and would come back with its default. Set it.")
        return [
            {field: part(f".{field}", held[field]) for field in self._fields},
            part("", sorted(value.__pydantic_fields_set__)),
            None if value.__pydantic_extra__ is None else part("", value.__pydantic_extra__),
            None if private is None else {key: part(f".{key}", private[key]) for key in self._private if key in private},
        ]

    def make(self, parts: list[Any]) -> Any:
        """As `Shape`."""
        found, assigned, extra, private = parts
        if extra is not None and not isinstance(extra, dict):
            raise TypeError("its extra values are none")
        allows_extra = self._kind.model_config.get("extra") == "allow"
        if extra and not allows_extra:
            raise ValueNotReadable(f"{type_name(self._kind)} allows no extra values any more. Allow them.")
        value = self._kind.__new__(self._kind)
        object.__setattr__(value, "__dict__", check_known(self._kind, found, self._fields))
        object.__setattr__(value, "__pydantic_fields_set__", set(assigned))
        for slot, held in (("extra", (extra or {}) if allows_extra else None), ("private", self._read_private(private))):
            if f"__pydantic_{slot}__" in self._own:
                object.__setattr__(value, f"__pydantic_{slot}__", held)
        return value

    def _read_private(self, found: Any) -> dict[str, Any] | None:
        if not self._private:
            if found:
                raise ValueNotReadable(f"{type_name(self._kind)} has no private attribute {min(found)!r} any more. Give it back.")
            return None
        # An attribute without a default may be unset, so one that is missing here may be newer, or may have been unset.
        optional = {key: default or (lambda: UNSET) for key, default in self._private.items()}
        members = found if isinstance(found, dict) else {}
        return {key: item for key, item in check_known(self._kind, members, optional).items() if item is not UNSET}


UNSET: Final = object()


def _default(field: Any) -> Callable[[], Any] | None:
    if field.is_required() or getattr(field, "default_factory_takes_validated_data", False):
        return None
    return lambda: field.get_default(call_default_factory=True)


def _private_default(attribute: Any) -> Callable[[], Any] | None:
    default = attribute.get_default
    return None if attribute.default_factory is None and repr(attribute.default) == "PydanticUndefined" else default
