"""A node type: what a graph must know of a function or class to place and fire it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from workflow_runner.checker import Checker
from workflow_runner.failure import NO_POLICY, FailurePolicy
from workflow_runner.handle import MADE, Handle
from workflow_runner.source import Source

__all__ = ["BodyKind", "NodeType", "Role"]

BodyKind = Literal["coroutine", "async_generator", "function", "generator"]
"""How a body is written; the last two run in a worker thread."""
Role = Literal["body", "input", "output", "preview", "comment", "each", "collect", "spread", "gather"]
"""What the runner does with the node: call its body, or one of the built-in parts."""


@dataclass(frozen=True, eq=False)
class NodeType:
    """One kind of node.

    Args:
        name: as in the graph, `<module>.<function or class>` unless the decorator names another.
        handles: inputs by name, in the order they were written.
        outputs: output handles, in order; `("output",)` means that the value itself is emitted.
        kind: how the body is written.
        call: calls the body with the arguments by handle and the context, which may be ignored.
        stateless: whether every read of a stream is a commit point.
        definition: the function or class.
        role: built-in part or body.
        emits_mapping: whether what the body gives is a mapping of outputs, not the value of the only one.
        wants_context: whether the body takes the context.
        function: the body itself, where it takes nothing but its arguments by name.
        leading: the input that `function` also takes without its name, which is sooner done.
        failure: what happens when it fails.
        sources: what it is written in.
    """

    name: str
    handles: Mapping[str, Handle]
    outputs: tuple[str, ...]
    kind: BodyKind
    call: Callable[[Mapping[str, Any], Any], Any]
    stateless: bool
    definition: Any
    role: Role = "body"
    emits_mapping: bool = False
    wants_context: bool = True
    function: Callable[..., Any] | None = None
    leading: str | None = None
    failure: FailurePolicy = NO_POLICY
    sources: tuple[Source, ...] = ()
    streams: bool = field(init=False)
    connectable: tuple[str, ...] = field(init=False)
    checks: Mapping[str, Checker] = field(init=False)
    defaults: Mapping[str, Any] = field(init=False)
    required: tuple[str, ...] = field(init=False)
    generates: bool = field(init=False)
    threaded: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "streams", any(handle.stream for handle in self.handles.values()))
        object.__setattr__(self, "connectable", self._connectable())
        checks = {name: handle.check for name, handle in self.handles.items() if handle.check is not None}
        object.__setattr__(self, "checks", checks)
        plain = [handle for handle in self.handles.values() if not handle.stream and handle.default is not MADE]
        object.__setattr__(self, "defaults", {handle.name: handle.default for handle in plain if not handle.required})
        object.__setattr__(self, "required", tuple(name for name, handle in self.handles.items() if handle.required))
        object.__setattr__(self, "generates", self.kind in ("async_generator", "generator"))
        object.__setattr__(self, "threaded", self.kind in ("function", "generator"))

    def _connectable(self) -> tuple[str, ...]:
        """The handles at which an edge may end."""
        if self.role == "input":
            return ()
        return ("value",) if self.role == "output" else tuple(self.handles)

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the source text; empty when there is none (an interactive session)."""
        text = "\0".join(filter(None, (source.text for source in self.sources)))
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest() if text else ""
