"""Clean copies of the checkout, to build from and to test from.

A stale `build/` would bring deleted modules back into a wheel, and from the checkout's root `import checkpoint_plugin`
succeeds though it is not installed.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

__all__ = ["ROOT", "export_checks", "export_sources"]

ROOT = Path(__file__).parents[2]
PACKAGES = ("hookspecs", "workflow_runner", "checkpoint_plugin")
LEFT_OUT = shutil.ignore_patterns("build", "*.egg-info", "__pycache__", ".*", "site")


def export_sources(target: Path) -> Path:
    """Copy what both distributions are built from.

    Args:
        target: a folder; what was there is deleted.

    Returns:
        The folder: the runner is built from it, the plugin from `checkpoint_plugin` in it.
    """
    return _copy(target, lambda name: name in (*PACKAGES, "pyproject.toml", "README.md", "LICENSE"))


def export_checks(target: Path) -> Path:
    """Copy everything but the packages, so that a test run there can import only what is installed.

    Args:
        target: a folder; what was there is deleted.

    Returns:
        The folder.
    """
    return _copy(target, lambda name: name not in PACKAGES and not name.startswith("."))


def _copy(target: Path, wanted: Callable[[str], bool]) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for path in ROOT.iterdir():
        if not wanted(path.name):
            continue
        if path.is_dir():
            shutil.copytree(path, target / path.name, ignore=LEFT_OUT)
        else:
            shutil.copy(path, target / path.name)
    return target


if __name__ == "__main__":
    export = export_checks if sys.argv[1] == "--checks" else export_sources
    export(Path(sys.argv[-1]))
