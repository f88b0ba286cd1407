"""A small actor runner for node graphs: one asyncio actor a node, bounded inboxes, streaming edges."""

from workflow_runner.compiled import CompiledGraph
from workflow_runner.context import Context
from workflow_runner.errors import (
    Cancelled,
    Deadlock,
    GraphChanged,
    GraphInvalid,
    InputChanged,
    InputInvalid,
    ItemTypeError,
    LogOverflow,
    NodeDefinitionError,
    NodeFailed,
    NodeModuleError,
    NodeNotWaiting,
    NodeProtocolError,
    NodeTimeout,
    NotResuming,
    OutcomeUnknown,
    ReplayDiverged,
    RunIdInvalid,
    RunnerError,
    RunStopped,
    SourceChanged,
    StateNotCopyable,
    StoreUnknown,
    SuspensionUnavailable,
)
from workflow_runner.events import (
    CheckpointSaved,
    EdgeChanged,
    Event,
    NodeChanged,
    NodeRetried,
    NodeSuspended,
    Progressed,
    RunEnded,
    RunStarted,
)
from workflow_runner.failure import Backoff
from workflow_runner.graph import Graph, NodeRef, Output
from workflow_runner.node import Node, node
from workflow_runner.runner import Result, WorkflowRunner
from workflow_runner.specs import EdgeSpec, NodeSpec
from workflow_runner.stream import Stream
from workflow_runner.suspendable import SuspendableNode
from workflow_runner.suspension import WorkflowSuspended
from workflow_runner.synchronous import resume_workflow, run_workflow
from workflow_runner.threads import ThreadContext

__all__ = [
    "Backoff",
    "Cancelled",
    "CheckpointSaved",
    "CompiledGraph",
    "Context",
    "Deadlock",
    "EdgeChanged",
    "EdgeSpec",
    "Event",
    "Graph",
    "GraphChanged",
    "GraphInvalid",
    "InputChanged",
    "InputInvalid",
    "ItemTypeError",
    "LogOverflow",
    "Node",
    "NodeChanged",
    "NodeDefinitionError",
    "NodeFailed",
    "NodeModuleError",
    "NodeNotWaiting",
    "NodeProtocolError",
    "NodeRef",
    "NodeRetried",
    "NodeSpec",
    "NodeSuspended",
    "NodeTimeout",
    "NotResuming",
    "OutcomeUnknown",
    "Output",
    "Progressed",
    "ReplayDiverged",
    "Result",
    "RunEnded",
    "RunIdInvalid",
    "RunStarted",
    "RunStopped",
    "RunnerError",
    "SourceChanged",
    "StateNotCopyable",
    "StoreUnknown",
    "Stream",
    "SuspendableNode",
    "SuspensionUnavailable",
    "ThreadContext",
    "WorkflowRunner",
    "WorkflowSuspended",
    "node",
    "resume_workflow",
    "run_workflow",
]
