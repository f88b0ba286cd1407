"""Whether anybody reads what a command prints, and goes on printing until something else happens."""

from __future__ import annotations

import select
from typing import IO, Any

__all__ = ["is_unread"]


def is_unread(stream: IO[Any]) -> bool:
    """Whether the reader of a pipe is gone, or the terminal.

    Asked of the system, not by writing: `head -1` goes after the first line, and the next may never come.

    Args:
        stream: what is printed to.
    """
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)  # errors alone, which are always told
        return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))
    except (AttributeError, OSError, ValueError):  # a system without it, or a stream that is no file
        return False
