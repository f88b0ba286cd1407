"""Options of the tests about damage and values on pytest's command line."""

from __future__ import annotations

import pytest

__all__ = ["pytest_addoption"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("damage")
    group.addoption("--values", type=int, default=3_000, help="how many generated values make the round trip (default 3000)")
    group.addoption("--damage", type=int, default=150, help="how many bits of a store are flipped, one at a time (default 150)")
