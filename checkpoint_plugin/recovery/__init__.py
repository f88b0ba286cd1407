"""Runs whose process is gone, and who goes on with them."""
