"""Several processes that want the same run: one gets it, and who lost it writes nothing."""
