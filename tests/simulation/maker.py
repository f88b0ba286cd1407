"""Makes the graph of a case, node by node."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, Final

from tests.simulation.cases import Case, Member, Policy, Port, expected_lengths
from tests.simulation.lab import FORMS
from tests.simulation.models import KINDS
from workflow_runner.aligner import SyncMode

__all__ = ["Maker"]

MAX_ITEMS = 20
MAX_MEMBERS = 10
NEVER_PURE = ("random_up", "arrive", "mingle", "thread_arrive", "diverge")
THREADED = ("thread_up", "thread_mix", "thread_fan", "thread_running", "thread_arrive")
TERMINAL: Final = ("diverge", "endless", "hoard", "forget")
"""Kinds that give an unknown number of items, or nothing of interest."""
GROWTH: Final = (
    *("count_up", "commit_up", "random_up", "thread_up", "given"),
    *("mix_one", "mix_one", "mix_two", "mix_two", "mix_list", "thread_mix", "thread_mix", "chain", "chain"),
    *("split", "fan", "thread_fan", "forget", "running", "running", "gather_state", "double", "keep_every", "first"),
    *(
        "arrive",
        "mingle",
        "thread_arrive",
        "alternate",
        "two_readers",
        "relay",
        "scale",
        "tidy",
        "stubborn",
        "ask",
        "thread_running",
    ),
)


CAREFUL: Final = ("mix_one", "mix_two", "mix_list", "thread_mix")
"""Kinds of which some must not be repeated unasked; what they return follows from their arguments alone."""
LANED: Final = ("mix_one", "consult")
"""Kinds of which several may work side by side."""


class Maker:
    """Adds nodes to a case; what is not said is left to chance.

    Args:
        case: without nodes.
        random: of its seed.
    """

    def __init__(self, case: Case, random: Random) -> None:
        self.case = case
        self.random = random
        self.threads = random.random() < 0.3

    def choose_circumstances(self) -> None:
        """How it is run, and what goes wrong."""
        case, random = self.case, self.random
        case.edge_capacity = random.choice((1, 1, 1, 2, 3))
        policies: tuple[Policy, ...] = ("times", "times", "times", "every_firing", "every_firing", "following", "explicit")
        case.policy = random.choice((*policies, "none"))
        case.interval = random.choice((0.3, 1.0, 3.0))
        case.slow_saves = random.choice((0.0, 0.3, 2.0))
        case.listens = random.random() < 0.35
        case.watched = random.random() < 0.5
        case.save_at = tuple(moment for moment in ("error", "signal", "cancel") if random.random() < 0.6)
        case.crashes = random.choice((0, 1, 1, 2, 2, 3, 4, 6))
        case.troubles = random.choice((0, 0, 0, 1, 2))

    def fill(self) -> None:
        """Add more nodes behind those of the shape."""
        case = self.case
        wanted = self.random.randint(3, MAX_MEMBERS)
        for _ in range(30):
            if len(case.members) >= wanted or case.max_log < MAX_ITEMS:
                break
            self.grow()
        self.hide()

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
        ports = self.open_ports()
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

    def consult(self) -> None:
        """Let people be asked in some graphs of every shape: a node waits while those beside it go on."""
        case, random = self.case, Random(self.case.seed ^ 0xA5C)
        if random.random() < 0.6:
            return
        for _ in range(random.choice((1, 2))):
            ports = [port for port in self.open_ports() if 0 < case.lengths[port] <= 6]
            if ports:
                port = random.choice(ports)
                if random.random() < 0.5:
                    self.add("consult", a=port, form="text")
                else:
                    self.add("consult_stream", items=port)

    def widen(self) -> None:
        """Let several of some nodes work side by side."""
        random = Random(self.case.seed ^ 0x1A4E5)
        if random.random() < 0.5:
            return
        for member in self.case.members:
            if member.kind in LANED and random.random() < 0.7:
                member.lanes = random.choice((2, 2, 3))

    def open_ports(self) -> list[Port]:
        """What may be handed on."""
        lengths = self.case.lengths
        return [port for port in lengths if lengths[port] <= MAX_ITEMS and port[0].rstrip("0123456789") not in TERMINAL]

    def hide(self) -> None:
        """Leave some nodes without outputs of their own, so that they lose their consumers, or have none at all."""
        for member in self.case.members:
            if member.node_id in self.case.pure and self.random.random() < 0.2:
                member.observed = False
            if self.random.random() < 0.05 and member.kind != "endless":
                self.case.previews.append((member.node_id, KINDS[member.kind].outputs[0]))

    def endanger(self) -> None:
        """Let nodes of some cases be tried again, be independent of those that failed, or not be repeated unasked."""
        case, random = self.case, Random(self.case.seed ^ 0xFA11)
        if random.random() < 0.6:
            return
        case.failures, case.troubles = 4, max(case.troubles, 2)
        kinds = {member.kind for member in case.members}
        case.independent = random.random() < 0.5 and "endless" not in kinds  # which ends only with its consumer
        for member in case.members:
            if isinstance(KINDS[member.kind].node, str):
                continue
            if random.random() < 0.5:
                member.failure = {"retries": random.choice((1, 2)), "backoff": [random.choice((0, 0.5, 3))]}
            if member.kind in CAREFUL and random.random() < 0.5:
                member.failure["replayable"] = False

    def any_source(self, **given: Any) -> Port:
        kinds = ["count_up", "commit_up", "random_up"] + (["thread_up"] if self.threads else [])
        return self.out(self.random.choice(kinds), **given)
