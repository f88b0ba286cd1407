"""`docs/hooks.md` shows every hook with its exact signature and the text of its specification."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import cast

import pytest

import hookspecs
from hookspecs import SPEC_CLASSES, Completed, PluginHost, RunControl, RunHooks, RunInfo
from tests.distribution import install_distribution

PAGE = (Path(__file__).parents[2] / "docs" / "hooks.md").read_text(encoding="utf-8")
SPECS = {name: spec for group in SPEC_CLASSES for name, spec in vars(group).items() if inspect.isfunction(spec)}


def section(name: str) -> str:
    """What the page must say of a hook."""
    spec = SPECS[name]
    head, _, rest = inspect.cleandoc(spec.__doc__ or "").partition("\n\n")
    fields = re.sub(r"\n +", " ", rest)
    rows = "\n".join(f"- **{line.partition(': ')[0]}**: {line.partition(': ')[2]}" for line in fields.splitlines())
    colour = "async def" if inspect.iscoroutinefunction(spec) else "def"
    signature = re.sub(r"'", "", str(inspect.signature(spec)))
    return f"## {name}\n\n```python\n{colour} {name}{signature}\n```\n\n{head}\n\n{rows}\n"


@pytest.mark.parametrize("name", SPECS)
def test_every_hook_is_documented_as_it_is_specified(name: str) -> None:
    assert section(name) in PAGE


def test_no_other_hook_is_documented() -> None:
    assert re.findall(r"^## (\w+)$", PAGE, re.MULTILINE) == list(SPECS)
    assert set(SPECS) == set(RunHooks.__slots__)


def test_what_crosses_a_hook_is_exported() -> None:
    for spec in SPECS.values():
        for name in re.findall(r"\b[A-Z]\w+", str(inspect.signature(spec))):
            assert name in ("Mapping", "Sequence", "Any", "None") or name in hookspecs.__all__


async def test_listeners_hear_in_the_order_that_the_page_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = """
from hookspecs import hookimpl

heard = []

class Plugin:
    def __init__(self, name):
        self.name = name

    @hookimpl
    async def before_run(self):
        heard.append(self.name)

    @hookimpl
    async def after_run(self):
        heard.append(self.name)

def enabled(options):
    return Plugin("enabled")
"""
    entries = {"workflow_runner": {"enabled": "order_of_listeners:enabled"}}
    install_distribution(tmp_path, "order-of-listeners", entries=entries, modules={"order_of_listeners": source})
    monkeypatch.syspath_prepend(tmp_path)
    import order_of_listeners  # type: ignore[import-not-found]

    host = PluginHost()
    for name in ("first", "last"):
        host.register(order_of_listeners.Plugin(name), name)
    hooks = host.bind({"enabled": True})
    assert hooks.before_run is not None and hooks.after_run is not None
    info = RunInfo("r", 1, {}, {}, {})
    await hooks.before_run(info, cast(RunControl, None))
    assert order_of_listeners.heard == ["enabled", "last", "first"]
    await hooks.after_run(info, Completed())
    assert order_of_listeners.heard[3:] == ["first", "last", "enabled"]
    assert "the last registered first (so what a run enables before what is registered in code;" in PAGE.replace("\n", " ")
