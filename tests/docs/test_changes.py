"""What the changelog names is in the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.plugin  # of which it tells, too
ROOT = Path(__file__).parents[2]
PACKAGES = ("hookspecs", "workflow_runner", "checkpoint_plugin")
SPAN = re.compile(r"`([^`]+)`")
WORD = re.compile(r"[A-Za-z_]\w+")
EXAMPLES = frozenset({"summarize"})


def test_every_name_in_it_is_in_the_code() -> None:
    sources = [path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.suffix in (".py", ".toml", ".typed")]
    known = {word for path in sources for word in (*WORD.findall(path.read_text(encoding="utf-8")), *WORD.findall(path.name))}
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    named = {word for span in SPAN.findall(changes) for word in WORD.findall(span)}
    assert len(named) > 300
    assert named - known == EXAMPLES
