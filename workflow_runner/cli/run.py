"""`workflow run`."""

from __future__ import annotations

import click

from hookspecs import PluginHost, WorkflowError
from workflow_runner.cli.execution import Execution
from workflow_runner.cli.options import (
    common_options,
    enabling_options,
    nodes_option,
    on_failure_option,
    read_enabling,
    read_graph,
    read_inputs,
)
from workflow_runner.failure import OnFailure
from workflow_runner.identity import check_run_id, new_run_id
from workflow_runner.inputs import convert_inputs
from workflow_runner.runner import Result, WorkflowRunner

__all__ = ["run"]


@click.command()
@click.argument("graph")
@nodes_option
@click.option(
    "--input",
    "inputs",
    metavar="NAME=JSON",
    multiple=True,
    help="Value of an input, or NAME=@file.json; converted to what its nodes want.",
)
@click.option("--run-id", metavar="ID", help="Name the run; by default it gets a UUIDv7.")
@on_failure_option
@enabling_options
@common_options
@click.pass_obj
def run(
    host: PluginHost,
    graph: str,
    nodes: tuple[str, ...],
    inputs: tuple[str, ...],
    run_id: str | None,
    on_failure: OnFailure | None,
    enable: tuple[str, ...],
    disable: tuple[str, ...],
    as_json: bool,
    quiet: bool,
    blocked: tuple[str, ...],
) -> int:
    """Run the workflow in the JSON file GRAPH.

    \b
    Examples:
      workflow run flow.json --nodes mynodes.py --input n=10
      workflow run flow.json --nodes mynodes.py --input 'name="Ada"' --input rows=@rows.json
      workflow run flow.json --nodes mynodes.py --enable checkpoint
      workflow run flow.json --nodes mynodes.py --enable 'checkpoint={"every_seconds": 1}'

    \b
    Exit codes:
      0 completed    1 a node failed    2 wrong graph, input, plugin or usage
      3 suspended: nodes wait for answers or for a time
      4 another worker took the run over, or it was cancelled
      5 the store cannot save    6 completed, but not everything was saved
      129, 130, 143 stopped by a signal (resume it)
    """
    execution = Execution(run_id if run_id is not None else new_run_id(), as_json=as_json, quiet=quiet, nodes=nodes)
    wanted = read_enabling(enable, disable)
    try:
        chosen_id = check_run_id(execution.run_id)
        document = read_graph(graph)
        values = read_inputs(inputs)
        runner = WorkflowRunner(plugins=host, nodes=nodes, on_failure=on_failure)
    except WorkflowError as error:
        return execution.refuse(error)

    async def start() -> Result:
        compiled = runner.compile(document)
        return await runner.run(compiled, convert_inputs(compiled.plan, values), wanted, chosen_id)

    return execution.drive(runner, start)
