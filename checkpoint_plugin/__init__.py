"""Checkpoints for workflow runs, on SQLite and PostgreSQL.

Importing this package imports no database layer; a run that enables the plugin does, when it opens its store.
"""

from checkpoint_plugin.plugin import CheckpointPlugin, checkpoint
from checkpoint_plugin.policy import Policy

__all__ = ["CheckpointPlugin", "Policy", "checkpoint"]
