"""How a run's store learns the types of values: from modules, from installed packages, and by the hook of plugins."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from checkpoint_plugin import update_suspended_state
from checkpoint_plugin.cli.runs import show
from checkpoint_plugin.codec import Codec
from checkpoint_plugin.errors import ValueNotReadable, ValueNotStorable
from hookspecs import CodecRegistry, HookError, PluginHost, hookimpl
from tests.distribution import install_distribution
from workflow_runner import CheckpointSaved, Context, Graph, NodeFailed, WorkflowRunner, node

STOP: list[bool] = []


@dataclass
class Price:
    amount: int


@pytest.fixture(autouse=True)
def _fresh() -> None:
    STOP.clear()


@node
async def prices(n: int) -> AsyncIterator[Price]:
    for amount in range(n):
        yield Price(amount)


@node
async def doubled(price: Price, by: Price) -> Price:
    if STOP and price.amount == 2:
        raise RuntimeError("stop")
    return Price(price.amount * by.amount)


def graph() -> Graph:
    made = Graph()
    by = made.input("by")
    made.output("prices", made.add(doubled, price=made.add(prices, n=4), by=by))
    return made


class Teacher:
    """A plugin that knows one type."""

    @hookimpl
    def register_codecs(self, registry: CodecRegistry) -> None:
        registry.register(Price, name="shop.Price")


def runner(url: str, *plugins: object) -> WorkflowRunner:
    host = PluginHost()
    for plugin in plugins:
        host.register(plugin, type(plugin).__name__)
    return WorkflowRunner(plugins=host)


def enabled(url: str) -> dict[str, Any]:
    return {"checkpoint": {"url": url, "every_firing": True}}


INPUTS = {"by": Price(2)}
OUTPUTS = {"prices": [Price(0), Price(2), Price(4), Price(6)]}


async def test_a_plugin_teaches_its_types_to_runs_and_resumes(store_url: str) -> None:
    STOP.append(True)
    with pytest.raises(NodeFailed):
        await runner(store_url, Teacher()).run(graph(), INPUTS, enabled(store_url), run_id="r")
    STOP.clear()
    for _ in range(2):  # the second one reads the outputs of a completed run
        result = await runner(store_url, Teacher()).resume("r", graph=graph(), url=store_url)
        assert result.outputs == OUTPUTS


async def test_without_the_type_nothing_begins_and_nothing_is_lost(store_url: str) -> None:
    with pytest.raises(ValueNotStorable, match=r"run 'r', input 'by' cannot be stored: .*Register it"):
        await runner(store_url).run(graph(), INPUTS, enabled(store_url), run_id="r")
    await runner(store_url, Teacher()).run(graph(), INPUTS, enabled(store_url), run_id="r")
    with pytest.raises(
        ValueNotReadable, match=r"run 'r', .* cannot be read: its type 'shop.Price' is not registered here"
    ) as caught:
        await runner(store_url).resume("r", url=store_url)
    assert caught.value.exit_code == 5
    assert (await runner(store_url, Teacher()).resume("r", graph=graph(), url=store_url)).outputs == OUTPUTS


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
async def test_a_run_with_values_of_unknown_types_is_shown(
    store_url: str, encrypted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if encrypted:
        monkeypatch.setenv("WORKFLOW_CHECKPOINT_KEY", base64.b64encode(b"k" * 32).decode())
    await runner(store_url, Teacher()).run(graph(), INPUTS, enabled(store_url), run_id="r")
    done = await asyncio.to_thread(CliRunner().invoke, show, ["r", "--url", store_url, "--json"])
    assert done.exit_code == 0, done.output
    told = [(entry["type"].rpartition(".")[2], entry["status"]) for entry in json.loads(done.stdout)["nodes"]]
    assert told == [("Input", "completed"), ("prices", "completed"), ("doubled", "completed"), ("Output", "completed")]


async def test_a_checkpoint_with_values_of_an_unknown_type_is_refused_with_their_place(store_url: str) -> None:
    made = Graph()
    made.output("prices", made.add(prices, n=2))
    await runner(store_url, Teacher()).run(made, {}, enabled(store_url), run_id="r")
    place = r"checkpoint \d+ of run 'r', output 'prices.*' cannot be read: its type 'shop.Price' is not registered here"
    with pytest.raises(ValueNotReadable, match=place):
        await runner(store_url).resume("r", url=store_url)
    result = await runner(store_url, Teacher()).resume("r", url=store_url)
    assert result.outputs == {"prices": [Price(0), Price(1)]}


async def test_a_value_of_an_unknown_type_fails_the_save_with_its_place(store_url: str) -> None:
    made = Graph()
    made.output("prices", made.add(prices, n=1))
    with pytest.raises(ValueNotStorable, match=r"run 'r', node '.*', .* cannot be stored: its type .*Price"):
        await runner(store_url).run(made, {}, enabled(store_url), run_id="r")


async def test_who_answers_a_run_that_is_executed_need_not_know_the_types_of_its_values(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workflow_runner.waking.LOOK_SECONDS", 0.005)
    told, over = asyncio.Event(), asyncio.Event()

    @node
    async def asks(by: Price, context: Context) -> str:
        answer = await context.suspend("how many?")
        over.set()
        return f"{answer} for {by.amount}"

    @node
    async def works(by: Price) -> int:
        await over.wait()
        return by.amount

    made = Graph()
    by = made.input("by")
    made.output("asked", made.add(asks, "asks", by=by))
    made.output("worked", made.add(works, by=by))
    executed = runner(store_url, Teacher())
    executed.subscribe(lambda event: told.set() if isinstance(event, CheckpointSaved) else None)
    enable = {"checkpoint": {"url": store_url}}
    running = asyncio.create_task(executed.run(made, {"by": Price(7)}, enable, run_id="r"))
    async with asyncio.timeout(10):
        await told.wait()
        await update_suspended_state("r", "asks", 3, url=store_url)
        assert (await running).outputs == {"asked": ["3 for 7"], "worked": [7]}


async def test_the_limit_is_an_option(store_url: str) -> None:
    enable = {"checkpoint": {"url": store_url, "max_value_bytes": 1000}}
    with pytest.raises(ValueNotStorable, match=r"input 'by' cannot be stored: it takes 2,004 bytes, and the limit is 1,000"):
        await runner(store_url).run(graph(), {"by": "x" * 2000}, enable, run_id="r")


class Wrong:
    @hookimpl
    def register_codecs(self, registry: CodecRegistry) -> None:
        raise RuntimeError("broken")


async def test_a_plugin_that_fails_to_teach_fails_the_run(store_url: str) -> None:
    with pytest.raises(HookError, match="'Wrong' failed in hook 'register_codecs': RuntimeError: broken"):
        await runner(store_url, Wrong()).run(graph(), INPUTS, enabled(store_url), run_id="r")


PACKAGE = """
    from dataclasses import dataclass

    @dataclass
    class Weight:
        grams: int

    def register_codecs(registry):
        registry.register(Weight)
"""


def test_installed_packages_teach_every_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    entries = {"workflow_runner.codecs": {"weights": "weights_of_shop:register_codecs"}}
    install_distribution(tmp_path, "weights", entries=entries, modules={"weights_of_shop": PACKAGE})
    entries = {"workflow_runner.codecs": {"broken": "broken_of_shop:register_codecs", "wrong": "json:dumps"}}
    install_distribution(tmp_path, "broken", entries=entries)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "weights_of_shop", raising=False)
    with caplog.at_level(logging.WARNING):
        codec = Codec.taught()
    weights = sys.modules["weights_of_shop"]
    value = {"w": weights.Weight(5)}
    assert codec.decode(codec.encode(value, str)) == value
    assert sorted(caplog.messages)[0].startswith("value types of broken are left out: 'broken' (broken_of_shop")
    assert len(caplog.messages) == 2
    with pytest.raises(ValueNotStorable):
        Codec.taught(PluginHost(blocked=["weights"]).teacher()).encode(value, str)
    with pytest.raises(ValueNotStorable):
        Codec().encode(value, str)  # what is taught to one registry is known to no other


NODES = """
    from dataclasses import dataclass
    from checkpoint_plugin import register
    from workflow_runner import node

    @register
    @dataclass
    class Size:
        metres: int

    @node
    async def measure(n: int) -> Size:
        return Size(n)
"""


async def test_a_file_of_nodes_registers_its_types_under_its_own_name(store_url: str, tmp_path: Path) -> None:
    from textwrap import dedent

    document = {
        "nodes": [
            {"id": "m", "type": "shop_nodes.measure", "data": {"n": 3}},
            {"id": "o", "type": "workflow.Output", "data": {"name": "size"}},
        ],
        "edges": [{"id": "e", "source": "m", "sourceHandle": "output", "target": "o", "targetHandle": "value"}],
    }
    outputs = []
    for folder in ("here", "there"):  # the same file at another place, as on another machine
        path = tmp_path / folder / "shop_nodes.py"
        path.parent.mkdir()
        path.write_text(dedent(NODES))
        fresh = WorkflowRunner(nodes=[path])
        if folder == "here":
            await fresh.run(json.loads(json.dumps(document)), {}, enabled(store_url), run_id="r")
        else:
            outputs = (await fresh.resume("r", url=store_url)).outputs["size"]
    assert [(type(size).__qualname__, size.metres) for size in outputs] == [("Size", 3)]
    assert type(outputs[0]).__module__.startswith("_workflow_nodes_")
