"""`workflow validate`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import click

from hookspecs import PluginHost, WorkflowError
from workflow_runner.cli.options import common_options, nodes_option, read_graph
from workflow_runner.cli.report import error_object, exit_code_of, explain, print_json
from workflow_runner.cli.streams import printing_aside
from workflow_runner.errors import GraphInvalid
from workflow_runner.graph import Graph
from workflow_runner.runner import WorkflowRunner

__all__ = ["refusal", "validate"]


@click.command()
@click.argument("graph")
@nodes_option
@common_options
@click.pass_obj
def validate(host: PluginHost, graph: str, nodes: tuple[str, ...], as_json: bool, quiet: bool, blocked: tuple[str, ...]) -> int:
    """Check the workflow in the JSON file GRAPH without running it, and that the plugins it enables are there.

    \b
    Example:
      workflow validate flow.json --nodes mynodes.py

    Exit code 0 when it can run, 2 with every problem otherwise.
    """
    try:
        checked = Graph.from_document(read_graph(graph)).copy()  # as a run does, which refuses what is nested too deeply
        with printing_aside():  # a module may print when it is imported
            errors = find_errors(host, checked, nodes)
    except WorkflowError as error:
        errors = [error]
    if errors:
        for found in errors:
            explain(found)
        if as_json:
            print_json(refusal(*errors))
        return exit_code_of(errors[0])
    if as_json:
        print_json({"valid": True, "nodes": len(checked.nodes), "edges": len(checked.edges), "problems": [], "error": None})
    elif not quiet:
        print(f"{graph}: valid, {len(checked.nodes)} nodes, {len(checked.edges)} edges")
    return 0


def find_errors(host: PluginHost, graph: Graph, nodes: Sequence[str]) -> list[WorkflowError]:
    """What keeps a graph from running: its own problems, then those of each plugin, or of all of them together."""
    errors = _errors_of(lambda: WorkflowRunner(plugins=host, nodes=nodes).validate(graph))
    alone = [error for name, wanted in graph.enable.items() for error in _errors_of(partial(host.bind, {name: wanted}))]
    return errors + (alone or _errors_of(partial(host.bind, graph.enable)))


def _errors_of(check: Callable[[], object]) -> list[WorkflowError]:
    try:
        check()
    except WorkflowError as error:
        return [error]
    return []


def refusal(*errors: BaseException) -> dict[str, Any]:
    """What `--json` prints for a graph that cannot run; `error` is the first."""
    problems: list[str] = []
    for error in errors:
        problems += error.problems if isinstance(error, GraphInvalid) else (str(error),)
    return {"valid": False, "problems": problems, "error": error_object(errors[0])}
