"""JSON objects in which no key stands twice: of two values readers would silently take the last."""

from __future__ import annotations

from typing import Any

__all__ = ["unique_keys"]


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of its pairs; the `object_pairs_hook` of `json.loads`.

    Raises:
        ValueError: a key stands twice.
    """
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {key!r} stands twice in one object. Keep one of them")
            seen.add(key)
    return made
