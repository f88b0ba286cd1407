from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import types

import pytest

import hookspecs
from hookspecs import HOOK_ARGUMENTS, SPEC_CLASSES, RunHooks, hookspec

SPECS = {name: spec for specs in SPEC_CLASSES for name, spec in vars(specs).items() if inspect.isfunction(spec)}
FIELDS = ("When", "Receives", "Returns", "Raises", "Kind")


@pytest.mark.parametrize("hook", SPECS)
def test_every_spec_tells_its_fields_in_order(hook: str) -> None:
    text = inspect.getdoc(SPECS[hook])
    assert text is not None
    found = re.findall(r"^(\w+): \S", text, re.MULTILINE)
    assert tuple(found) == FIELDS
    assert re.search(r"^Kind: (listener|provider)\b", text, re.MULTILINE)


@pytest.mark.parametrize("hook", SPECS)
def test_every_spec_is_of_its_colour_marked_and_without_defaults(hook: str) -> None:
    spec = SPECS[hook]
    assert inspect.iscoroutinefunction(spec) is (hook != "register_codecs")
    assert hasattr(spec, f"{hookspec.project_name}_spec")
    parameters = list(inspect.signature(spec).parameters.values())
    assert parameters[0].name == "self"
    assert all(p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters)


def test_hooks_arguments_and_binding_agree() -> None:
    assert set(SPECS) == set(HOOK_ARGUMENTS) == set(RunHooks.__dataclass_fields__)


def test_all_is_sorted_and_complete() -> None:
    modules = [importlib.import_module(f"hookspecs.{module.name}") for module in pkgutil.iter_modules(hookspecs.__path__)]
    internal = {"Implementation", "Registered"}
    for module in modules:
        own = {
            name
            for name, value in vars(module).items()
            if not name.startswith("_")
            and isinstance(value, type | types.FunctionType)
            and value.__module__ == module.__name__
            and name not in internal
        }
        assert own <= set(module.__all__), module.__name__
    exported = {
        name for name, value in vars(hookspecs).items() if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert exported == set(hookspecs.__all__)
    assert list(hookspecs.__all__) == sorted(hookspecs.__all__, key=lambda name: (not name.isupper(), name[0].islower(), name))
