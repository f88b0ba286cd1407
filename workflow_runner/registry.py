"""Where node types come from: the modules that a user names, and installed packages that register some.

A document or a stored row can name a type, never a module: nothing here imports what a graph says.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from hookspecs import text_of
from workflow_runner.builtin import BUILTIN_TYPES
from workflow_runner.errors import NodeDefinitionError, NodeModuleError
from workflow_runner.node import node_type_of
from workflow_runner.nodetype import NodeType

__all__ = ["NodeRegistry", "load_node_module"]

LOADING: Final = threading.RLock()
"""Files are loaded into `sys.modules`, and a thread that finds one there finds all of it."""


class NodeRegistry:
    """Node types by name. Modules are loaded at the first look-up.

    Args:
        sources: Python files, dotted names of modules, or modules.
        installed: gives the modules that installed packages register, by entry name; asked only for a type that
            nothing else has.

    Raises:
        NodeModuleError: on a look-up, when a module cannot be loaded or two have one name.
        NodeDefinitionError: on a look-up, when a node of a module is wrapped by another decorator.
    """

    def __init__(
        self, sources: Iterable[str | Path | ModuleType] = (), installed: Callable[[], Mapping[str, Any]] | None = None
    ) -> None:
        self._sources = tuple(sources)
        self._installed = installed
        self._types: dict[str, NodeType] | None = None

    def find(self, name: str) -> NodeType | None:
        """The type of that name."""
        types = self._loaded()
        found = types.get(name)
        if found is None:
            if self._installed is not None:
                for module in self._installed().values():
                    for type_name, node_type in _types_of(module).items():
                        types.setdefault(type_name, node_type)
                self._installed = None  # last: another thread that sees it finds them all
            found = types.get(name)
        return found

    def load(self) -> None:
        """Load the modules that the user named.

        Raises:
            NodeModuleError: one cannot be loaded, or two have one name.
        """
        self._loaded()

    def nearest(self, name: str) -> str | None:
        """The known name that is most like an unknown one."""
        names = list(self._loaded())
        close = get_close_matches(name, names, n=1, cutoff=0.6)
        if close:
            return close[0]
        last = name.rpartition(".")[2]
        return next((known for known in names if known.rpartition(".")[2] == last), None)

    def _loaded(self) -> dict[str, NodeType]:
        if self._types is None:
            types = dict(BUILTIN_TYPES)
            modules: dict[str, object] = {}
            for source in self._sources:
                name, module = load_node_module(source)
                if name in modules and modules[name] is not module:
                    raise NodeModuleError(f"two node modules are named {name!r}. Rename one of the files.")
                if name == "workflow":
                    raise NodeModuleError("a node module cannot be named 'workflow': that is where the built-in types are.")
                modules[name] = module
                types.update(_types_of(module, name))
            self._types = types
        return self._types


def load_node_module(source: str | Path | ModuleType) -> tuple[str, ModuleType]:
    """Load a module of node types.

    A file is loaded under a private entry of `sys.modules`; `sys.path` is not extended. Text that ends in `.py` or
    holds a path separator is a file, any other text a module's dotted name.

    Returns:
        Its name in type names, and the module.

    Raises:
        NodeModuleError: it cannot be loaded.
    """
    if isinstance(source, ModuleType):
        return source.__name__, source
    text = str(source)
    if isinstance(source, Path) or text.endswith(".py") or "/" in text or "\\" in text:
        return Path(text).stem, _load_file(Path(text))
    if not all(text.split(".")):
        raise NodeModuleError(
            f"{text!r} is neither a file of nodes nor the dotted name of a module. Give one like nodes.py or shop.nodes."
        )
    try:
        return text, importlib.import_module(text)
    except ImportError as error:
        # Itself, or a package that it is in: by whole names, for `torch_nodes` may be there where `torch` is not.
        if isinstance(error, ModuleNotFoundError) and f"{text}.".startswith(f"{error.name}."):
            file = text.replace(".", "/")
            raise NodeModuleError(
                f"there is no module {text!r} on Python's path. Install it, or name the folder it is in with PYTHONPATH; "
                f"for a file, give its path: --nodes path/to/{file}.py"
            ) from error
        raise NodeModuleError(f"node module {text!r} cannot be imported: {text_of(error)}. {_mend(error)}") from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # of `sys.exit`, or of `pytest.skip`, which is no Exception either
        raise NodeModuleError(
            f"node module {text!r} cannot be imported: {type(error).__name__}: {text_of(error)}. Mend it where that was raised."
        ) from error


def _load_file(path: Path) -> ModuleType:
    try:
        if not path.is_file():
            raise NodeModuleError(f"there is no node file {str(path)!r}. Check the path.")
    except OSError as error:
        raise NodeModuleError(f"node file {str(path)!r} cannot be read: {error.strerror}. Check the path.") from error
    resolved = path.resolve()
    key = f"_workflow_nodes_{hashlib.blake2b(os.fsencode(resolved), digest_size=8).hexdigest()}_{path.stem}"
    with LOADING:
        return _load_once(path, resolved, key)


def _load_once(path: Path, resolved: Path, key: str) -> ModuleType:
    loaded = sys.modules.get(key)
    if loaded is not None:
        return loaded
    spec = importlib.util.spec_from_file_location(key, resolved)
    if spec is None or spec.loader is None:
        raise NodeModuleError(f"{str(path)!r} is not a Python file. Node files end in .py.")
    module = importlib.util.module_from_spec(spec)
    # Its nodes, and types that it registers for a store, go by this name, whatever the folder.
    vars(module)["__workflow_name__"] = path.stem
    # Before it is executed: dataclasses with postponed annotations look their module up.
    sys.modules[key] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        sys.modules.pop(key, None)  # half of it would be found by the next look-up, also after Ctrl-C
        if isinstance(error, KeyboardInterrupt):
            raise
        raise NodeModuleError(
            f"node file {str(path)!r} cannot be loaded: {type(error).__name__}: {text_of(error)}. {_mend(error)}"
        ) from error
    return module


def _mend(error: BaseException) -> str:
    """What to do about what was raised while a module or file was loaded."""
    if isinstance(error, ModuleNotFoundError):
        return "Install it, or name the folder it is in with PYTHONPATH: that of a node file is not searched by itself."
    return "Mend it where that was raised."


def _types_of(module: Any, name: str | None = None) -> dict[str, NodeType]:
    """The node types in a module. Its own stand under the module's name, imported ones under that of theirs."""
    types: dict[str, NodeType] = {}
    for item in vars(module).values():
        try:
            node_type = node_type_of(item)
        except NodeDefinitionError:
            raise
        except Exception:  # it stands for another object, which cannot be had now: settings that nobody has configured
            continue
        if node_type is None or isinstance(item, NodeType):
            continue
        if name is not None and item.__module__ == module.__name__ and node_type.name == f"{item.__module__}.{item.__name__}":
            node_type = replace(node_type, name=f"{name}.{item.__name__}")
        known = types.get(node_type.name)
        if known is not None and known.definition is not node_type.definition:
            raise NodeModuleError(
                f"module {name or module.__name__!r} has two nodes named {node_type.name!r}. Rename one of them."
            )
        types[node_type.name] = node_type
    return types
