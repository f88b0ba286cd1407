"""`docs/policies.md` tells every option with its default, and the hooks that each policy binds."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from checkpoint_plugin.plugin import checkpoint
from checkpoint_plugin.policy import Policy

PAGE = (Path(__file__).parents[2] / "docs" / "policies.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `(\w+)` \| (?:`([^`]*)`)? ?\| (.*) \|$", PAGE, re.MULTILINE)
TIMES = {"every_seconds": 1, "every_nodes": 2, "before": ["a"], "after": ["a"]}


def test_every_option_is_there_with_its_default() -> None:
    assert sorted(name for name, _, _ in ROWS) == sorted(item.name for item in fields(Policy))
    policy = Policy()
    for name, default, _ in ROWS:
        value: Any = getattr(policy, name)
        assert (json.loads(default) if default else None) == (None if value is None else json.loads(json.dumps(value))), name


@pytest.mark.parametrize(
    "name", [name for name, _, _ in ROWS if name.startswith(("every", "before", "after", "explicit", "on_"))]
)
def test_a_policy_binds_the_hooks_that_the_page_names(name: str) -> None:
    (cells,) = (rest for row, _, rest in ROWS if row == name)
    named = set(re.findall(r"`(\w+)`", cells.split(" | ")[-1])) if len(cells.split(" | ")) == 3 else set()
    plugin = checkpoint({name: TIMES.get(name, True)})
    assert {hook for hook in ("before_node", "after_node") if hasattr(plugin, hook)} == named
