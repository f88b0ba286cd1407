"""What the bodies of a simulation share: a journal that no crash rewinds, seeded pauses, and what they must not see."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any
from zlib import crc32

from hookspecs import NodeSnapshot
from workflow_runner import Context, WorkflowSuspended

__all__ = ["FORMS", "LAB", "PACKED", "Form", "Injected", "Journal", "Lab", "member_of", "mix", "shape"]

Form = str
FORMS = ("text", "none", "list", "dict", "tuple")
PACKED = 2
"""Items of a list that is to be taken apart."""


class Injected(Exception):
    """A body fails because the seed says so."""


@dataclass
class Journal:
    """Written outside of the system, so it remembers what a crash made the system forget."""

    begun: Counter[tuple[int, str]] = field(default_factory=Counter)
    """How often a body was called, by attempt and node."""
    contents: dict[tuple[str, str], str] = field(default_factory=dict)
    """What a step worked on, by node and idempotency key."""
    keys: dict[tuple[str, str], str] = field(default_factory=dict)
    """The same, the other way round."""
    makers: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Which firing, as node and key, returned a text."""
    seen: set[tuple[str, str]] = field(default_factory=set)
    """Firings that returned something that another body was given."""
    acted: dict[tuple[str, str], int] = field(default_factory=dict)
    """The attempt in which a node that must not be repeated unasked last began a step, by node and key."""
    violations: list[str] = field(default_factory=list)


@dataclass
class Lab:
    """One world, from its start to its crash or end.

    Args:
        random: of the timing, and of everything that is not deterministic.
        journal: shared by all worlds of a seed.
        attempt: number of the world.
        completed: nodes that were completed in the restored cut.
        pure: nodes whose every step must be the same whenever it is run.
        gated: whether nothing may be seen before it is durable.
        failures: how many bodies may still fail in this world.
        failure_rate: how likely one does, each time that it could.
        careful: nodes that must not be repeated unasked.
        movers: nodes that only move items, see `Case.movers`.
        decided: those of them of which it is known, or was decided, that they may be.
        stopping: whether the run was stopped, so that nothing more may begin.
        durable_node: the last durable cut of a node.
    """

    random: Random
    journal: Journal
    attempt: int
    completed: Collection[str] = ()
    pure: Collection[str] = ()
    gated: bool = False
    told: set[str] | None = None
    """Texts whose `after_node` has returned, where the plugin listens to it."""
    failures: int = 0
    failure_rate: float = 0.02
    careful: Collection[str] = ()
    movers: Collection[str] = ()
    decided: Collection[str] = ()
    stopping: Callable[[], bool] = lambda: False
    durable_node: Callable[[str], NodeSnapshot | None] = field(default=lambda node_id: None)
    alive: bool = True
    retried: Counter[str] = field(default_factory=Counter)
    """How often a step of a node was announced to be tried again."""
    suspended: Counter[str] = field(default_factory=Counter)
    """How often a body of a node ended in this world to wait for a person."""
    made_here: set[str] = field(default_factory=set)
    """Texts that plain bodies returned in this world."""
    owed: dict[str, int] = field(default_factory=dict)
    """Emissions that a restored node must repeat before it may ask for a checkpoint."""
    promised: set[tuple[str, int]] = field(default_factory=set)
    """Commits, by node and number, of which somebody waits to be told."""
    durable_commits: dict[str, int] = field(default_factory=dict)
    """Commit points in the last durable cut, by node."""

    def violate(self, problem: str) -> None:
        """Remember that a promise was broken."""
        if self.alive:
            self.journal.violations.append(f"attempt {self.attempt}: {problem}")

    @contextmanager
    def suspending(self, context: Context) -> Iterator[None]:
        """Around a call that suspends unless it was answered."""
        try:
            yield
        except WorkflowSuspended:
            self.suspended[context.node_id] += 1
            raise

    def begin(self, context: Context, *seen: Any) -> None:
        """A body was called."""
        if not self.alive:
            return
        if self.stopping():  # asked first: in a thread, the key is an answer that may take its time
            self.violate(f"node {context.node_id} was called after the run was stopped")
        node_id, key = context.node_id, context.idempotency_key
        member = member_of(node_id)
        self.journal.begun[self.attempt, node_id] += 1
        if node_id in self.completed:
            self.violate(f"node {node_id} ran again although it was completed in the restored cut")
        if self.gated and (member, key) in self.journal.seen:
            self.violate(f"node {node_id} ran a firing again whose output another node had been given")
        durable = self.durable_node(node_id)
        if durable is not None and durable.suspension is not None and not durable.suspension.answered:
            self.violate(f"node {node_id} went on before it was durable that it had been answered")
        if member in self.careful:
            self._act(node_id, key, seen)
        self._see(node_id, seen)
        if seen:
            self._same_key(member, key, f"begin {seen!r}")

    def step(self, context: Context, position: object, *seen: Any) -> None:
        """A body took an item of a stream."""
        if not self.alive:
            return
        if self.stopping():
            self.violate(f"node {context.node_id} was given an item after the run was stopped")
        node_id, key, content = context.node_id, context.idempotency_key, f"{position}: {seen!r}"
        self._see(node_id, seen)
        self._same_key(node_id, key, content)
        known = self.journal.keys.setdefault((node_id, content), key)
        if known != key and node_id in self.pure:
            self.violate(f"node {node_id}: the step {content} got another idempotency key when it ran again")

    def made(self, context: Context, value: Any) -> None:
        """A plain body is about to return a value."""
        if self.alive and isinstance(value, str):
            self.made_here.add(value)
            self.journal.makers.setdefault(value, (member_of(context.node_id), context.idempotency_key))

    async def pause(self) -> None:
        """Go on at once, a little or a good deal later, or fail."""
        choice = self.random.random()
        if choice < 0.35:
            await asyncio.sleep(0)
        elif choice < 0.5:
            await asyncio.sleep(self.random.random() * 3)
        self.fail()

    def fail(self) -> None:
        """Fail, if the seed says so."""
        if self.failures and self.alive and self.random.random() < self.failure_rate:
            self.failures -= 1
            raise Injected("the seed says so")

    def promise(self, context: Context, commits: int) -> None:
        """Ask to be told when the commit of that number is durable."""
        self.promised.add((context.node_id, commits))
        context.on_durable(partial(self.durable, context.node_id, commits))

    def durable(self, node_id: str, commits: int) -> None:
        """What `on_durable` was given is called."""
        self.promised.discard((node_id, commits))
        if self.alive and self.durable_commits.get(node_id, 0) < commits:
            self.violate(f"node {node_id}: on_durable was called before commit {commits} was durable")

    def _see(self, node_id: str, seen: tuple[Any, ...]) -> None:
        # What was moved was durable where it lay before.
        kept = (node_id, *self.movers) if self.gated and seen else ()
        durable = [item for there in kept for item in _held(self.durable_node(there))]
        for value in seen:
            if self.gated and value not in durable and not _is_made_of(value, durable):
                self.violate(f"node {node_id} was given {value!r}, which no durable cut holds")
            if isinstance(value, str) and value in self.journal.makers:
                self.journal.seen.add(self.journal.makers[value])
                if self.told is not None and value in self.made_here and value not in self.told:
                    self.violate(f"{value} was handed on before after_node had returned")

    def _act(self, node_id: str, key: str, seen: tuple[Any, ...]) -> None:
        durable = self.durable_node(node_id)
        held = durable.arguments if durable is not None else None
        if held is None or any(value not in _held(durable) for value in seen):
            self.violate(f"node {node_id} was called before it was durable that its step had begun")
        member = member_of(node_id)
        before = self.journal.acted.setdefault((member, key), self.attempt)
        if before != self.attempt and node_id not in self.decided:
            self.violate(f"node {node_id} repeated a step of attempt {before}, and nobody had decided that")
        self.journal.acted[member, key] = self.attempt

    def _same_key(self, node_id: str, key: str, content: str) -> None:
        if node_id not in self.pure:
            return
        before = self.journal.contents.setdefault((node_id, key), content)
        if before != content:
            self.violate(f"node {node_id}: one idempotency key for two steps: {before} and {content}")


def _held(node: NodeSnapshot | None) -> list[Any]:
    """Every item that a node's cut holds."""
    if node is None:
        return []
    items: list[Any] = []
    waiting = [item for edge in node.inbox for item in edge.items] + [item for _, item in node.taken]
    for value in (*waiting, *(node.arguments or {}).values(), *(node.latest or {}).values()):
        items += [value, *value] if isinstance(value, list) else [value]
    return items


def _is_made_of(value: Any, items: Sequence[Any]) -> bool:
    """Whether a value is a list of these."""
    return isinstance(value, list) and all(part in items for part in value)


LAB: ContextVar[Lab] = ContextVar("LAB")


def member_of(node_id: str) -> str:
    """The node of the case that a node of the run belongs to, which may be a lane of it."""
    return node_id.partition("/")[0]


def mix(node_id: str, *values: Any) -> str:
    """A text that tells nearly everything about what it was made of, and stays short."""
    return f"{member_of(node_id)}#{crc32(repr(values).encode()):08x}"


def shape(form: Form, text: str) -> Any:
    """A value of some type that holds the text; every third of form `none` is `None`."""
    match form:
        case "none":
            return None if crc32(text.encode()) % 3 == 0 else text
        case "list":
            return [text]
        case "dict":
            return {"text": text, "more": [1]}
        case "tuple":
            return (text, [text])
    return text
