"""Properties: values that a graph's document gives to handles, converted to the handle's annotation."""

from __future__ import annotations

import json
import types
from collections.abc import Iterator
from datetime import datetime, time, timezone
from typing import Any, Final, Union, get_args, get_origin

from hookspecs import shorten
from workflow_runner.checker import AnnotationUnusable
from workflow_runner.errors import RunnerError
from workflow_runner.handle import Handle

__all__ = ["PropertyInvalid", "convert_property"]

SCALARS: Final = (str, int, float, bool, types.NoneType)
PLAIN: Final = frozenset({*SCALARS, list, dict})
MANY: Final = 1_000
"""Items of a list or dict above which pydantic is as quick, its import included."""


class PropertyInvalid(RunnerError, ValueError):
    """Raised when a property does not fit its handle; the message says what was expected."""

    exit_code = 2


def convert_property(handle: Handle, value: Any) -> Any:
    """A property as the body wants it.

    A value that already is what the annotation asks is taken as it is; else it is converted in pydantic's strict JSON
    mode: ISO text becomes a date or a path, but `"3"` no number.

    Raises:
        PropertyInvalid: neither works.
    """
    annotation = handle.annotation
    try:
        return _same(annotation, value)
    except _OtherwiseError:
        pass
    try:
        adapter = handle.converter
    except AnnotationUnusable as error:
        raise PropertyInvalid(f"{error}. Give the handle another annotation, or connect an edge") from error
    from pydantic import ValidationError

    try:
        return _whole(adapter.validate_python(value, strict=True), value)
    except ValidationError as error:
        first = error
    try:
        text = json.dumps(value)
    except (TypeError, ValueError):
        raise _invalid(handle, value, first) from first
    try:
        return _whole(_zoned(adapter.validate_json(text, strict=True)), value)
    except ValidationError as error:
        raise _invalid(handle, value, error) from error


class _OtherwiseError(Exception):
    """Raised by `_same` where only pydantic knows."""


def _same(annotation: Any, value: Any) -> Any:
    """A value that already is what is asked, in lists and dicts of its own; pydantic would say the same.

    Raises:
        _OtherwiseError: it is not, or that takes more to see.
    """
    kind, asked = type(value), get_origin(annotation) or annotation
    if annotation is Any or (kind is annotation and kind in SCALARS) or (annotation is None and value is None):
        return value
    if asked is Union or asked is types.UnionType:
        members = {get_origin(member) or member: member for member in get_args(annotation)}
        if len(members) == len(get_args(annotation)) and members.keys() <= PLAIN and kind in members:
            return _same(members[kind], value)  # no other can take it: of several that could, pydantic knows which is nearest
    elif kind is asked and kind in (list, dict) and len(value) <= MANY:
        parts = get_args(annotation) or (Any, Any)
        if kind is list:
            return [_same(parts[0], item) for item in value]
        return {_same(parts[0], key): _same(parts[1], item) for key, item in value.items()}
    raise _OtherwiseError


def _whole(found: Any, given: Any) -> Any:
    """What was converted. Of an `Iterable` pydantic gives an iterator, which only the first firing could read."""
    if not isinstance(found, Iterator):
        return found
    items = list(found)  # here its items are converted
    return given if isinstance(given, str | bytes) else items


def _zoned(found: Any) -> Any:
    """What was converted, with zones of Python: a time in one of pydantic's own can be neither stored nor told in tagged JSON."""
    from pydantic_core import TzInfo

    kind = type(found)
    if kind is dict:
        return {_zoned(key): _zoned(item) for key, item in found.items()}
    if kind in (list, tuple, set, frozenset):
        return kind(_zoned(item) for item in found)
    if isinstance(found, datetime | time) and isinstance(found.tzinfo, TzInfo):
        offset = found.utcoffset()
        assert offset is not None
        return found.replace(tzinfo=timezone(offset))
    return found


def _invalid(handle: Handle, value: Any, error: Any) -> PropertyInvalid:
    problem = error.errors(include_url=False)[0]
    place = "".join(f"[{part!r}]" for part in problem["loc"])
    return PropertyInvalid(
        f"expected {handle.expected}, got {shorten(value)}{f' (at {place})' if place else ''}: {problem['msg']}"
    )
