"""How a run is shown while it goes on: a live view on a terminal, lines of text elsewhere; always on standard error."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from shlex import quote
from typing import TYPE_CHECKING, TextIO

from hookspecs import NodeStatus, Suspension, shorten
from workflow_runner.cli.report import one_line
from workflow_runner.cli.waiting import waiting_line
from workflow_runner.events import CheckpointSaved, Event, NodeChanged, NodeSuspended, Progressed, RunEnded, RunStarted

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Lines", "NodeTally", "Tally", "open_progress"]

SHOWN_NODES = 12
TOLD_NODES = 3
"""In a line, which is one of many."""


@contextmanager
def open_progress(quiet: bool) -> Iterator[Callable[[Event], None] | None]:
    """Show a run on standard error as long as the context lasts.

    Yields:
        What to call with every event; `None` when nothing is shown.
    """
    if quiet:
        yield None
    elif sys.stderr.isatty():
        with _live() as show:
            yield show
    else:
        yield Lines(sys.stderr)


@dataclass(slots=True)
class NodeTally:
    """What is known of one node.

    Args:
        status: now.
        firings: begun so far, in earlier attempts, too; of a lane, the number of its item.
        began_at: by the clock, when it was first heard of.
        done: as the body reported it, in units of its own.
        total: likewise.
        waits: for what, where it is suspended.
        begun: firings since it was first heard of.
    """

    status: NodeStatus
    firings: int
    began_at: float
    done: float | None = None
    total: float | None = None
    waits: Suspension | None = None
    begun: int = 0

    def rate(self, now: float) -> str:
        """Firings a second; empty where that cannot be told yet."""
        seconds = now - self.began_at
        return f"{self.begun / seconds:.1f}" if seconds >= 1 else ""

    @property
    def progress(self) -> str:
        """How far it is, as its body reported it, or what it waits for; empty where there is nothing to tell."""
        if self.waits is not None:
            return one_line(self.waits.reason)
        if self.done is None:
            return ""
        return _units(self.done) if self.total is None else f"{_units(self.done)} / {_units(self.total)}"


def _units(told: float) -> str:
    """What a body reports, which may be anything: that it cannot be shown as a number must fail no run."""
    try:
        return f"{told:g}"
    except Exception:
        return one_line(shorten(told))


class Tally:
    """Counts what the events of a run say.

    Args:
        clock: gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.began_at = clock()
        self.run_id = ""
        self.total = 0
        self.before = 0
        self.nodes: dict[str, NodeTally] = {}
        self.statuses: Counter[NodeStatus] = Counter()
        self.checkpoints = 0
        self.checkpoint = ""
        self.ended = ""

    def hear(self, event: Event) -> None:
        """Count an event."""
        match event:
            case RunStarted():
                self.run_id, self.total, self.before = event.run_id, event.nodes, event.completed
                self.statuses["completed"] = event.completed
            case NodeChanged():
                self._change(event)
            case Progressed():
                node = self.nodes.get(event.node_id)
                if node is not None:
                    node.done, node.total = event.done, event.total
            case NodeSuspended():
                self.nodes[event.node_id].waits = event.suspension
            case CheckpointSaved():
                self.checkpoints += 1
                self.checkpoint = f"{event.ref.number} ({event.ref.reason})"
            case RunEnded():
                self.ended = event.status

    def _change(self, event: NodeChanged) -> None:
        node = self.nodes.get(event.node_id)
        if node is None:
            self.nodes[event.node_id] = NodeTally(event.status, event.firings, self.clock())
        else:
            self.statuses[node.status] -= 1
            node.begun += event.firings != node.firings
            node.status, node.firings, node.waits = event.status, event.firings, None
        self.statuses[event.status] += 1

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return self.clock() - self.began_at

    def summary(self) -> str:
        """One line: how far the run is."""
        parts = [f"{self.statuses['completed']} of {self.total} nodes completed"]
        parts += [f"{count} {status}" for status, count in self.statuses.items() if count and status not in ("completed", "idle")]
        if self.checkpoints:
            parts.append(f"checkpoint {self.checkpoint}")
        return f"{self.seconds:.1f} s: {', '.join(parts)}"

    def line(self) -> str:
        """As `summary`, and how far the first nodes that run say they are."""
        running = ((node_id, node.progress) for node_id, node in self.nodes.items() if node.status == "running")
        reports = [f"{node_id}: {progress}" for node_id, progress in running if progress]
        more = [f"and {len(reports) - TOLD_NODES} more"] if len(reports) > TOLD_NODES else []
        return "; ".join([self.summary(), *reports[:TOLD_NODES], *more])


class Lines:
    """Plain lines: the beginning, how far it is at most once a period, the end.

    Args:
        stream: to write to.
        period_seconds: between two lines.
        clock: gives seconds.
    """

    def __init__(self, stream: TextIO, period_seconds: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._period = period_seconds
        self._tally = Tally(clock)
        self._written_at = clock()
        self._waiting: dict[str, Suspension] = {}
        """What was not told yet."""

    def __call__(self, event: Event) -> None:
        tally = self._tally
        tally.hear(event)
        match event:
            case RunStarted():
                again = f", attempt {event.attempt}: {event.completed} nodes were completed before" if event.attempt > 1 else ""
                self._write(f"run {event.run_id}: {event.nodes} nodes{again}")
            case RunEnded() if tally.run_id:  # one that was refused before it began is told by its error
                self._write(tally.summary())
                self._write(f"run {event.run_id}: {event.status}")
            case NodeSuspended():
                self._waiting[event.node_id] = event.suspension
            case NodeChanged():
                self._waiting.pop(event.node_id, None)
            case CheckpointSaved() if self._waiting and tally.statuses["running"]:  # else the run ends, and tells them
                self._tell_waiting()
        if tally.run_id and tally.clock() - self._written_at >= self._period:
            self._write(tally.line())

    def _tell_waiting(self) -> None:
        """Tell of the nodes that wait while others go on: that is stored now, so they may be answered."""
        told, self._waiting = list(self._waiting.items()), {}
        answer = f"workflow answer {quote(self._tally.run_id)}"
        for node_id, waits in told[:TOLD_NODES]:
            self._write(waiting_line(node_id, waits, answer, None))
        if len(told) > TOLD_NODES:
            self._write(f"and {len(told) - TOLD_NODES} more wait. See them with `workflow suspended`.")

    def _write(self, line: str) -> None:
        self._written_at = self._tally.clock()
        print(one_line(line), file=self._stream, flush=True)


@contextmanager
def _live() -> Iterator[Callable[[Event], None]]:
    # Imported here: it costs a tenth of a second, and only a terminal needs it.
    from rich.console import Console
    from rich.live import Live

    tally = Tally()
    live = Live(
        get_renderable=lambda: _table(tally),
        console=Console(stderr=True),
        refresh_per_second=4,
        # What nodes print goes above the view, but never out of a file or pipe that standard output leads to.
        redirect_stdout=sys.stdout.isatty(),
    )
    with live:
        yield tally.hear


def _table(tally: Tally) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    # The view refreshes from a thread of its own: take what is there in one step.
    nodes = list(tally.nodes.items())
    active = [pair for pair in nodes if pair[1].status not in ("completed", "idle")]
    recent = [pair for pair in nodes if pair[1].status == "completed"]
    shown = active[:SHOWN_NODES] or recent[-3:]
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("node", "status", "firings", "a second", "progress"):
        table.add_column(title, justify="left" if title in ("node", "status") else "right")
    now = tally.clock()
    for node_id, node in shown:
        table.add_row(Text(one_line(node_id)), Text(node.status), str(node.firings), node.rate(now), Text(node.progress))
    more = len(active) - len(shown)
    footer = [Text(f"… and {more} more")] if more > 0 else []
    head = f"run {tally.run_id}  {tally.ended or 'running'}" if tally.run_id else "starting"
    return Group(Text(one_line(head), style="bold"), Text(one_line(tally.summary())), table, *footer)
