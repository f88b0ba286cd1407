"""A capture is what hooks are promised: a frozen `NodeSnapshot` with every field."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, replace

import pytest

from hookspecs import NodeSnapshot
from tests.workflow_runner.doubles import MemoryStore
from workflow_runner import Context, Graph, WorkflowRunner, node
