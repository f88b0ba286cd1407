"""Installed distributions for tests: a real folder of modules with its dist-info, as pip leaves it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent

__all__ = ["install_distribution"]


def install_distribution(
    folder: Path,
    name: str,
    *,
    entries: Mapping[str, Mapping[str, str]],
    modules: Mapping[str, str] | None = None,
    version: str = "1.0",
) -> Path:
    """Write a distribution into a folder that is, or will be, on `sys.path`.

    Args:
        folder: made when it does not exist.
        name: of the distribution.
        entries: by group: the object reference by entry name.
        modules: source text by module name.
        version: of the distribution.

    Returns:
        The folder.
    """
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = []
    for group, points in entries.items():
        lines += [f"[{group}]", *(f"{entry} = {value}" for entry, value in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    for module, source in (modules or {}).items():
        (folder / f"{module}.py").write_text(dedent(source))
    return folder
