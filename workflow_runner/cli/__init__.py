"""The command `workflow`."""
