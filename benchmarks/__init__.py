"""What the runner costs, beside the same work written by hand: `python -m benchmarks`."""
