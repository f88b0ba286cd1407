"""`docs/names.md` tells every public name, and the exit code of each error."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from hookspecs import WorkflowError

PAGE = (Path(__file__).parents[2] / "docs" / "names.md").read_text(encoding="utf-8")
PACKAGES = ("hookspecs", "workflow_runner", pytest.param("checkpoint_plugin", marks=pytest.mark.plugin))


def rows(heading: str) -> list[tuple[str, str]]:
    """The names of a section, with the cell behind each."""
    section = re.split(r"^##+ ", PAGE.partition(f"\n{heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(r"^\| `(\w+)` \| (.*?) ?\|", section, re.MULTILINE)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_told_once(package: str) -> None:
    told = [name for heading in (f"## `{package}`", f"### Errors of `{package}`") for name, _ in rows(heading)]
    assert sorted(told) == sorted(importlib.import_module(package).__all__)


@pytest.mark.parametrize("package", PACKAGES)
def test_errors_are_told_with_their_exit_codes(package: str) -> None:
    module = importlib.import_module(package)
    public = {name: getattr(module, name) for name in module.__all__}
    errors = {name: found for name, found in public.items() if isinstance(found, type) and issubclass(found, BaseException)}
    codes = {name: str(found.exit_code) if issubclass(found, WorkflowError) else "" for name, found in errors.items()}
    assert dict(rows(f"### Errors of `{package}`")) == codes
