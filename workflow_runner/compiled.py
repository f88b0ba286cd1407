"""A graph that was checked once, to be run any number of times."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from hookspecs import GraphColumns
from workflow_runner.graph import Graph
from workflow_runner.plan import Plan

__all__ = ["CompiledGraph"]


class CompiledGraph:
    """A graph that is checked and ready: `WorkflowRunner.compile` makes it, and every runner runs it.

    It may be run any number of times, and several times at once. What is done to its `Graph` later does not change it; values of
    properties are those of all its runs, and bodies must not change them.

    Args:
        plan: of the graph.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    @property
    def graph(self) -> Graph:
        """What it was made from."""
        return self.plan.graph

    @cached_property
    def document(self) -> Mapping[str, Any]:
        """The graph's document, without what is enabled; as plugins are given it."""
        document = self.graph.to_document()
        document.pop("enable", None)
        return document

    def make_ready(self) -> None:
        """Make what plugins are told of the graph: once, and not in the first run of many."""
        self.document = GraphColumns.of(self.document) or self.document
