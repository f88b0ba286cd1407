"""What is installed: read once, and again when something came or went."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from hookspecs import PluginHost
from hookspecs.entries import PLUGINS


def install(folder: Path, name: str, moment: int) -> Path:
    """A distribution as an installer leaves it, at a moment in seconds."""
    made = folder / f"{name}-1.0.dist-info"
    made.mkdir()
    (made / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (made / "entry_points.txt").write_text(f"[{PLUGINS}]\n{name} = {name}:make\n")
    os.utime(folder, (moment, moment))
    return made


def test_what_is_installed_meanwhile_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    assert "late" not in PluginHost().entries(PLUGINS)
    made = install(tmp_path, "late", 1)
    assert PluginHost().entries(PLUGINS)["late"].version == "1.0"
    shutil.rmtree(made)
    os.utime(tmp_path, (2, 2))
    assert "late" not in PluginHost().entries(PLUGINS)


def test_another_place_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "elsewhere", 1)
    assert "elsewhere" not in PluginHost().entries(PLUGINS)
    with monkeypatch.context() as here:
        here.syspath_prepend(tmp_path)
        assert "elsewhere" in PluginHost().entries(PLUGINS)
    assert "elsewhere" not in PluginHost().entries(PLUGINS)


def test_many_hosts_read_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    read = importlib.metadata.entry_points

    def count(**wanted: Any) -> Any:
        asked.append(wanted)
        return read(**wanted)

    monkeypatch.setattr(importlib.metadata, "entry_points", count)
    found = [PluginHost().entries(PLUGINS) for _ in range(3)]
    assert asked == [{"group": PLUGINS}]
    assert found[0] == found[2]


def test_what_brings_an_entry_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    install(tmp_path, "parsed", 1)
    parsed: list[str] = []
    parse = vars(importlib.metadata.Distribution)["metadata"].fget

    def count(distribution: importlib.metadata.Distribution) -> Any:
        found = parse(distribution)
        if found["Name"] == "parsed":
            parsed.append("parsed")
        return found

    monkeypatch.setattr(importlib.metadata.Distribution, "metadata", property(count))
    PluginHost().entries(PLUGINS)
    asked = len(parsed)
    assert asked
    for _ in range(3):
        assert PluginHost().entries(PLUGINS)["parsed"].distribution == "parsed"
    assert len(parsed) == asked
