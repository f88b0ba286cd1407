"""How a node is written: a decorated function, or a class whose fields are its inputs."""

from __future__ import annotations

import builtins
import dataclasses
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, ClassVar, Final, TypeVar, Union, dataclass_transform, get_args, get_origin, get_type_hints, overload

from workflow_runner.checker import make_checker, unwrap
from workflow_runner.context import Context
from workflow_runner.errors import NodeDefinitionError
from workflow_runner.failure import Backoff, BackoffLike, FailurePolicy, PolicyValueInvalid
from workflow_runner.handle import MADE, REQUIRED, Handle
from workflow_runner.nodetype import BodyKind, NodeType
from workflow_runner.source import keep_source, sources_of
from workflow_runner.stream import Stream
from workflow_runner.threads import ThreadContext

__all__ = ["Node", "node", "node_type_of"]

F = TypeVar("F", bound=Callable[..., Any])
ATTRIBUTE = "__node_type__"
ExceptionClass = builtins.type[Exception]
DEFAULT_BACKOFF: Final = Backoff()


@overload
def node(function: F, /) -> F: ...
@overload
def node(
    *,
    outputs: Sequence[str] = ...,
    type: str | None = ...,
    stateless: bool = ...,
    retries: int = ...,
    backoff: BackoffLike = ...,
    retry_on: ExceptionClass | Sequence[ExceptionClass] = ...,
    timeout: float | None = ...,
    replayable: bool = ...,
) -> Callable[[F], F]: ...
def node(
    function: F | None = None,
    /,
    *,
    outputs: Sequence[str] = ("output",),
    type: str | None = None,
    stateless: bool = False,
    retries: int = 0,
    backoff: BackoffLike = DEFAULT_BACKOFF,
    retry_on: ExceptionClass | Sequence[ExceptionClass] = Exception,
    timeout: float | None = None,
    replayable: bool = True,
) -> F | Callable[[F], F]:
    """Make a function a node type; the function itself stays as it was.

    Parameters are inputs or properties; one annotated `Context` (or, in a `def` body, `ThreadContext`) is given the context,
    one annotated `Stream[T]` reads its edge item by item. `async def` runs in the event loop, `def` in a worker thread, a
    generator emits what it yields.

    Args:
        function: the body; left out where there are other arguments.
        outputs: output handles. With any but the default the body returns or yields a mapping of them; a missing
            key emits nothing there.
        type: the name in a graph, default `<module>.<function>`.
        stateless: the body keeps nothing between the items of its streams, so that every read is a commit point.
        retries: how often a step that raised is tried again, from its last commit point, with the same arguments.
        backoff: seconds before the second try, doubled at each further one, up to a minute, with jitter; or the waits one by
            one, as `(1, 10, 60)`; or a `Backoff`.
        retry_on: the exceptions that are worth a new try.
        timeout: seconds that one try may take, its waiting for items and consumers included.
        replayable: `False` for a body that must not be repeated unless a person says so: when the run dies while it is in
            progress, the resume stops there.

    Raises:
        NodeDefinitionError: the function cannot be a node.
    """

    def decorate(function: F) -> F:
        failure = _failure(function, retries, backoff, retry_on, timeout=timeout, replayable=replayable)
        made = _function_type(function, outputs, type, stateless, failure)
        function.__node_type__ = made  # type: ignore[attr-defined]
        return function

    return decorate(function) if function is not None else decorate


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(dataclasses.field, dataclasses.Field))
class Node:
    """A node as a class: annotated fields are inputs, `process` is the body.

    Every firing makes a new frozen instance, so state lives in `context.state`. Class keywords are those of `node`:

        class Split(Node, outputs=("word", "count")):
            text: str

            async def process(self, context: Context) -> dict[str, object]: ...
    """

    __node_type__: ClassVar[NodeType]

    def __init_subclass__(
        cls,
        *,
        outputs: Sequence[str] = ("output",),
        type: str | None = None,
        stateless: bool = False,
        retries: int = 0,
        backoff: BackoffLike = DEFAULT_BACKOFF,
        retry_on: ExceptionClass | Sequence[ExceptionClass] = Exception,
        timeout: float | None = None,
        replayable: bool = True,
        **keywords: Any,
    ) -> None:
        super().__init_subclass__(**keywords)
        dataclasses.dataclass(frozen=True, kw_only=True, eq=False)(cls)
        keep_source(cls)
        process = getattr(cls, "process", None)
        if process is None:
            return  # a common base of nodes; its subclasses have the body
        failure = _failure(cls, retries, backoff, retry_on, timeout=timeout, replayable=replayable)
        cls.__node_type__ = _class_type(cls, process, outputs, type, stateless, failure)


def node_type_of(item: Any) -> NodeType | None:
    """The node type of a decorated function or a `Node` class, `None` for anything else.

    Raises:
        NodeDefinitionError: another decorator wraps the node, and a run would call what is inside.
    """
    if isinstance(item, NodeType):
        return item
    if inspect.isclass(item) and issubclass(item, Node):
        return item.__dict__.get(ATTRIBUTE)
    found: NodeType | None = getattr(item, ATTRIBUTE, None) if inspect.isfunction(item) else None
    if found is not None and found.definition is not item:  # `functools.wraps` copies attributes
        raise NodeDefinitionError(
            f"{item.__qualname__}: another decorator stands above @node, and no run would call it. Write @node above it."
        )
    return found


def type_name(definition: Any) -> str:
    """`<module>.<name>`, whatever way the module was loaded: run as a program, given with `--nodes`, or imported."""
    module = sys.modules.get(definition.__module__)
    known: object = getattr(module, "__workflow_name__", None)
    if known is None and definition.__module__ in ("__main__", "__mp_main__"):  # the second in a process that was spawned
        known = getattr(getattr(module, "__spec__", None), "name", None)  # of `python -m`
        if known in (None, "__main__"):
            known = Path(getattr(module, "__file__", None) or "__main__").stem
    return f"{known if isinstance(known, str) else definition.__module__}.{definition.__name__}"


def _failure(
    definition: Any, retries: int, backoff: BackoffLike, retry_on: ExceptionClass | Sequence[ExceptionClass], **others: Any
) -> FailurePolicy:
    try:
        return FailurePolicy.declared(retries, backoff, retry_on, **others)
    except PolicyValueInvalid as error:
        raise NodeDefinitionError(f"{getattr(definition, '__qualname__', definition)}: {error}.") from error


def _function_type(function: Any, outputs: Sequence[str], name: str | None, stateless: bool, failure: FailurePolicy) -> NodeType:
    if not inspect.isfunction(function):
        raise NodeDefinitionError(f"@node takes a function, not {function!r}. Write a class as a subclass of Node.")
    hints = _hints(function, function.__qualname__)
    handles: dict[str, Handle] = {}
    context_name: str | None = None
    parameters = inspect.signature(function).parameters.values()
    for parameter in parameters:
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise NodeDefinitionError(
                f"{function.__qualname__}: parameter {parameter.name!r} cannot be an input: {parameter.kind.description}. "
                "Give it a name of its own."
            )
        annotation = hints.get(parameter.name, Any)
        needed = _needed(annotation)
        if needed in (Context, ThreadContext) or (parameter.name == "context" and parameter.name not in hints):
            _check_context(function, parameter.name, needed)
            context_name = parameter.name
            continue
        default = REQUIRED if parameter.default is parameter.empty else parameter.default
        handles[parameter.name] = _handle(parameter.name, annotation, default)

    def call(arguments: Mapping[str, Any], context: Any) -> Any:
        if context_name is None:
            return function(**arguments)
        return function(**arguments, **{context_name: context})

    return NodeType(
        name=name or type_name(function),
        handles=handles,
        outputs=_outputs(outputs, function.__qualname__),
        kind=_kind(function),
        call=call,
        stateless=stateless,
        definition=function,
        emits_mapping=tuple(outputs) != ("output",),
        wants_context=context_name is not None,
        function=function if context_name is None else None,
        leading=next((p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD), None),
        failure=failure,
        sources=sources_of(function),
    )


def _class_type(
    cls: type[Node], process: Any, outputs: Sequence[str], name: str | None, stateless: bool, failure: FailurePolicy
) -> NodeType:
    if not inspect.isfunction(process):
        raise NodeDefinitionError(f"{cls.__qualname__}.process is not a method. Write `async def process(self, context)`.")
    hints = _hints(cls, cls.__qualname__)
    handles: dict[str, Handle] = {}
    for item in dataclasses.fields(cls):  # type: ignore[arg-type]
        if not item.init:  # the class makes it itself
            continue
        default: Any = item.default
        if default is dataclasses.MISSING:
            default = REQUIRED if item.default_factory is dataclasses.MISSING else MADE
        handles[item.name] = _handle(item.name, hints[item.name], default)
    parameters = list(inspect.signature(process).parameters.values())[1:]
    if len([p for p in parameters if p.default is p.empty]) > 1:
        raise NodeDefinitionError(
            f"{cls.__qualname__}.process takes self and the context. Make other parameters fields of the class."
        )
    takes_context = bool(parameters)
    if takes_context:
        _check_context(process, parameters[0].name, parameters[0].annotation)

    bind = getattr(cls, "_bind", None)  # of a node that suspends: it asks its context by itself

    def call(arguments: Mapping[str, Any], context: Any) -> Any:
        instance = cls(**arguments)
        if bind is not None:
            bind(instance, context)
        return process(instance, context) if takes_context else process(instance)

    return NodeType(
        name=name or type_name(cls),
        handles=handles,
        outputs=_outputs(outputs, cls.__qualname__),
        kind=_kind(process),
        call=call,
        stateless=stateless,
        definition=cls,
        emits_mapping=tuple(outputs) != ("output",),
        wants_context=takes_context or bind is not None,
        failure=failure,
        sources=sources_of(cls),
    )


def _check_context(body: Any, name: str, annotation: Any) -> None:
    if annotation in (ThreadContext, ThreadContext.__name__) and _kind(body) in ("coroutine", "async_generator"):
        raise NodeDefinitionError(
            f"{body.__qualname__}: only a `def` body is given a ThreadContext. Annotate {name!r} with Context."
        )


def _handle(name: str, annotation: Any, default: Any) -> Handle:
    needed = _needed(annotation)
    if needed is Stream:
        return Handle(name, Any, True, default)
    if get_origin(needed) is Stream:
        return Handle(name, get_args(needed)[0], True, default)
    return Handle(name, annotation, False, default)


def _needed(annotation: Any) -> Any:
    """An annotation without what is only added to it: `T` of `T | None` and of `Annotated[T, ...]`."""
    annotation = unwrap(annotation)
    if get_origin(annotation) in (Union, UnionType):
        members = [member for member in get_args(annotation) if member is not NoneType]
        if len(members) == 1:
            return _needed(members[0])
    return annotation


def _hints(definition: Any, qualname: str) -> dict[str, Any]:
    try:
        hints = get_type_hints(definition, localns=_local_names(definition), include_extras=True)
        for name, hint in hints.items():
            if name != "return":
                make_checker(hint)  # what a `type` statement names is looked up only now
        return hints
    except NameError as error:
        raise NodeDefinitionError(
            f"{qualname}: the annotations name something that is not defined in the module: {error}. "
            "Import it there, or define it at the top of the module."
        ) from error


def _local_names(definition: Any) -> dict[str, Any] | None:
    """What annotations as text may name beside what the module has: type parameters, which Python 3.12 does not look for."""
    is_class = inspect.isclass(definition)
    owners = reversed(definition.__mro__) if is_class else (definition,)
    parameters = {each.__name__: each for owner in owners for each in getattr(owner, "__type_params__", ())}
    if not parameters:
        return None
    return {**vars(definition), **parameters} if is_class else parameters


def _outputs(outputs: Sequence[str], qualname: str) -> tuple[str, ...]:
    if isinstance(outputs, str) or not all(isinstance(o, str) and o for o in outputs) or len(set(outputs)) != len(outputs):
        raise NodeDefinitionError(f'{qualname}: outputs are different names, like outputs=("word", "count"), not {outputs!r}.')
    return tuple(outputs)


def _kind(function: Any) -> BodyKind:
    if inspect.isasyncgenfunction(function):
        return "async_generator"
    if inspect.iscoroutinefunction(function):
        return "coroutine"
    return "generator" if inspect.isgeneratorfunction(function) else "function"
