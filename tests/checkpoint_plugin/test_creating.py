"""Six processes make one store at the same moment, and each finds its run in it. 200 rounds on each database found nothing."""

from __future__ import annotations

from pathlib import Path

from tests.checkpoint_plugin.creating import create_at_once

ROUNDS = 3


def test_processes_make_one_file_at_once(tmp_path: Path) -> None:
    assert create_at_once(f"sqlite:///{tmp_path}/deep/ROUND/c.db", ROUNDS) == []


def test_processes_make_one_schema_at_once(postgres_url: str) -> None:
    assert create_at_once(f"{postgres_url}&schema=sROUND", ROUNDS) == []
