"""Checkpoints for workflow runs, on SQLite and PostgreSQL.

Importing this package imports no database layer; a run that enables the plugin does, when it opens its store.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from checkpoint_plugin.errors import (
    BlobsUnusable,
    CheckpointError,
    FieldInvalid,
    GraphMismatch,
    IllegalTransition,
    KeyMissing,
    KeyUnusable,
    NodeNotSuspended,
    NotForkable,
    NotResumable,
    PolicyInvalid,
    SchemaChanged,
    SchemaInUse,
    SchemaNewer,
    SchemaOutdated,
    StaleVersion,
    StoreBusy,
    StoreDamaged,
    StoreFull,
    StoreMissing,
    StoreOnNetwork,
    StoreReadOnly,
    StoreUnreachable,
    StoreUnreadable,
    StoreUrlInvalid,
    ValueNotReadable,
    ValueNotStorable,
    WriterStopped,
)
from checkpoint_plugin.plugin import CheckpointPlugin, checkpoint
from checkpoint_plugin.policy import Policy

if TYPE_CHECKING:
    from checkpoint_plugin.by_hand.checkpoint_data import CheckpointData, NodeStateSnapshot
    from checkpoint_plugin.by_hand.state_manager import UNSET, StateManager, StateStats
    from checkpoint_plugin.codec import Codec, MalformedValue, TypeRefused, TypeRegistry, register
    from checkpoint_plugin.database.location import locate
    from checkpoint_plugin.events.log import EventLogger, EventRecord
    from checkpoint_plugin.manager import CheckpointManager, create_checkpoint_hook, restore_checkpoint_hook
    from checkpoint_plugin.models import Job, RunNodeState
    from checkpoint_plugin.recovery.plan import PlanEntry, RecoveryPlan
    from checkpoint_plugin.recovery.resumption import RecoveryOutcome
    from checkpoint_plugin.recovery.service import RecoveryService
    from checkpoint_plugin.retention import Retention, Thinning
    from checkpoint_plugin.runs.answers import update_suspended_state
    from checkpoint_plugin.runs.forking import fork_run
    from checkpoint_plugin.runs.jobs import JobRepository, Page
    from checkpoint_plugin.space.housekeeping import PruneReport, prune
    from checkpoint_plugin.space.pruning import Pruned
    from checkpoint_plugin.space.sweep import Swept
    from checkpoint_plugin.store import Store

__all__ = [
    "UNSET",
    "BlobsUnusable",
    "CheckpointData",
    "CheckpointError",
    "CheckpointManager",
    "CheckpointPlugin",
    "Codec",
    "EventLogger",
    "EventRecord",
    "FieldInvalid",
    "GraphMismatch",
    "IllegalTransition",
    "Job",
    "JobRepository",
    "KeyMissing",
    "KeyUnusable",
    "MalformedValue",
    "NodeNotSuspended",
    "NodeStateSnapshot",
    "NotForkable",
    "NotResumable",
    "Page",
    "PlanEntry",
    "Policy",
    "PolicyInvalid",
    "PruneReport",
    "Pruned",
    "RecoveryOutcome",
    "RecoveryPlan",
    "RecoveryService",
    "Retention",
    "RunNodeState",
    "SchemaChanged",
    "SchemaInUse",
    "SchemaNewer",
    "SchemaOutdated",
    "StaleVersion",
    "StateManager",
    "StateStats",
    "Store",
    "StoreBusy",
    "StoreDamaged",
    "StoreFull",
    "StoreMissing",
    "StoreOnNetwork",
    "StoreReadOnly",
    "StoreUnreachable",
    "StoreUnreadable",
    "StoreUrlInvalid",
    "Swept",
    "Thinning",
    "TypeRefused",
    "TypeRegistry",
    "ValueNotReadable",
    "ValueNotStorable",
    "WriterStopped",
    "checkpoint",
    "create_checkpoint_hook",
    "fork_run",
    "locate",
    "prune",
    "register",
    "restore_checkpoint_hook",
    "update_suspended_state",
]

_LAZY = {
    "CheckpointData": "by_hand.checkpoint_data",
    "CheckpointManager": "manager",
    "Codec": "codec",
    "EventLogger": "events.log",
    "EventRecord": "events.log",
    "Job": "models",
    "JobRepository": "runs.jobs",
    "MalformedValue": "codec",
    "NodeStateSnapshot": "by_hand.checkpoint_data",
    "Page": "runs.jobs",
    "PlanEntry": "recovery.plan",
    "PruneReport": "space.housekeeping",
    "Pruned": "space.pruning",
    "RecoveryOutcome": "recovery.resumption",
    "RecoveryPlan": "recovery.plan",
    "RecoveryService": "recovery.service",
    "Retention": "retention",
    "RunNodeState": "models",
    "StateManager": "by_hand.state_manager",
    "StateStats": "by_hand.state_manager",
    "Store": "store",
    "Swept": "space.sweep",
    "Thinning": "retention",
    "TypeRefused": "codec",
    "TypeRegistry": "codec",
    "UNSET": "by_hand.state_manager",
    "create_checkpoint_hook": "manager",
    "fork_run": "runs.forking",
    "locate": "database.location",
    "prune": "space.housekeeping",
    "register": "codec",
    "restore_checkpoint_hook": "manager",
    "update_suspended_state": "runs.answers",
}
"""Where the names live whose modules import more than a run needs that saves nothing: imported when one is asked for."""


if not TYPE_CHECKING:  # else a misspelt name is of type Any to a type checker, and no error

    def __getattr__(name: str) -> Any:
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *_LAZY})
