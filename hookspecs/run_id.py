"""What may be the id of a run: runners give ids, and plugins are given some by people."""

from __future__ import annotations

import unicodedata
from typing import Final

from hookspecs.errors import shorten

__all__ = ["MAX_RUN_ID", "run_id_problem"]

MAX_RUN_ID: Final = 200
"""Characters of an id at most."""


def run_id_problem(run_id: object) -> str | None:
    """Which rule keeps something from being the id of a run, and what to do; `None` for an id."""
    if not isinstance(run_id, str):
        return f"a run id is text, not {type(run_id).__name__} ({shorten(run_id)}). Give text, or none to have one made."
    if not 1 <= len(run_id) <= MAX_RUN_ID:
        return f"a run id has 1 to {MAX_RUN_ID} characters, this one has {len(run_id)}. Choose another."
    if run_id in (".", ".."):
        return f"{run_id!r} cannot be a run id. Choose another."
    for character in run_id:
        # Cc: control characters; Cs: lone surrogates, which no database can store as text.
        if character == "/" or unicodedata.category(character) in ("Cc", "Cs"):
            return f"run id {shorten(run_id)} holds {character!r}: no control characters and no '/'. Choose another."
    return None
