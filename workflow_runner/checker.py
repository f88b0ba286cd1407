"""Checks of items against annotations: made once a handle, run once an item, changing nothing but int to float."""

from __future__ import annotations

import collections.abc
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, Literal, NewType, TypeVar, Union, get_args, get_origin

__all__ = [
    "AnnotationUnusable",
    "Checker",
    "Mismatch",
    "describe",
    "is_list",
    "make_adapter",
    "make_checker",
    "make_deep_checker",
    "only_class",
    "unwrap",
]

Checker = Callable[[Any], Any]
"""Takes an item and gives it back (an int as a float where a float is asked), or raises `Mismatch`."""


class AnnotationUnusable(Exception):
    """Raised inside this package when pydantic makes nothing of an annotation; the text says why, for an error to tell."""

    def __init__(self, annotation: Any, error: Exception) -> None:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        super().__init__(f"values cannot be converted to {describe(annotation)}, nor checked deeply ({why.rstrip('.')})")


class Mismatch(Exception):
    """Raised inside this package when an item does not fit; the receiver turns it into an `ItemTypeError`."""


def describe(annotation: Any) -> str:
    """An annotation as a person writes it."""
    if isinstance(annotation, type) and not get_args(annotation):
        return annotation.__name__
    return str(annotation).replace("typing.", "")


def is_list(annotation: Any) -> bool:
    """Whether a handle with this annotation collects one value of each of its edges."""
    annotation = unwrap(annotation)
    if get_origin(annotation) in (Union, types.UnionType):
        return any(is_list(member) for member in get_args(annotation) if member is not type(None))
    return annotation is list or get_origin(annotation) is list


def make_checker(annotation: Any) -> Checker | None:
    """The check of one annotation by type; `None` when everything fits."""
    accepted = _classes(annotation)
    if accepted is None:
        return None
    classes, literals = accepted
    widen = float in classes

    def check(item: Any) -> Any:
        if isinstance(item, classes):
            return item
        if widen and type(item) is int:
            try:
                return float(item)
            except OverflowError:
                raise Mismatch from None
        for literal in literals:
            if type(item) is type(literal) and item == literal:
                return item
        raise Mismatch

    if len(classes) == 1 and not literals and not widen:
        (only,) = classes

        def check_one(item: Any) -> Any:
            if isinstance(item, only):
                return item
            raise Mismatch

        return check_one
    return check


def only_class(annotation: Any) -> type | None:
    """The class whose own instances need no check, where one class is all that the annotation accepts."""
    accepted = _classes(annotation)
    if accepted is None or accepted[1] or len(accepted[0]) != 1:
        return None
    (only,) = accepted[0]
    return only


def make_adapter(annotation: Any) -> Any:
    """pydantic's `TypeAdapter` of an annotation. Imported where it is needed: it costs a tenth of a second.

    Raises:
        AnnotationUnusable: pydantic can make none of it.
    """
    from pydantic import ConfigDict, PydanticUserError, TypeAdapter
    from pydantic_core import SchemaError

    try:
        try:
            return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
        except PydanticUserError:  # a model or dataclass brings its own config
            return TypeAdapter(annotation)
    except (PydanticUserError, SchemaError, NameError, TypeError) as error:
        raise AnnotationUnusable(annotation, error) from error


def make_deep_checker(annotation: Any) -> Checker | None:
    """The check of one annotation all the way down, by pydantic in strict mode; the item itself is handed on."""
    shallow = make_checker(annotation)
    if shallow is None and not get_args(annotation):
        return None
    from pydantic import ValidationError

    adapter = make_adapter(annotation)

    def check(item: Any) -> Any:
        if shallow is not None:
            item = shallow(item)
        try:
            adapter.validate_python(item, strict=True)
        except ValidationError:
            raise Mismatch from None
        return item

    return check


def unwrap(annotation: Any) -> Any:
    """The type that `Annotated`, `NewType` and an alias of a `type` statement stand for."""
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            annotation = get_args(annotation)[0]
        elif isinstance(annotation, NewType):
            annotation = annotation.__supertype__
        elif _is_alias(annotation):
            annotation = annotation.__value__
        elif _is_alias(origin):
            annotation = _of_alias(origin, get_args(annotation))
        else:
            return annotation


def _is_alias(annotation: Any) -> bool:
    """Whether it was made by a `type` statement, which came with Python 3.12, or by the class that goes before it."""
    return type(annotation).__name__ == "TypeAliasType"


def _of_alias(alias: Any, arguments: tuple[Any, ...]) -> Any:
    """What an alias with parameters stands for when it is given types for them."""
    given = dict(zip(alias.__type_params__, arguments, strict=False))
    value = alias.__value__
    free = getattr(value, "__parameters__", ())
    return value[tuple(given.get(each, each) for each in free)] if free else given.get(value, value)


def _classes(annotation: Any) -> tuple[tuple[type, ...], tuple[Any, ...]] | None:
    """The classes and literal values that an annotation accepts; `None` for anything at all."""
    annotation = unwrap(annotation)
    origin = get_origin(annotation)
    if annotation is None or annotation is type(None):
        return (type(None),), ()
    if annotation in (Any, object) or isinstance(annotation, (TypeVar, str)):
        return None
    if origin is Literal:
        return (), get_args(annotation)
    if origin in (Union, types.UnionType):
        members = [_classes(member) for member in get_args(annotation)]
        known = [member for member in members if member is not None]
        if len(known) < len(members):
            return None
        return tuple(c for member in known for c in member[0]), tuple(v for member in known for v in member[1])
    if typing.is_typeddict(annotation):
        return (dict,), ()
    found = origin if origin is not None else annotation
    if found is collections.abc.Callable:
        return (collections.abc.Callable,), ()
    if not isinstance(found, type):
        return None
    if getattr(found, "_is_protocol", False) and not getattr(found, "_is_runtime_protocol", False):
        return None
    return (found,), ()
