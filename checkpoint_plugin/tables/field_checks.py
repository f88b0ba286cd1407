"""What callers give for a field is looked at before the store sees it. Nothing here needs SQLAlchemy."""

from __future__ import annotations

from datetime import UTC, datetime
from math import isfinite

from checkpoint_plugin.bounds import LARGEST_INTEGER
from checkpoint_plugin.errors import FieldInvalid
from checkpoint_plugin.tables.definition import is_storable_text
from hookspecs import shorten

__all__ = ["check_flag", "check_float", "check_moment", "check_number", "check_text"]


def check_text(where: str, name: str, value: object, *, escaped: bool = False) -> None:
    """Refuse what is no text that every database keeps.

    Args:
        where: what it is said of.
        name: of the field.
        value: that was given.
        escaped: any text may be given, for what databases do not keep is escaped in it.

    Raises:
        FieldInvalid: it is none.
    """
    if not isinstance(value, str):
        raise FieldInvalid(where, f"{name} is text, not {shorten(value)}. Give it as text.")
    if not escaped and not is_storable_text(value):
        raise FieldInvalid(
            where, f"{name} {shorten(value)} holds NUL or a lone surrogate, which databases do not keep. Replace it."
        )


def check_moment(where: str, name: str, value: object) -> None:
    """As `check_text`, for a time."""
    if not isinstance(value, datetime) or value != value:  # the "not a time" of pandas is a datetime that equals nothing
        raise FieldInvalid(where, f"{name} is a datetime, not {shorten(value)}. Use datetime.now(UTC), or another one like it.")
    if value.utcoffset() is None:
        raise FieldInvalid(where, f"{name} {value} has no time zone, and could be any moment. Use datetime.now(UTC).")
    try:
        value.astimezone(UTC)
    except OverflowError:
        raise FieldInvalid(where, f"{name} {value} is no moment of the years 1 to 9999 in UTC. Give one.") from None


def check_number(where: str, name: str, value: object, *, least: int = -LARGEST_INTEGER, most: int = LARGEST_INTEGER) -> None:
    """As `check_text`, for a whole number, which is at least and at most so much."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise FieldInvalid(where, f"{name} is a whole number from {least} to {most}, not {shorten(value)}. Give such a one.")


def check_float(where: str, name: str, value: object) -> None:
    """As `check_text`, for a number."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not isfinite(value):
        raise FieldInvalid(where, f"{name} is a finite number, not {shorten(value)}. Give such a one, or None.")


def check_flag(where: str, name: str, value: object) -> None:
    """As `check_text`, for yes or no."""
    if not isinstance(value, bool):
        raise FieldInvalid(where, f"{name} is True or False, not {shorten(value)}. Give one of them.")
