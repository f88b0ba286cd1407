"""What each node type of the simulation must emit, given what came in. The check asks these, never the runner."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from tests.simulation import plain, sources, streaming, unruly
from tests.simulation.lab import PACKED, member_of, mix, shape

__all__ = ["KINDS", "Columns", "Data", "Emissions", "Kind", "Streams", "answer_to"]

Data = Mapping[str, Any]
Streams = Mapping[str, Sequence[Any]]
"""Items by input handle."""
Columns = dict[str, list[Any]]
"""Items by output handle."""
Emissions = list[Mapping[str, Any]]
"""What one firing emits, in order."""
Step = Callable[[str, Data, Any, Sequence[Any]], tuple[Any, Emissions]]
"""One firing of a plain node: (node id, properties, state, arguments) to (state, emissions)."""
Model = Callable[[str, Data, Streams], Columns]
Verify = Callable[[str, Data, Streams, Columns], str | None]
"""What is wrong with a node's outputs, for those that may emit different things."""


@dataclass(frozen=True)
class Kind:
    """A node type, and what it must emit.

    Args:
        node: the decorated function or class.
        handles: inputs that take edges, in order.
        outputs: output handles.
        properties: names of the properties that it takes.
        step: of a plain node.
        model: of a source or a streaming node; where `verify` is given only the number of items counts.
        verify: what is wrong with the outputs, where more than one is right.
        streaming: whether its handles are streams.
        single: handles that take exactly one item.
        collects: whether its only handle takes several edges.
    """

    node: Any
    handles: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ("output",)
    properties: tuple[str, ...] = ()
    step: Step | None = None
    model: Model | None = None
    verify: Verify | None = None
    streaming: bool = False
    single: tuple[str, ...] = ()
    collects: bool = False

    @property
    def role(self) -> Literal["source", "plain", "streaming"]:
        """What it is to the aligner."""
        if not self.handles:
            return "source"
        return "streaming" if self.streaming else "plain"


def only(value: Any) -> Emissions:
    """One emission at the default handle."""
    return [{"output": value}]


def column(values: Sequence[Any]) -> Columns:
    """The items of the default handle."""
    return {"output": list(values)}


# Plain nodes: one firing each.


def mix_step(node_id: str, data: Data, state: Any, arguments: Sequence[Any]) -> tuple[Any, Emissions]:
    return state, only(shape(data["form"], mix(node_id, *arguments)))


def chain_step(node_id: str, data: Data, state: Any, arguments: Sequence[Any]) -> tuple[Any, Emissions]:
    value = mix(node_id, state or "", *arguments)
    return value, only(shape(data["form"], value))


def split_step(node_id: str, data: Data, state: Any, arguments: Sequence[Any]) -> tuple[Any, Emissions]:
    (item,) = arguments
    count = state or 0
    both = {"left": mix(node_id, "left", item), "right": [item]}
    missing = (None, "left", "right")[count % 3]
    return count + 1, [{handle: value for handle, value in both.items() if handle != missing}]


def fan_step(node_id: str, data: Data, state: Any, arguments: Sequence[Any]) -> tuple[Any, Emissions]:
    firing = state or 0
    return firing + 1, [e for i in range(data["k"]) for e in only(shape(data["form"], mix(node_id, *arguments, firing, i)))]


def thread_fan_step(node_id: str, data: Data, state: Any, arguments: Sequence[Any]) -> tuple[Any, Emissions]:
    return state, [e for i in range(data["k"]) for e in only(shape(data["form"], mix(node_id, *arguments, i)))]


def pack_step(node_id: str, data: Data, state: Any, arguments: Sequence[Any]) -> tuple[Any, Emissions]:
    return state, only([mix(node_id, *arguments, i) for i in range(PACKED)])


def answer_to(node_id: str, item: Any) -> str:
    """What the person says whom a node asks about an item."""
    return mix("answer", member_of(node_id), item)


def consult_step(node_id: str, data: Data, state: Any, arguments: Sequence[Any]) -> tuple[Any, Emissions]:
    (item,) = arguments
    return state, only(shape(data["form"], mix(node_id, item, answer_to(node_id, item))))


def forget_step(node_id: str, data: Data, state: Any, arguments: Sequence[Any]) -> tuple[Any, Emissions]:
    return state, only(None)


# Sources and streaming nodes: their whole life.


def count_model(node_id: str, data: Data, streams: Streams) -> Columns:
    return column([shape(data["form"], f"{node_id}.{i}") for i in range(data["n"])])


def endless_model(node_id: str, data: Data, streams: Streams) -> Columns:
    return count_model(node_id, {**data, "n": 100}, streams)


def single_model(node_id: str, data: Data, streams: Streams) -> Columns:
    return column([shape(data["form"], node_id)])


def random_model(node_id: str, data: Data, streams: Streams) -> Columns:
    return column([(i, None) for i in range(data["n"])])


def random_verify(node_id: str, data: Data, streams: Streams, found: Columns) -> str | None:
    numbers = [i for i, _ in found["output"]]
    return None if numbers == list(range(data["n"])) else f"numbers {numbers}, not 0 to {data['n'] - 1}"


def running_model(node_id: str, data: Data, streams: Streams) -> Columns:
    values, last = [], ""
    for item in streams["items"]:
        last = mix(node_id, last, item)
        values.append(shape(data["form"], last))
    return column(values)


def gather_model(node_id: str, data: Data, streams: Streams) -> Columns:
    items = list(streams["items"])
    return column([mix(node_id, items[: i + 1]) for i in range(len(items))])


def double_model(node_id: str, data: Data, streams: Streams) -> Columns:
    return column([mix(node_id, item, i) for item in streams["items"] for i in (0, 1)])


def keep_model(node_id: str, data: Data, streams: Streams) -> Columns:
    return column(streams["items"][:: data["k"]])


def first_model(node_id: str, data: Data, streams: Streams) -> Columns:
    return column(list(islice(streams["items"], data["k"])))


def arrive_model(node_id: str, data: Data, streams: Streams) -> Columns:
    return column([(handle, item) for handle in ("a", "b") for item in streams[handle]])


def arrive_verify(node_id: str, data: Data, streams: Streams, found: Columns) -> str | None:
    if node_id.startswith("arrive") and streams["a"] and found["output"][:1] != [("a", streams["a"][0])]:
        return f"it began with {found['output'][:1]}"
    for handle in ("a", "b"):
        items = [item for name, item in found["output"] if name == handle]
        if items != list(streams[handle]):
            return f"from {handle!r} it gave {items}, not {list(streams[handle])}"
    return None


def alternate_model(node_id: str, data: Data, streams: Streams) -> Columns:
    return column([mix(node_id, one, other) for one, other in zip(streams["a"], streams["b"], strict=False)])


def readers_model(node_id: str, data: Data, streams: Streams) -> Columns:
    found = []
    for name in ("a", "b"):
        last = ""
        for item in streams[name]:
            last = mix(node_id, name, last, item)
        found.append(last)
    return column(found)


def relay_model(node_id: str, data: Data, streams: Streams) -> Columns:
    return column([shape(data["form"], mix(node_id, item)) for item in streams["items"]])


def consult_model(node_id: str, data: Data, streams: Streams) -> Columns:
    items = enumerate(streams["items"])
    return column([mix(node_id, item, answer_to(node_id, item)) if i % 2 else mix(node_id, item) for i, item in items])


def scale_model(node_id: str, data: Data, streams: Streams) -> Columns:
    (by,) = streams["by"]
    return column([mix(node_id, by, item) for item in streams["items"]])


def numbered_model(start: int) -> Model:
    def model(node_id: str, data: Data, streams: Streams) -> Columns:
        return column([mix(node_id, i, item) for i, item in enumerate(streams["items"], start)])

    return model


def keep_all_model(node_id: str, data: Data, streams: Streams) -> Columns:
    return column(streams["items"])


def diverge_verify(node_id: str, data: Data, streams: Streams, found: Columns) -> str | None:
    steps: list[list[int]] = [[] for _ in streams["items"]]
    for count, i in found["output"]:
        steps[count].append(i)
    wrong = [(count, step) for count, step in enumerate(steps) if step != list(range(len(step))) or len(step) not in (1, 4)]
    return f"steps {wrong} are not whole" if wrong else None


def each_model(node_id: str, data: Data, streams: Streams) -> Columns:
    """What is in what `pack` packs, where only the number of items counts that many."""
    return column([part for item in streams["items"] for part in (item if isinstance(item, list) else [item] * PACKED)])


def collect_model(node_id: str, data: Data, streams: Streams) -> Columns:
    return column([list(streams["items"])])


def one_model(node_id: str, data: Data, streams: Streams) -> Columns:
    return column(["all"])


ONE = ("items",)
TWO = ("a", "b")

KINDS: Mapping[str, Kind] = {
    "count_up": Kind(sources.count_up, properties=("n", "form"), model=count_model),
    "commit_up": Kind(sources.commit_up, properties=("n", "form", "every"), model=count_model),
    "thread_up": Kind(sources.thread_up, properties=("n", "form", "every"), model=count_model),
    "random_up": Kind(sources.random_up, properties=("n",), model=random_model, verify=random_verify),
    "endless": Kind(sources.endless, properties=("form",), model=endless_model),
    "given": Kind("workflow.Input", properties=("name", "form"), model=single_model),
    "single": Kind(sources.single, properties=("form",), model=single_model),
    "each": Kind("workflow.Each", ONE, model=each_model, streaming=True),
    "collect": Kind("workflow.Collect", ONE, model=collect_model, streaming=True),
    "pack": Kind(plain.pack, ("a",), step=pack_step),
    "mix_one": Kind(plain.mix_one, ("a",), properties=("form",), step=mix_step),
    "mix_two": Kind(plain.MixTwo, TWO, properties=("form",), step=mix_step),
    "mix_list": Kind(plain.mix_list, ONE, properties=("form",), step=mix_step, collects=True),
    "thread_mix": Kind(plain.thread_mix, TWO, properties=("form",), step=mix_step),
    "chain": Kind(plain.chain, ("a",), properties=("form",), step=chain_step),
    "split": Kind(plain.split, ("a",), outputs=("left", "right"), step=split_step),
    "fan": Kind(plain.fan, ("a",), properties=("k", "form"), step=fan_step),
    "thread_fan": Kind(plain.thread_fan, ("a",), properties=("k", "form"), step=thread_fan_step),
    "consult": Kind(plain.consult, ("a",), properties=("form",), step=consult_step),
    "consult_stream": Kind(streaming.consult_stream, ONE, model=consult_model, streaming=True),
    "forget": Kind(plain.forget, ("a",), step=forget_step),
    "running": Kind(streaming.running, ONE, properties=("form", "every"), model=running_model, streaming=True),
    "gather_state": Kind(streaming.gather_state, ONE, properties=("every",), model=gather_model, streaming=True),
    "double": Kind(streaming.double, ONE, model=double_model, streaming=True),
    "keep_every": Kind(streaming.keep_every, ONE, properties=("k",), model=keep_model, streaming=True),
    "first": Kind(streaming.first, ONE, properties=("k", "every"), model=first_model, streaming=True),
    "arrive": Kind(streaming.arrive, TWO, properties=("every",), model=arrive_model, verify=arrive_verify, streaming=True),
    "thread_arrive": Kind(unruly.thread_arrive, TWO, model=arrive_model, verify=arrive_verify, streaming=True),
    "mingle": Kind(streaming.mingle, TWO, model=arrive_model, verify=arrive_verify, streaming=True),
    "alternate": Kind(streaming.alternate, TWO, properties=("every",), model=alternate_model, streaming=True),
    "two_readers": Kind(streaming.two_readers, TWO, model=readers_model, streaming=True),
    "relay": Kind(streaming.relay, ONE, properties=("form",), model=relay_model, streaming=True),
    "scale": Kind(streaming.scale, ("items", "by"), model=scale_model, streaming=True, single=("by",)),
    "tidy": Kind(unruly.tidy, ONE, properties=("every",), model=numbered_model(0), streaming=True),
    "stubborn": Kind(unruly.stubborn, ONE, model=numbered_model(0), streaming=True),
    "ask": Kind(unruly.ask, ONE, properties=("every",), model=numbered_model(1), streaming=True),
    "diverge": Kind(unruly.diverge, ONE, model=keep_all_model, verify=diverge_verify, streaming=True),
    "hoard": Kind(unruly.hoard, ONE, model=one_model, streaming=True),
    "change_item": Kind(unruly.change_item, ONE, model=one_model, streaming=True),
    "thread_running": Kind(streaming.thread_running, ONE, properties=("form", "every"), model=running_model, streaming=True),
}
"""By name."""
