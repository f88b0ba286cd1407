"""What the package exports is what it says, and asking for it is what imports the database layer."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import checkpoint_plugin
from checkpoint_plugin.codec import MalformedValue, TypeRefused
from checkpoint_plugin.errors import __all__ as all_errors

SOURCE = Path(inspect.getfile(checkpoint_plugin)).read_text(encoding="utf-8")


def test_all_is_complete_sorted_and_there() -> None:
    imported = {
        alias.asname or alias.name
        for statement in ast.walk(ast.parse(SOURCE))
        if isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith("checkpoint_plugin")
        for alias in statement.names
    }
    assert set(checkpoint_plugin.__all__) == imported
    assert checkpoint_plugin.__all__ == sorted(checkpoint_plugin.__all__, key=lambda n: (not n.isupper(), n[0].islower(), n))
    for name in checkpoint_plugin.__all__:
        assert getattr(checkpoint_plugin, name) is not None
        assert name in dir(checkpoint_plugin)


def test_every_error_is_exported() -> None:
    errors = {*all_errors, MalformedValue.__name__, TypeRefused.__name__}
    assert errors <= set(checkpoint_plugin.__all__)


async def test_a_store_is_opened_with_what_is_exported(tmp_path: Path) -> None:
    store = checkpoint_plugin.Store(checkpoint_plugin.locate(f"sqlite:///{tmp_path / 'c.db'}"), create=True)
    await checkpoint_plugin.JobRepository(store=store).add(checkpoint_plugin.Job(id="order"))
    assert (await checkpoint_plugin.JobRepository(store=store).get("order")).status == "scheduled"
    await store.close()


def test_what_is_not_there_is_an_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Jobs'"):
        checkpoint_plugin.Jobs  # type: ignore[attr-defined]  # noqa: B018


def test_importing_the_package_imports_no_database_layer() -> None:
    code = "import sys, checkpoint_plugin; print(sorted({'sqlmodel', 'sqlalchemy', 'asyncpg', 'ormsgpack'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
