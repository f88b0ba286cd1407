"""How graphs begin: each shape is a way in which cuts, bounds or replays once went wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Any, Final

from tests.simulation.cases import Case, Port
from tests.simulation.maker import Maker
from tests.simulation.models import KINDS

__all__ = ["SHAPES", "make_case"]


def chains(maker: Maker) -> None:
    port = maker.any_source()
    for kind in maker.random.sample(("mix_one", "running", "chain", "gather_state", "double", "tidy", "stubborn"), 3):
        port = _behind(maker, kind, port)


def diamond(maker: Maker) -> None:
    source = maker.any_source()
    left = maker.out("mix_one", a=source)
    right = maker.out(maker.random.choice(("running", "tidy", "ask")), items=source)
    maker.out("mix_two", a=left, b=right)


def fan_out_in(maker: Maker) -> None:
    source = maker.any_source()
    ways = [maker.out("mix_one" if i % 2 else "chain", a=source) for i in range(maker.random.choice((2, 3)))]
    maker.out("mix_list", items=ways)


def layered(maker: Maker) -> None:
    for _ in range(maker.random.choice((1, 2, 3))):
        maker.any_source()


def zip_fast_slow(maker: Maker) -> None:
    fast = maker.any_source(n=8)
    slow = maker.out("mix_one", a=maker.any_source(n=maker.random.choice((2, 8))))
    if maker.random.random() < 0.5:
        maker.out("mix_two", None if maker.case.lengths[slow] == 8 else "zip_shortest", a=fast, b=slow)
    else:
        maker.out("alternate", a=fast, b=slow)


def zip_with_own_filter(maker: Maker) -> None:
    source = maker.any_source(n=8)
    kept = maker.out("keep_every", items=source, k=maker.random.choice((2, 3, 4)))
    if maker.random.random() < 0.5:
        maker.out("alternate", a=kept, b=source)
    else:
        maker.out("mix_two", "zip_shortest", a=source, b=kept)


def lists(maker: Maker) -> None:
    ports = [maker.any_source() for _ in range(maker.random.choice((2, 3)))]
    maker.out("mix_list", items=ports)


def two_consumers(maker: Maker) -> None:
    source = maker.out("random_up", n=maker.random.choice((4, 6, 8)))
    maker.out("running", items=source)
    maker.out("gather_state", items=source)


def early_end(maker: Maker) -> None:
    source = maker.any_source(n=8)
    maker.out("first", items=source)
    maker.out("running", items=source)


def no_end(maker: Maker) -> None:
    port = maker.out("first", items=maker.out("endless", observed=False), k=maker.random.choice((1, 2, 3, 4)))
    maker.out("chain", a=port)


def on_any_streams(maker: Maker) -> None:
    maker.out("mix_two", "on_any", a=maker.any_source(), b=maker.any_source())


def arrivals(maker: Maker) -> None:
    kind = "thread_arrive" if maker.threads else maker.random.choice(("arrive", "arrive", "mingle"))
    maker.out("running", items=maker.out(kind, a=maker.any_source(), b=maker.any_source()))


def readers(maker: Maker) -> None:
    maker.out("two_readers", a=maker.any_source(), b=maker.out("relay", items=maker.any_source()))


def finals(maker: Maker) -> None:
    source = maker.any_source(n=6)
    maker.out("tidy", items=source)
    maker.out("stubborn", items=source)
    maker.case.troubles = max(maker.case.troubles, 2)


def states(maker: Maker) -> None:
    source = maker.any_source(n=6)
    maker.out("gather_state", items=source, every=maker.random.choice((1, 2)))
    maker.out("ask", items=source)


def splits(maker: Maker) -> None:
    node_id = maker.add("split", a=maker.any_source(n=6))
    maker.out("running", items=(node_id, "left"))
    maker.out("mix_one", a=(node_id, "right"))


def fans(maker: Maker) -> None:
    source = maker.any_source(n=3)
    maker.out("running", items=maker.out("fan", a=source, k=3))
    maker.out("chain", a=maker.out("thread_fan" if maker.threads else "fan", a=source))


def consults(maker: Maker) -> None:
    """Nodes wait for people, and those beside them come to their end."""
    source = maker.any_source(n=maker.random.choice((1, 2, 3)))
    maker.out("mix_one", a=maker.out("consult", a=source))
    if maker.random.random() < 0.7:
        maker.out("chain", a=maker.out("consult_stream", items=maker.any_source(n=maker.random.choice((2, 4)))))
    maker.out("running", items=source)


def lanes(maker: Maker) -> None:
    """Several of a node side by side, one behind the other, and beside what needs neither."""
    source = maker.any_source(n=maker.random.choice((3, 6, 8)))
    first = maker.out("mix_one", a=source)
    second = maker.out("mix_one", a=maker.out("consult", a=first) if maker.random.random() < 0.3 else first)
    for member in maker.case.members[1:]:
        member.lanes = maker.random.choice((2, 3, 4))
    maker.out(maker.random.choice(("running", "tidy", "first")), items=second)


def taken_apart(maker: Maker) -> None:
    """Out of lists, several side by side, and into one list again."""
    packed = maker.out("pack", a=maker.any_source(n=maker.random.choice((0, 1, 2, 4))))
    worked = _behind(maker, maker.random.choice(("mix_one", "mix_one", "chain", "first")), maker.out("each", items=packed))
    if maker.random.random() < 0.5:
        worked = maker.out("mix_one", a=worked)
    for member in maker.case.members:
        if member.kind == "mix_one" and maker.random.random() < 0.5:
            member.lanes = maker.random.choice((2, 3))
    _behind(maker, maker.random.choice(("mix_one", "running", "chain")), maker.out("collect", items=worked))


def divergent(maker: Maker) -> None:
    case = maker.case
    case.policy, case.interval, case.slow_saves = "times", 0.5, 0.0
    case.crashes = max(case.crashes, 3)
    maker.add("diverge", items=maker.any_source(n=8))


def log_bound(maker: Maker) -> None:
    """The log is too short for one node, and long enough for one that commits at each read."""
    case = maker.case
    case.max_log = 4
    source = maker.any_source(n=8)
    maker.add("double", items=source)
    if maker.random.random() < 0.5:
        case.overflows = maker.add("hoard", items=source)


SHAPES: Final[Mapping[str, Callable[[Maker], None]]] = {
    shape.__name__: shape
    for shape in (
        chains,
        diamond,
        fan_out_in,
        layered,
        zip_fast_slow,
        zip_with_own_filter,
        lists,
        two_consumers,
        early_end,
        no_end,
        on_any_streams,
        arrivals,
        readers,
        finals,
        states,
        splits,
        fans,
        consults,
        lanes,
        taken_apart,
        divergent,
        log_bound,
    )
}


def _behind(maker: Maker, kind: str, port: Port) -> Port:
    """Add a node with one input behind an output, whatever the input is called."""
    (handle,) = KINDS[kind].handles
    given: dict[str, Any] = {handle: port}
    return maker.out(kind, **given)


def make_case(seed: int) -> Case:
    """Make the case of a seed."""
    random = Random(seed)
    shape = random.choice(tuple(SHAPES))
    maker = Maker(Case(seed, shape), random)
    maker.choose_circumstances()
    SHAPES[shape](maker)
    maker.fill()
    maker.consult()
    maker.widen()
    maker.endanger()
    return maker.case
