"""The plugin for policies that save around firings: it hears of those moments alone that its policy names."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Final

from checkpoint_plugin.errors import PolicyInvalid
from checkpoint_plugin.plugin import CheckpointPlugin
from checkpoint_plugin.policy import Policy
from hookspecs import NodeInfo, Outcome, RunInfo, hookimpl

__all__ = ["SavesAfterNodes", "SavesAroundNodes", "SavesBeforeNodes", "check_names", "plugin_class"]

WITHOUT_BODY: Final = (
    *("workflow.Output", "workflow.Preview", "workflow.Comment"),
    *("workflow.Each", "workflow.Collect", "workflow.Spread", "workflow.Gather"),
)
"""Types whose nodes never fire: a save before or after them would silently never come."""


class SavesBeforeNodes(CheckpointPlugin):
    """Saves before firings."""

    @hookimpl
    async def before_node(self, run: RunInfo, node: NodeInfo, inputs: Mapping[str, Any]) -> None:
        """Save, and let the body start once that is durable."""
        await self._save_before(node)


class SavesAfterNodes(CheckpointPlugin):
    """Saves after firings."""

    @hookimpl
    async def after_node(self, run: RunInfo, node: NodeInfo, outcome: Outcome) -> None:
        """Save, and let the outputs go once that is durable."""
        await self._save_after(node, outcome)


class SavesAroundNodes(SavesBeforeNodes, SavesAfterNodes):
    """Saves before and after firings."""


def plugin_class(policy: Policy) -> type[CheckpointPlugin]:
    """The plugin that hears of what the policy needs, and of nothing else."""
    if policy.before and policy.follows_ends:
        return SavesAroundNodes
    return SavesBeforeNodes if policy.before else SavesAfterNodes


def check_names(policy: Policy, graph: Mapping[str, Any]) -> None:
    """See that the graph has the nodes and types that `before` and `after` name.

    Raises:
        PolicyInvalid: it lacks one, or one never fires.
    """
    fires = {node["id"]: node["type"] not in WITHOUT_BODY for node in graph["nodes"]}
    for node in graph["nodes"]:
        fires.setdefault(node["type"], node["type"] not in WITHOUT_BODY)
    laned = {node["id"] for node in graph["nodes"] if node["type"] == "workflow.Gather"}
    for option, names in (("before", policy.before), ("after", policy.after)):
        for name in names:
            if name not in fires:
                near = get_close_matches(name, list(fires), n=1)
                mend = f"Did you mean {near[0]!r}?" if near else "Name the id of a node, or the full name of its type."
                raise PolicyInvalid(f"checkpoint: {option} names {name!r}, which is no node and no type of the graph. {mend}")
            if not fires[name]:
                mend = f"Name its lanes, {name}/1 and so on, or their type." if name in laned else "Name a node that has one."
                raise PolicyInvalid(f"checkpoint: {option} names {name!r}, which has no body. {mend}")
