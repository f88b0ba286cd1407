"""Managers and writers of node states on one run, at random and at once, beside a model: what is restored is what it says."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest

from checkpoint_plugin import CheckpointData, CheckpointManager, NodeStateSnapshot, StateManager, Store, locate
from checkpoint_plugin.blobs.files import Blobs
from checkpoint_plugin.checking.store_check import check_store
from checkpoint_plugin.retention import Retention
from checkpoint_plugin.space.pruning import prune_runs
from checkpoint_plugin.status import NODE_STATUSES
from checkpoint_plugin.stored_bytes.encryption import KeyRing

NODES: Final = "abc"
NAMED: Final = ("completed", "running", "scheduled")
STATUSES: Final = sorted(NODE_STATUSES)
STEPS: Final = 40
TEXTS: Final = ("", "é\x00", "long " * 200, "longer " * 500)
VALUES: Final[tuple[Any, ...]] = (None, 0, -0.0, True, *TEXTS, [1, ["x"]], {"k": {"n": None}}, 10**30)


@dataclass(frozen=True)
class Node:
    """Where a node stands."""

    status: str = "idle"
    attempt: int = 1
    outputs: Mapping[str, Any] | None = None
    error: str | None = None
    resume_state: Any = None

    def become(self, status: str, outputs: Mapping[str, Any] | None) -> Node:
        """As docs/manager.md says of the nodes that a save names; without outputs those that are there may stay."""
        if (self.status, status) == ("suspended", "scheduled"):
            status = "suspended"
        if outputs is None and status in (self.status, "completed"):
            outputs = self.outputs
        state = None if status in ("completed", "scheduled") else self.resume_state
        return Node(status, self.attempt, outputs, self.error if status == self.status else None, state)


@dataclass(frozen=True)
class Said:
    """What one save is given."""

    statuses: Mapping[str, str]
    outputs: Mapping[str, Mapping[str, Any]]
    exact: Mapping[str, Node]
    context: Mapping[str, Any] | None

    async def save(self, manager: CheckpointManager) -> bool:
        named = [[node_id for node_id, status in self.statuses.items() if status == wanted] for wanted in NAMED]
        exact = {node_id: NodeStateSnapshot(node_id, **vars(node)) for node_id, node in self.exact.items()}
        completed, running, scheduled = named
        return await manager.save_checkpoint(None, completed, running, scheduled, self.context, self.outputs, node_states=exact)


@dataclass(frozen=True)
class Model:
    """What a restore gives."""

    nodes: Mapping[str, Node] = field(default_factory=dict)
    context: Mapping[str, Any] = field(default_factory=dict)
    is_saved: bool = False

    def saved(self, said: Said) -> Model | None:
        """After a save; `None` where that is refused: it gives outputs to a node of which nothing is known."""
        nodes = dict(self.nodes)
        for node_id in {**said.statuses, **said.outputs}:
            if node_id not in nodes and node_id not in said.statuses:
                return None
            old = nodes.get(node_id, Node())
            nodes[node_id] = old.become(said.statuses.get(node_id, old.status), said.outputs.get(node_id))
        return Model({**nodes, **said.exact}, self.context if said.context is None else said.context, True)

    def told(self) -> str:
        """What can be compared: -0.0 is not 0, and True is not 1."""
        return repr((sorted(self.nodes.items()), self.context, self.is_saved))


def model_of(data: CheckpointData | None) -> Model:
    """What a restore gave."""
    if data is None:
        return Model()
    nodes = {
        node_id: Node(state.status, state.attempt, state.outputs, state.error, state.resume_state)
        for node_id, state in data.node_states.items()
    }
    return Model(nodes, dict(data.context_data), True)


class World:
    """Two processes' worth of managers, and what may be stored: several models where nobody has heard how a save went.

    Args:
        stores: open ones of the same database.
        seed: of what happens.
    """

    def __init__(self, stores: Sequence[Store], seed: int) -> None:
        self._stores = stores
        self._random = Random(seed)
        self._managers = [CheckpointManager("r", enabled=True, store=store) for store in (*stores, stores[0])]
        self._models = [Model()]
        self._last = 0

    async def live(self) -> None:
        """Take some steps, and look at everything."""
        await self._save()  # makes the run's row, which says that it runs: a writer of states would make one that waits
        async with StateManager("r", batch_interval=0.001, store=self._stores[1]) as writer:
            for _ in range(STEPS):
                step = self._random.choices((self._save, self._save_at_once, self._cancel, self._restore), (8, 3, 2, 4))[0]
                await step()
                if self._random.random() < 0.5:
                    await self._update(writer)
                if self._random.random() < 0.2:
                    await self._tidy()
        await self._restore()
        report = await check_store(self._stores[0])
        assert not report.all_findings

    def _said(self) -> Said:
        random = self._random
        statuses = {node_id: random.choice(NAMED) for node_id in random.sample(NODES, random.randrange(4))}
        outputs = {node_id: self._values() for node_id in random.sample(NODES, random.randrange(3))}
        others = [node_id for node_id in NODES if node_id not in {**statuses, **outputs}]
        exact = {node_id: self._node() for node_id in others if random.random() < 0.2}
        return Said(statuses, outputs, exact, random.choice((None, None, {}, self._values())))

    def _values(self) -> dict[str, Any]:
        return {name: self._random.choice(VALUES) for name in self._random.sample("pqr", self._random.randrange(3))}

    def _node(self) -> Node:
        random = self._random
        outputs = random.choice((None, self._values()))
        return Node(random.choice(STATUSES), random.randrange(4), outputs, random.choice((None, "e\x00")), random.choice(VALUES))

    async def _save(self) -> None:
        """Save, often by the manager that saved last: what it remembers is right, but for what was no save."""
        if self._random.random() < 0.4:
            self._last = self._random.randrange(len(self._managers))
        await self._save_all([self._last])

    async def _save_at_once(self) -> None:
        await self._save_all(self._random.sample(range(len(self._managers)), 2))

    async def _save_all(self, places: Sequence[int]) -> None:
        """Save by several managers at once; some order of them explains what came of it."""
        said = [self._said() for _ in places]
        saves = (each.save(self._managers[place]) for place, each in zip(places, said, strict=True))
        outcomes = await asyncio.gather(*saves, return_exceptions=True)
        assert all(outcome is True or type(outcome) is ValueError for outcome in outcomes), outcomes
        found = []
        for order in permutations(range(len(places))):
            for model in self._models:
                for place in order:
                    after = model.saved(said[place])
                    if (after is None) == (outcomes[place] is True):
                        break
                    model = after or model
                else:
                    found.append(model)
        self._keep(found)

    async def _cancel(self) -> None:
        """Give up a save after some turns of the event loop, or some milliseconds."""
        said = self._said()
        task = asyncio.create_task(said.save(self._random.choice(self._managers)))
        await asyncio.sleep(self._random.choice((0, 0, 0.001, 0.003)))
        task.cancel()
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        after = [(model, model.saved(said)) for model in self._models]
        saved = [new for _, new in after if new is not None]
        if outcome is True:
            self._keep(saved)
        elif type(outcome) is ValueError:
            self._keep([old for old, new in after if new is None])
        else:
            assert isinstance(outcome, asyncio.CancelledError), outcome
            self._keep([*self._models, *saved])

    async def _restore(self) -> None:
        found = model_of(await self._random.choice(self._managers).restore_checkpoint())
        assert await self._random.choice(self._managers).can_resume() == found.is_saved
        # Of a run without a checkpoint nothing is given, though its nodes may have states.
        told = [model for model in self._models if model.is_saved == found.is_saved]
        told = [model for model in told if not found.is_saved or model.told() == found.told()]
        assert told, f"{found.told()} is none of {[model.told() for model in self._models]}"
        self._keep(told)

    async def _update(self, writer: StateManager) -> None:
        """Change a node's state as programs beside the manager do."""
        random, node_id = self._random, self._random.choice(NODES)
        node = {**vars(self._node()), "error": random.choice((None, "boom"))}
        given: dict[str, Any] = {name: node[name] for name in random.sample(sorted(node), random.randrange(1, 4))}
        await writer.update_node_state(node_id, **given)
        await writer.flush()
        self._keep(
            [
                replace(model, nodes={**model.nodes, node_id: replace(model.nodes.get(node_id, Node()), **given)})
                for model in self._models
            ]
        )

    async def _tidy(self) -> None:
        """Forget what a manager remembers, prune, or delete all."""
        what = self._random.randrange(3)
        if what == 0:
            place = self._random.randrange(len(self._managers))
            self._managers[place] = CheckpointManager("r", enabled=True, store=self._random.choice(self._stores))
        elif what == 1:
            await prune_runs(self._random.choice(self._stores), Retention(keep_last=self._random.randrange(1, 4)))
        else:
            was_there = await self._random.choice(self._managers).clear_checkpoint()
            assert was_there in {model.is_saved or bool(model.nodes) for model in self._models}
            self._keep([Model()])

    def _keep(self, models: Sequence[Model]) -> None:
        assert models, "nothing explains it"
        self._models = list({model.told(): model for model in models}.values())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["plain", "encrypted", "files"])
async def test_what_several_managers_save_at_random_is_what_a_model_says(
    store_url: str, tmp_path: Path, kind: str, seed: int
) -> None:
    location = locate(store_url)
    ring = KeyRing((bytes(32),)) if kind == "encrypted" else None
    blobs = Blobs(location, f"file://{tmp_path}/blobs", 1_000) if kind == "files" else None
    stores = [Store(location, create=True, ring=ring, blobs=blobs) for _ in range(2)]
    try:
        await World(stores, seed).live()
    finally:
        for store in stores:
            await store.close()
