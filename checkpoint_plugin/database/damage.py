"""Rows of a damaged database as an error that names the run: SQLite gives any type in any column, and any text in a date."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from checkpoint_plugin.errors import StoreDamaged
from hookspecs import WorkflowError

__all__ = ["column_bytes", "read_time", "telling_damage"]


def column_bytes(value: object) -> bytes:
    """The bytes of a column. SQLite may hold a number there, of which `bytes` makes as many zeros: that may be all memory.

    Raises:
        TypeError: it holds something else.
    """
    return value if type(value) is bytes else bytes(memoryview(value))  # type: ignore[arg-type]  # which refuses all others


def read_time(seconds: float) -> datetime:
    """The moment so many seconds after 1970 began, aware UTC.

    Raises:
        ValueError: no clock has it.
        OverflowError: likewise.
    """
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except OSError as error:  # the system's own calendar ends sooner than the numbers that it takes
        raise ValueError(f"there is no time {seconds} seconds after 1970 began") from error


@contextmanager
def telling_damage(run_id: str, what: str, number: int | None = None) -> Iterator[None]:
    """While rows are read, what they make Python refuse is told as damage; its cause stays with it.

    Args:
        run_id: the run.
        what: is read, like "its row".
        number: of the checkpoint it is read for.

    Raises:
        StoreDamaged: a row has a value that it cannot have had when it was written.
    """
    try:
        yield
    except WorkflowError:
        raise
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as error:
        why = f"{what} cannot be read ({type(error).__name__}: {str(error)[:200]})"
        raise StoreDamaged(run_id, why, number) from error
