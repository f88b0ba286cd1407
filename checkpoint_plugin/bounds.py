"""Numbers that databases take: one that is larger never reaches them, and is answered as one that is not there."""

from __future__ import annotations

from shlex import quote
from typing import Final

from hookspecs import StoreError

__all__ = ["LARGEST", "LARGEST_INTEGER", "LARGEST_VALUE", "bounded", "check_number", "is_attempt", "is_epoch", "no_checkpoint"]

LARGEST: Final = 2**63 - 1
"""Of events, and of rows to list."""
LARGEST_INTEGER: Final = 2**31 - 1
"""Of most columns, the number of a checkpoint among them: PostgreSQL keeps them in 32 bits."""
LARGEST_VALUE: Final = 1_000_000_000
"""Bytes of a value at most, whatever a policy allows: what a column of both databases can hold. A row that says more lies."""


def bounded(number: int) -> int:
    """The nearest number that databases take: what is asked for beyond it is the same, everything or nothing."""
    return max(-LARGEST, min(number, LARGEST))


def check_number(run_id: str, number: int | None) -> None:
    """Refuse the number of a checkpoint that no database could be asked for.

    Raises:
        StoreError: there is no checkpoint of that number.
    """
    if number is not None and abs(number) > LARGEST_INTEGER:
        raise no_checkpoint(run_id, number)


def is_attempt(value: object) -> bool:
    """Whether what a row holds is the number of an attempt after which there can be another."""
    return type(value) is int and 1 <= value < LARGEST_INTEGER


def is_epoch(value: object) -> bool:
    """Whether what a lease holds is an epoch, or a generation, after which there can be another; SQLite keeps anything there."""
    return type(value) is int and value < LARGEST


def no_checkpoint(run_id: str, number: int) -> StoreError:
    """The error that a run has no checkpoint of a number."""
    return StoreError(f"run {run_id!r} has no checkpoint {number}. See `workflow checkpoints {quote(run_id)}`.")
