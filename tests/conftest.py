"""What every test may use: databases come from `tests.postgres`, the options of the simulation from its own folder."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

PLUGIN_IS_HERE = all(importlib.util.find_spec(name) for name in ("checkpoint_plugin", "sqlmodel"))
ITS_TESTS = tuple(Path(__file__).parent / name for name in ("checkpoint_plugin", "damage", "power", "races", "sigkill"))
NEEDS_PLUGIN = re.compile(r"^\s*(from|import) (checkpoint_plugin|sqlmodel|sqlalchemy|asyncpg)\b", re.MULTILINE)

pytest_plugins = [
    "tests.damage.options",
    "tests.power.options",
    "tests.races.options",
    "tests.sigkill.options",
    "tests.simulation.options",
]
if PLUGIN_IS_HERE and importlib.util.find_spec("tests.postgres"):
    pytest_plugins.append("tests.postgres")


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Without the plugin, leave out its tests, and the other test modules that import it or its databases."""
    if PLUGIN_IS_HERE:
        return None
    if collection_path in ITS_TESTS:
        return True
    if collection_path.suffix != ".py":
        return None
    return True if NEEDS_PLUGIN.search(collection_path.read_text(encoding="utf-8")) else None
