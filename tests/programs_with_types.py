"""Programs of users, looked at by mypy alone (`tox -e type`): each `type: ignore` stands at a use that has to be an error."""

from __future__ import annotations


def names_are_known() -> None:
    from checkpoint_plugin import CheckpointManger  # type: ignore[attr-defined]  # noqa: F401
