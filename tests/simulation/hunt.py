"""`python -m tests.simulation.hunt SEEDS`: run seeds until one fails, and print which as JSON.

A process of its own, so that it can run with another copy of the package.
"""

from __future__ import annotations

import json
import logging
import sys

import workflow_runner
from tests.simulation.simulate import SimulationFailed, simulate

__all__ = ["main"]


def main(seeds: int) -> int:
    """Print `{"package", "seed", "problem"}`, with `None` for what was not found."""
    logging.disable()
    found: dict[str, object] = {"package": workflow_runner.__file__, "seed": None, "problem": None}
    for seed in range(seeds):
        try:
            simulate(seed)
        except SimulationFailed as failure:
            found.update(seed=seed, problem=failure.problem)
            break
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
