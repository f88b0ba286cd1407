"""Tests of the runner; none needs the plugin."""
