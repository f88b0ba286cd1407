"""`workflow resume`."""

from __future__ import annotations

import click

from hookspecs import CheckpointChoice, PluginHost, WorkflowError
from workflow_runner.cli.execution import Execution
from workflow_runner.cli.options import (
    common_options,
    enabling_options,
    nodes_option,
    on_failure_option,
    read_answers,
    read_enabling,
    read_graph,
    read_times,
)
from workflow_runner.failure import OnFailure
from workflow_runner.runner import WorkflowRunner

__all__ = ["resume"]


@click.command()
@click.argument("run_id")
@nodes_option
@click.option("--graph", metavar="FILE", help="Use this graph; it must not differ from the stored one.")
@click.option("--url", metavar="URL", help="The store; else WORKFLOW_CHECKPOINT_URL, else sqlite:///.workflow/checkpoints.db")
@click.option(
    "--accept-changed",
    metavar="NODE",
    multiple=True,
    help="Go on with this node though its source changed in the middle of a step; may be repeated.",
)
@click.option("--checkpoint", metavar="N", type=click.IntRange(min=1), help="Go on from this checkpoint, not from the newest.")
@click.option("--latest-intact", is_flag=True, help="Go on from the newest checkpoint that is not damaged.")
@click.option(
    "--set",
    "answers",
    metavar="NODE=JSON",
    multiple=True,
    help="Answer what a suspended node waits for, or say what a node of unknown outcome returned; "
    "NODE=@FILE reads a file; may be repeated.",
)
@click.option(
    "--since",
    metavar="NODE=TIME",
    multiple=True,
    help="Answer NODE only if it has waited since TIME, as `workflow suspended` tells it: where somebody else was faster, and it "
    "waits for something else by now, nothing is changed; may be repeated.",
)
@click.option("--steal", is_flag=True, help="Take the run over from another worker that still holds it.")
@click.option(
    "--replay",
    metavar="NODE",
    multiple=True,
    help="Run this node again though nobody knows whether it did its work; may be repeated.",
)
@click.option("--supervised", is_flag=True, hidden=True)  # by `workflow recover`, which ends the process if it must
@on_failure_option
@enabling_options
@common_options
@click.pass_obj
def resume(
    host: PluginHost,
    run_id: str,
    nodes: tuple[str, ...],
    graph: str | None,
    url: str | None,
    accept_changed: tuple[str, ...],
    checkpoint: int | None,
    latest_intact: bool,
    answers: tuple[str, ...],
    since: tuple[str, ...],
    steal: bool,
    replay: tuple[str, ...],
    supervised: bool,
    on_failure: OnFailure | None,
    enable: tuple[str, ...],
    disable: tuple[str, ...],
    as_json: bool,
    quiet: bool,
    blocked: tuple[str, ...],
) -> int:
    """Go on with a stored run where its last checkpoint was taken; a completed one prints its outputs.

    The graph, the inputs and the plugins' options are stored with the run. The code of the nodes is not: name it again.

    \b
    Examples:
      workflow resume 0192f0c1-7d7e-7bbb-8a5e-3f2b8b1f5a10 --nodes mynodes.py
      workflow resume nightly --nodes mynodes.py --url postgresql://localhost/runs
      workflow resume nightly --nodes mynodes.py --checkpoint 12
      workflow resume nightly --nodes mynodes.py --set 'approval={"granted": true}'
      workflow resume nightly --nodes mynodes.py --set approval=true --since approval=2027-01-01T12:00:00.5+00:00
      workflow resume nightly --nodes mynodes.py --replay charge

    \b
    Exit codes:
      0 completed    1 a node failed, or its outcome is unknown
      2 wrong usage, changed graph or source
      3 suspended: nodes wait for answers or for a time
      4 another worker holds it, or it was cancelled meanwhile
      5 unknown run, missing or damaged store
      6 completed, but not everything was saved
      129, 130, 143 stopped by a signal
    """
    if checkpoint is not None and latest_intact:
        raise click.UsageError("--checkpoint and --latest-intact exclude each other. Leave out one of the two.")
    chosen: CheckpointChoice = "latest-intact" if latest_intact else checkpoint
    execution = Execution(run_id, as_json=as_json, quiet=quiet, supervised=supervised, nodes=nodes)
    wanted = read_enabling(enable, disable)
    try:
        updates = read_answers(answers)
        times = read_times(since)
        document = None if graph is None else read_graph(graph)
        runner = WorkflowRunner(plugins=host, nodes=nodes, on_failure=on_failure)
    except WorkflowError as error:
        return execution.refuse(error)
    return execution.drive(
        runner, lambda: runner.resume(run_id, wanted, document, url, accept_changed, chosen, steal, updates, replay, times)
    )
