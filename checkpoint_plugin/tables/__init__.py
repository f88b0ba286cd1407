"""The rows of a run beside its checkpoints: its own, its lease, its keys, what it was started with; and the tables themselves."""
