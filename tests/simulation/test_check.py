"""The check can fail: whatever is lost, doubled, swapped or changed in the outputs of a run is noticed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from tests.simulation import plain, sources, streaming, unruly
from tests.simulation.cases import Case, Member
from tests.simulation.check import problems_of
from tests.simulation.lab import LAB, Journal, Lab
from tests.simulation.models import KINDS
from workflow_runner import WorkflowRunner

Spoil = Callable[[list[Any]], list[Any]]

SPOILS: dict[str, Spoil] = {
    "lost": lambda items: items[:-1],
    "lost in the middle": lambda items: [*items[:1], *items[2:]],
    "doubled": lambda items: [*items, items[-1]],
    "changed": lambda items: [*items[:-1], (0, "another")],
}


def case_of(kind: str) -> Case:
    """Sources, and one node of the kind behind them."""
    its = KINDS[kind]
    case = Case(seed=0, shape="check")
    sources: dict[str, list[tuple[str, str]]] = {}
    for place, handle in enumerate(its.handles):
        source, form = f"source{place}", "list" if kind == "each" else "text"
        case.members.append(Member(source, "commit_up", {"n": 1 if handle in its.single else 6, "form": form, "every": 1}))
        sources[handle] = [(source, "output")]
    if its.collects:
        sources["items"] *= 2
    data = {"n": 6, "form": "text", "every": 1, "k": 2, "name": "node"}
    member = Member("node", kind, {name: data[name] for name in its.properties}, sources)
    case.members.append(member)
    case.pure = {m.node_id for m in case.members}
    return case


def outputs_of(case: Case) -> dict[str, list[Any]]:
    """What a run without interruption gives."""

    async def run() -> dict[str, list[Any]]:
        runner = WorkflowRunner(nodes=[sources, plain, streaming, unruly])
        return (await runner.run(case.graph(), case.inputs())).outputs

    token = LAB.set(Lab(random=Random(0), journal=Journal(), attempt=1))
    try:
        return asyncio.run(run())
    finally:
        LAB.reset(token)


# Some give less than two items. Nodes that wait for people need a store: the simulation itself has them.
LEFT_OUT = ("endless", "hoard", "change_item", "forget", "single", "given", "collect", "consult", "consult_stream")
TOLD = [kind for kind in KINDS if kind not in LEFT_OUT]


@pytest.mark.parametrize("kind", TOLD)
def test_what_every_kind_of_node_gives_is_right_and_nothing_else(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_sleep(self: Lab) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(Lab, "pause", no_sleep)
    case = case_of(kind)
    outputs = outputs_of(case)
    assert problems_of(case, outputs) == []
    for handle in KINDS[kind].outputs:
        name = f"node.{handle}"
        assert len(outputs[name]) >= 2
        for what, spoil in SPOILS.items():
            if kind == "diverge" and what != "lost in the middle":
                continue  # how many it gives for each item is its own affair
            spoiled = {**outputs, name: spoil(outputs[name])}
            assert problems_of(case, spoiled), f"{what}: {spoiled[name]}"
        if kind != "random_up":
            items = outputs[name]
            swapped = {**outputs, name: [items[1], items[0], *items[2:]]}
            assert problems_of(case, swapped) or kind in ("arrive", "mingle", "thread_arrive", "diverge")


def test_any_order_explains_on_any_but_no_loss() -> None:
    case = Case(seed=0, shape="check")
    case.members = [
        Member("a", "count_up", {"n": 3, "form": "text"}),
        Member("b", "count_up", {"n": 2, "form": "text"}),
        Member("both", "mix_two", {"form": "text"}, {"a": [("a", "output")], "b": [("b", "output")]}),
    ]
    outputs = outputs_of(case)
    assert len(outputs["both.output"]) == 3 + 2 - 2 + 1
    assert problems_of(case, outputs) == []
    assert problems_of(case, {**outputs, "both.output": outputs["both.output"][1:]})
    assert problems_of(case, {**outputs, "both.output": outputs["both.output"][::-1]})
