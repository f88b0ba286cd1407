"""The contract between a workflow runner and its plugins: hooks, what crosses them, errors, tagged JSON."""

from hookspecs.binding import NO_HOOKS, RunHooks
from hookspecs.codecs import CodecRegistry, TeachCodecs
from hookspecs.contract import HOOK_ARGUMENTS, SPEC_CLASSES, check_plugin
from hookspecs.description import PluginDescription, describe_plugins
from hookspecs.entries import CODECS, COMMANDS, NODES, PLUGINS, STORES, PluginEntry
from hookspecs.errors import (
    AttemptLost,
    HookError,
    PluginBlocked,
    PluginConflict,
    PluginError,
    PluginInvalid,
    PluginLoadFailed,
    PluginMissing,
    PluginOptionsInvalid,
    Refusal,
    RunExists,
    RunNotFound,
    StoreError,
    TaggedValueError,
    WorkflowError,
)
from hookspecs.host import PluginHost, StoreFactory
from hookspecs.markers import PROJECT, hookimpl, hookspec
from hookspecs.outcome import Cancelled, Completed, Failed, Outcome
from hookspecs.run import CodecLoader, NodeInfo, RunControl, RunInfo, RunLoader, StoredRun
from hookspecs.snapshot import (
    CheckpointRef,
    EdgeSnapshot,
    NodeSnapshot,
    NodeStatus,
    Prefix,
    RunStatus,
    Snapshot,
    Taken,
)
from hookspecs.specs import CheckpointHooks, CodecHooks, NodeHooks, RunLifeHooks
from hookspecs.tagged import dumps_tagged, from_tagged, loads_tagged, to_tagged

__all__ = [
    "CODECS",
    "COMMANDS",
    "HOOK_ARGUMENTS",
    "NODES",
    "NO_HOOKS",
    "PLUGINS",
    "PROJECT",
    "SPEC_CLASSES",
    "STORES",
    "AttemptLost",
    "Cancelled",
    "CheckpointHooks",
    "CheckpointRef",
    "CodecHooks",
    "CodecLoader",
    "CodecRegistry",
    "Completed",
    "EdgeSnapshot",
    "Failed",
    "HookError",
    "NodeHooks",
    "NodeInfo",
    "NodeSnapshot",
    "NodeStatus",
    "Outcome",
    "PluginBlocked",
    "PluginConflict",
    "PluginDescription",
    "PluginEntry",
    "PluginError",
    "PluginHost",
    "PluginInvalid",
    "PluginLoadFailed",
    "PluginMissing",
    "PluginOptionsInvalid",
    "Prefix",
    "Refusal",
    "RunControl",
    "RunExists",
    "RunHooks",
    "RunInfo",
    "RunLifeHooks",
    "RunLoader",
    "RunNotFound",
    "RunStatus",
    "Snapshot",
    "StoreError",
    "StoreFactory",
    "StoredRun",
    "TaggedValueError",
    "Taken",
    "TeachCodecs",
    "WorkflowError",
    "check_plugin",
    "describe_plugins",
    "dumps_tagged",
    "from_tagged",
    "hookimpl",
    "hookspec",
    "loads_tagged",
    "to_tagged",
]
