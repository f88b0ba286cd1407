"""Options of the races on pytest's command line."""

from __future__ import annotations

import pytest

__all__ = ["pytest_addoption"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    group = parser.getgroup("races")
    group.addoption(
        "--race-rounds", type=int, default=5, help="how often processes race for a run, for each number of them (default 5)"
    )
