"""Bytes on their way into a store and back: compressed, bound by digests, encrypted."""
