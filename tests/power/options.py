"""Options of the power cuts on pytest's command line."""

from __future__ import annotations

import pytest

__all__ = ["pytest_addoption"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("power")
    group.addoption(
        "--power-cuts", type=int, default=30, help="how often the power is cut in each recorded piece of work (default 30)"
    )
    group.addoption("--power-seed", type=int, default=0, help="of where it is cut, and of what the disk keeps (default 0)")
