"""What a package exports is what it says."""

from __future__ import annotations

import importlib
import inspect
from types import ModuleType
from typing import get_type_hints

import pytest

import hookspecs
import workflow_runner
from workflow_runner.runner import WorkflowRunner
from workflow_runner.synchronous import RunnerArguments


@pytest.mark.parametrize("package", [hookspecs, workflow_runner], ids=lambda p: p.__name__)
def test_all_is_complete_and_sorted(package: ModuleType) -> None:
    found = {name for name, value in vars(package).items() if not name.startswith("_") and not inspect.ismodule(value)}
    public = found - {"annotations"}
    assert set(package.__all__) == public
    assert package.__all__ == sorted(package.__all__, key=lambda name: (not name.isupper(), name[0].islower(), name))


@pytest.mark.parametrize("package", [hookspecs, workflow_runner], ids=lambda p: p.__name__)
def test_every_error_of_the_package_is_exported(package: ModuleType) -> None:
    errors = importlib.import_module(f"{package.__name__}.errors")
    assert set(errors.__all__) <= set(package.__all__)


def test_the_arguments_of_a_runner_are_known_to_its_twins() -> None:
    arguments = inspect.signature(WorkflowRunner, eval_str=True).parameters
    assert get_type_hints(RunnerArguments) == {name: argument.annotation for name, argument in arguments.items()}
