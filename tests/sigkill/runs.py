"""One run, killed again and again until it is done, and everything that must hold then."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from hookspecs import from_tagged
from tests.sigkill.nursery import KILLED, Nursery, Order
from tests.sigkill.witness import read_testimony
from tests.simulation.cases import Case
from tests.simulation.check import expected_firings, final_firings, known_items, of_member, problems_of
from tests.simulation.models import KINDS
from tests.simulation.shapes import make_case

__all__ = ["Tally", "survive", "usable_seeds"]

MAX_KILLS = 8
PACE_SECONDS = 0.012


@dataclass
class Tally:
    """What happened, so that a test can tell that something did."""

    runs: int = 0
    kills: int = 0
    restored: int = 0
    gated: int = 0


ON_PURPOSE = ("diverge", "consult", "consult_stream")


def usable_seeds(first: int, count: int) -> list[int]:
    """Seeds whose runs can only end well, with nobody asked: no node that fails, diverges or waits on purpose."""
    seeds: list[int] = []
    seed = first
    while len(seeds) < count:
        case = make_case(seed)
        if case.overflows is None and not any(member.kind in ON_PURPOSE for member in case.members):
            seeds.append(seed)
        seed += 1
    return seeds


def options_of(case: Case, random: Random, durability: str) -> dict[str, Any]:
    """The plugin's options, as the simulation would have it; those that wait for less keep an event log."""
    match durability:
        case "async":
            lag = {"max_lag_steps": random.choice((1, 5, 1_000))} if case.policy == "every_firing" else {}
            return {**options_of(case, random, "sync"), **lag, "durability": "async", "events": True}
        case "exit":
            return {"durability": "exit", "events": True}
    match case.policy:
        case "every_firing":
            return {"every_firing": True}
        case "times":
            return {"every_seconds": random.choice((0.001, 0.01, 0.03))}
        case _:
            return {"explicit": True}


def survive(seed: int, url: str, folder: Path, nurseries: Sequence[Nursery], tally: Tally, durability: str = "sync") -> None:
    """Run a seed to its end, over some kills.

    Raises:
        AssertionError: a promise was broken; tells the seed and the case.
    """
    case = make_case(seed)
    random = Random(f"sigkill {seed}")
    run_id = f"run-{seed}"
    options = options_of(case, random, durability)
    gated = case.policy == "every_firing" and durability == "sync"
    kills = 0
    for attempt in range(1, MAX_KILLS + 2):
        kill_after_seconds = None
        if attempt <= MAX_KILLS and random.random() < 0.9:
            kill_after_seconds = random.uniform(0.0, 0.12)
        at_work = kill_after_seconds is not None and random.random() < 0.8
        order = Order(seed, attempt, run_id, url, options, str(folder), PACE_SECONDS, kill_after_seconds, at_work)
        code = random.choice(nurseries).run(order)
        if code != KILLED or kill_after_seconds is None:
            break  # it ended by itself, or had to be killed because it did not
        kills += 1
    told = f"after {kills} kills, with {options}\n{case.describe()}"
    if code:
        raise AssertionError(f"attempt {attempt} ended with {code} {told}\n{order.messages.read_text(encoding='utf-8')}")
    testimony = read_testimony(order.journal, pure=case.pure, gated=gated)
    problems = list(testimony.violations)
    outputs = from_tagged(json.loads(order.outputs.read_text(encoding="ascii")))
    problems += problems_of(case, outputs)
    total = expected_firings(case, known_items(case, outputs))
    for member in case.members:
        if isinstance(KINDS[member.kind].node, str):
            continue
        wanted = total[member.node_id] - final_firings(member, testimony.firings)
        begun = of_member(member, testimony.begun)
        if begun != wanted:
            problems.append(f"node {member.node_id} had {wanted} firings to go in the last attempt, and began {begun}")
    if problems:
        raise AssertionError("; ".join(problems) + f" {told}")
    tally.runs += 1
    tally.kills += kills
    tally.restored += testimony.restored
    tally.gated += gated
