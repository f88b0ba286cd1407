"""Options of the tests with real kills on pytest's command line."""

from __future__ import annotations

import pytest

__all__ = ["pytest_addoption"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    group = parser.getgroup("sigkill")
    group.addoption(
        "--killed-runs", type=int, default=25, help="how many runs are killed again and again on each database (default 25)"
    )
