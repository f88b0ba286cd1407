"""Ids of runs and the idempotency keys of steps."""

from __future__ import annotations

import hashlib
import os
import time

from hookspecs import run_id_problem
from workflow_runner.errors import RunIdInvalid

__all__ = ["check_run_id", "new_run_id", "step_key"]


def new_run_id() -> str:
    """A UUIDv7 (RFC 9562): the time in milliseconds, then random bits, so ids sort by their start."""
    number = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    number = number & ~(0xF << 76) | 7 << 76
    number = number & ~(0x3 << 62) | 2 << 62
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def check_run_id(run_id: str) -> str:
    """Give the id back, or raise `RunIdInvalid` with the rule it breaks."""
    if (problem := run_id_problem(run_id)) is not None:
        raise RunIdInvalid(problem)
    return run_id


def step_key(run_id: str, node_id: str, firing: int, commits: int, taken: int) -> str:
    """The idempotency key of a step: the same whenever the step is run again.

    Each id is preceded by its length, so `("a", "b:c")` and `("a:b", "c")` differ.

    Args:
        run_id: the run.
        node_id: the node.
        firing: which firing of the node, from 1.
        commits: commit points the node has passed.
        taken: stream items taken since the last of them.

    Returns:
        32 hexadecimal digits.
    """
    text = f"{len(run_id)}:{run_id}{len(node_id)}:{node_id}{firing}:{commits}:{taken}"
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
