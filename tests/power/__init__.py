"""Power cuts: what a run writes and syncs is recorded, and put on a new disk as a cut at any moment would have left it."""
