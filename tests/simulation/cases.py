"""Cases: a small graph, how it is run and what goes wrong, all from one seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, Literal

from tests.simulation.lab import FORMS, shape
from tests.simulation.models import KINDS, Columns
from workflow_runner import Graph, NodeRef
from workflow_runner.aligner import SyncMode

__all__ = ["Case", "Member", "Port", "make_case"]

Port = tuple[str, str]
"""An output: node id and handle."""
Policy = Literal["times", "every_firing", "explicit", "none"]
MAX_ITEMS = 20
MAX_MEMBERS = 10
NEVER_PURE = ("random_up", "arrive", "thread_arrive", "diverge")
THREADED = ("thread_up", "thread_mix", "thread_fan", "thread_running", "thread_arrive")


@dataclass
class Member:
    """A node of the case's graph."""

    node_id: str
    kind: str
    data: Mapping[str, Any] = field(default_factory=dict)
    sources: Mapping[str, Sequence[Port]] = field(default_factory=dict)
    sync_mode: SyncMode = "on_any"
    observed: bool = True
    """Whether every output also feeds a `workflow.Output` of its own."""

    @property
    def slots(self) -> list[Port]:
        """What comes in, edge by edge."""
        return [port for handle in KINDS[self.kind].handles for port in self.sources[handle]]


@dataclass
class Case:
    """One seed.

    Args:
        seed: that it was made from.
        members: its nodes, producers before consumers.
        lengths: how many items come from each output.
        pure: nodes of which every run must do the same.
    """

    seed: int
    shape: str
    members: list[Member] = field(default_factory=list)
    lengths: dict[Port, int] = field(default_factory=dict)
    pure: set[str] = field(default_factory=set)
    edge_capacity: int = 1
    max_log: int = 10_000
    policy: Policy = "times"
    interval: float = 3.0
    slow_saves: float = 1.0
    listens: bool = False
    watched: bool = False
    save_at: tuple[str, ...] = ()
    crashes: int = 0
    troubles: int = 0
    """How often it is stopped, or a body or save fails, over all worlds."""
    overflows: str | None = None
    """The node whose log must not hold all that it takes."""

    def graph(self) -> Graph:
        """The graph to run."""
        graph = Graph()
        for member in self.members:
            kind = KINDS[member.kind]
            inputs: dict[str, Any] = {
                name: value for name, value in member.data.items() if (member.kind, name) != ("given", "form")
            }
            for handle, ports in member.sources.items():
                outputs = [NodeRef(node_id)[name] for node_id, name in ports]
                inputs[handle] = outputs if kind.collects else outputs[0]
            graph.add(kind.node, member.node_id, sync_mode=member.sync_mode, **inputs)
        for member in self.members:
            if member.observed:
                for handle in KINDS[member.kind].outputs:
                    graph.output(f"{member.node_id}.{handle}", NodeRef(member.node_id)[handle])
        return graph

    def inputs(self) -> dict[str, Any]:
        """Values of the inputs of the run."""
        return {m.node_id: shape(m.data["form"], m.node_id) for m in self.members if m.kind == "given"}

    def describe(self) -> str:
        """For a person who looks for the bug."""
        lines = [
            f"seed {self.seed} ({self.shape}): capacity {self.edge_capacity}, max_log {self.max_log}, policy {self.policy}, "
            f"listens {self.listens}, save_at {self.save_at}, crashes {self.crashes}, troubles {self.troubles}"
        ]
        for m in self.members:
            sources = ", ".join(f"{handle}={['.'.join(port) for port in ports]}" for handle, ports in m.sources.items())
            hidden = "" if m.observed else " unobserved"
            lines.append(f"  {m.node_id}: {m.kind} {dict(m.data)} {sources} {m.sync_mode if len(m.slots) > 1 else ''}{hidden}")
        return "\n".join(lines)


def make_case(seed: int) -> Case:
    """Make the case of a seed."""
    return _Maker(seed).make()


def firings(lengths: Sequence[int], mode: SyncMode) -> int:
    """How often a plain node fires on that many items at its slots, by the rules of INTERFACE."""
    if not lengths:
        return 1
    if mode == "on_any":
        return sum(lengths) - len(lengths) + 1 if all(lengths) else 0
    return min(lengths)


def expected_lengths(member: Member, lengths: Mapping[Port, int]) -> dict[str, int]:
    """How many items a node emits at each handle; for every kind this depends on the number of inputs alone."""
    kind = KINDS[member.kind]
    columns: Columns
    if kind.step is not None:
        columns = {handle: [] for handle in kind.outputs}
        state = None
        for _ in range(firings([lengths[port] for port in member.slots], member.sync_mode)):
            state, emissions = kind.step(member.node_id, member.data, state, [0] * len(member.slots))
            for emission in emissions:
                for handle, value in emission.items():
                    columns[handle].append(value)
    else:
        assert kind.model is not None
        dummies = {handle: range(lengths[ports[0]]) for handle, ports in member.sources.items()}
        columns = kind.model(member.node_id, member.data, dummies)
    return {handle: len(values) for handle, values in columns.items()}


class _Maker:
    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.shape = self.random.choice(tuple(SHAPES))
        self.case = Case(seed, self.shape)
        self.threads = self.random.random() < 0.3

    def make(self) -> Case:
        case, random = self.case, self.random
        case.edge_capacity = random.choice((1, 1, 1, 2, 3))
        policies: tuple[Policy, ...] = ("times", "times", "times", "every_firing", "every_firing", "explicit", "none")
        case.policy = random.choice(policies)
        case.interval = random.choice((0.3, 1.0, 3.0))
        case.slow_saves = random.choice((0.0, 0.3, 2.0))
        case.listens = random.random() < 0.35
        case.watched = random.random() < 0.5
        case.save_at = tuple(moment for moment in ("error", "signal", "cancel") if random.random() < 0.6)
        case.crashes = random.choice((0, 1, 1, 2, 2, 3, 4, 6))
        case.troubles = random.choice((0, 0, 0, 1, 2))
        SHAPES[self.shape](self)
        wanted = random.randint(3, MAX_MEMBERS)
        for _ in range(30):
            if len(case.members) >= wanted or case.max_log < MAX_ITEMS:
                break
            self.grow()
        self.hide()
        return case

    def add(self, kind: str, sync_mode: SyncMode | None = None, *, observed: bool = True, **given: Any) -> str:
        """Add a node; `given` are sources by handle, and properties that are not left to chance."""
        case = self.case
        its = KINDS[kind]
        node_id = f"{kind}{len(case.members)}"
        sources: dict[str, Sequence[Port]] = {}
        for handle in its.handles:
            value = given.pop(handle)
            sources[handle] = value if isinstance(value, list) else [value]
        data = {name: given.pop(name) if name in given else self.property(kind, name) for name in its.properties}
        assert not given, given
        member = Member(node_id, kind, data, sources, observed=observed)
        lengths = [case.lengths[port] for port in member.slots]
        if its.role == "plain":
            member.sync_mode = sync_mode if sync_mode is not None else self.mode(lengths)
        case.members.append(member)
        case.lengths.update({(node_id, handle): n for handle, n in expected_lengths(member, case.lengths).items()})
        mingles = its.role == "plain" and len(lengths) > 1 and member.sync_mode == "on_any"
        if kind not in NEVER_PURE and not mingles and all(port[0] in case.pure for port in member.slots):
            case.pure.add(node_id)
        return node_id

    def mode(self, lengths: Sequence[int]) -> SyncMode:
        """A mode that fits the numbers of items."""
        if len(set(lengths)) == 1 and self.random.random() < 0.6:
            return "zip_all"
        modes: tuple[SyncMode, ...] = ("on_any", "on_any", "zip_shortest")
        return self.random.choice(modes)

    def out(self, kind: str, sync_mode: SyncMode | None = None, **given: Any) -> Port:
        """Add a node and give its default output."""
        return (self.add(kind, sync_mode, **given), "output")

    def property(self, kind: str, name: str) -> Any:
        random = self.random
        match name:
            case "name":
                return f"given{len(self.case.members)}"
            case "n":
                return random.choice((0, 1, 2, 3, 4, 5, 6, 8)) if random.random() < 0.9 else 12
            case "k":
                return random.choice((1, 2, 3)) if kind != "first" else random.choice((0, 1, 2, 3))
            case "every":
                return random.choice((1, 1, 2, 3, 4)) if kind not in ("running", "first", "tidy") else random.choice((0, 1, 2, 3))
            case _:
                return random.choice(FORMS)

    def grow(self) -> None:
        """Add a node behind those that are there, or another source."""
        case, random = self.case, self.random
        kind = random.choice(GROWTH)
        if kind in THREADED and not self.threads:
            return
        its = KINDS[kind]
        if its.role == "source":
            self.add(kind)
            return
        ports = [p for p in case.lengths if case.lengths[p] <= MAX_ITEMS and p[0].rstrip("0123456789") not in TERMINAL]
        if not ports:
            return
        if kind == "scale":
            lone = [port for port in ports if case.lengths[port] == 1]
            by = random.choice(lone) if lone else self.out("single")
            self.add(kind, items=random.choice(ports), by=by)
            return
        chosen = [random.choice(ports[-6:]) for _ in its.handles]
        given: dict[str, Any] = dict(zip(its.handles, chosen, strict=True))
        if its.collects:
            given = {its.handles[0]: [random.choice(ports) for _ in range(random.choice((2, 2, 3)))]}
        if sum(case.lengths[port] for value in given.values() for port in (value if isinstance(value, list) else [value])) > 30:
            return
        self.add(kind, **given)

    def hide(self) -> None:
        """Leave some nodes without outputs of their own, so that they lose their consumers, or have none at all."""
        for member in self.case.members:
            if member.node_id in self.case.pure and self.random.random() < 0.2:
                member.observed = False

    # Shapes: the beginnings of graphs.

    def any_source(self, **given: Any) -> Port:
        kinds = ["count_up", "commit_up", "random_up"] + (["thread_up"] if self.threads else [])
        return self.out(self.random.choice(kinds), **given)

    def chains(self) -> None:
        port = self.any_source()
        for kind in self.random.sample(("mix_one", "running", "chain", "gather_state", "double", "tidy", "stubborn"), 3):
            (handle,) = KINDS[kind].handles
            given: dict[str, Any] = {handle: port}
            port = self.out(kind, **given)

    def diamond(self) -> None:
        source = self.any_source()
        left = self.out("mix_one", a=source)
        right = self.out(self.random.choice(("running", "tidy", "ask")), items=source)
        self.out("mix_two", a=left, b=right)

    def fan_out_in(self) -> None:
        source = self.any_source()
        ways = [self.out("mix_one" if i % 2 else "chain", a=source) for i in range(self.random.choice((2, 3)))]
        self.out("mix_list", items=ways)

    def layered(self) -> None:
        for _ in range(self.random.choice((1, 2, 3))):
            self.any_source()

    def zip_fast_slow(self) -> None:
        fast = self.any_source(n=8)
        slow = self.out("mix_one", a=self.any_source(n=self.random.choice((2, 8))))
        if self.random.random() < 0.5:
            self.out("mix_two", None if self.case.lengths[slow] == 8 else "zip_shortest", a=fast, b=slow)
        else:
            self.out("alternate", a=fast, b=slow)

    def zip_with_own_filter(self) -> None:
        source = self.any_source(n=8)
        kept = self.out("keep_every", items=source, k=self.random.choice((2, 3, 4)))
        if self.random.random() < 0.5:
            self.out("alternate", a=kept, b=source)
        else:
            self.out("mix_two", "zip_shortest", a=source, b=kept)

    def lists(self) -> None:
        ports = [self.any_source() for _ in range(self.random.choice((2, 3)))]
        self.out("mix_list", items=ports)

    def two_consumers(self) -> None:
        source = self.out("random_up", n=self.random.choice((4, 6, 8)))
        self.out("running", items=source)
        self.out("gather_state", items=source)

    def early_end(self) -> None:
        source = self.any_source(n=8)
        self.out("first", items=source)
        self.out("running", items=source)

    def no_end(self) -> None:
        port = self.out("first", items=self.out("endless", observed=False), k=self.random.choice((1, 2, 3, 4)))
        self.out("chain", a=port)

    def on_any_streams(self) -> None:
        self.out("mix_two", "on_any", a=self.any_source(), b=self.any_source())

    def arrivals(self) -> None:
        kind = "thread_arrive" if self.threads else "arrive"
        self.out("running", items=self.out(kind, a=self.any_source(), b=self.any_source()))

    def readers(self) -> None:
        self.out("two_readers", a=self.any_source(), b=self.out("relay", items=self.any_source()))

    def finals(self) -> None:
        source = self.any_source(n=6)
        self.out("tidy", items=source)
        self.out("stubborn", items=source)
        self.case.troubles = max(self.case.troubles, 2)

    def states(self) -> None:
        source = self.any_source(n=6)
        self.out("gather_state", items=source, every=self.random.choice((1, 2)))
        self.out("ask", items=source)

    def splits(self) -> None:
        node_id = self.add("split", a=self.any_source(n=6))
        self.out("running", items=(node_id, "left"))
        self.out("mix_one", a=(node_id, "right"))

    def fans(self) -> None:
        source = self.any_source(n=3)
        self.out("running", items=self.out("fan", a=source, k=3))
        self.out("chain", a=self.out("thread_fan" if self.threads else "fan", a=source))

    def divergent(self) -> None:
        case = self.case
        case.policy, case.interval, case.slow_saves = "times", 0.5, 0.0
        case.crashes = max(case.crashes, 3)
        self.add("diverge", items=self.any_source(n=8))

    def log_bound(self) -> None:
        """The log is too short for one node, and long enough for one that commits at each read."""
        case = self.case
        case.max_log = 4
        source = self.any_source(n=8)
        self.add("double", items=source)
        if self.random.random() < 0.5:
            case.overflows = self.add("hoard", items=source)


SHAPES: Final[Mapping[str, Callable[[_Maker], None]]] = {
    shape.__name__: shape
    for shape in (
        _Maker.chains,
        _Maker.diamond,
        _Maker.fan_out_in,
        _Maker.layered,
        _Maker.zip_fast_slow,
        _Maker.zip_with_own_filter,
        _Maker.lists,
        _Maker.two_consumers,
        _Maker.early_end,
        _Maker.no_end,
        _Maker.on_any_streams,
        _Maker.arrivals,
        _Maker.readers,
        _Maker.finals,
        _Maker.states,
        _Maker.splits,
        _Maker.fans,
        _Maker.divergent,
        _Maker.log_bound,
    )
}
TERMINAL: Final = ("diverge", "endless", "hoard", "forget")
"""Kinds that give an unknown number of items, or nothing of interest."""
GROWTH: Final = (
    *("count_up", "commit_up", "random_up", "thread_up", "given"),
    *("mix_one", "mix_one", "mix_two", "mix_two", "mix_list", "thread_mix", "thread_mix", "chain", "chain"),
    *("split", "fan", "thread_fan", "forget", "running", "running", "gather_state", "double", "keep_every", "first"),
    *("arrive", "thread_arrive", "alternate", "two_readers", "relay", "scale", "tidy", "stubborn", "ask", "thread_running"),
)
