"""pydantic-graph: `GraphBuilder`, without persistence."""

from __future__ import annotations

from typing import Any

from pydantic_graph import GraphBuilder, StepContext, reduce_list_append

from benchmarks.payloads import following, kilobyte
from benchmarks.request import Request
from benchmarks.worker import clocked

__all__ = ["DISTRIBUTIONS", "WORK"]

DISTRIBUTIONS = ("pydantic-graph",)

Context = StepContext[None, None, Any]


def _chain(length: int) -> Any:
    builder: Any = GraphBuilder(input_type=dict, output_type=dict)

    def make(number: int) -> Any:
        async def run(context: Context) -> dict[str, str]:
            return following(context.inputs)

        run.__name__ = f"n{number}"
        return builder.step(run)

    steps = [make(number) for number in range(length)]
    stops = [builder.start_node, *steps, builder.end_node]
    builder.add(*(builder.edge_from(stops[number]).to(stops[number + 1]) for number in range(len(stops) - 1)))
    return builder.build()


def _fan(width: int) -> Any:
    builder: Any = GraphBuilder(input_type=dict, output_type=int)

    async def source(context: Context) -> list[int]:
        return list(range(width))

    async def branch(context: Context) -> dict[str, str]:
        return {"text": kilobyte(context.inputs + 1)}

    async def count(context: Context) -> int:
        return len(context.inputs)

    first, middle, last = builder.step(source), builder.step(branch), builder.step(count)
    join = builder.join(reduce_list_append, initial_factory=list)
    builder.add(
        builder.edge_from(builder.start_node).to(first),
        builder.edge_from(first).map().to(middle),
        builder.edge_from(middle).to(join),
        builder.edge_from(join).to(last),
        builder.edge_from(last).to(builder.end_node),
    )
    return builder.build()


async def run_graph(request: Request) -> dict[str, float]:
    """W1, W2."""
    graph = _chain(request.size) if request.workload == "W1" else _fan(request.size)
    seconds, found = await clocked(lambda: graph.run(inputs={"text": kilobyte(0)}))
    assert (found if isinstance(found, int) else int(found["text"][:8])) == request.size
    return {"seconds": seconds}


WORK = {"W1": run_graph, "W2": run_graph}
