"""Ours, the peers and the same work written by hand, side by side: `python -m benchmarks`, or `tox -e bench` with the peers."""
