"""Runs that are saved without our runner."""
