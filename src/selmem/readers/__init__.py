"""Readers: one per file format, each from a path to documents."""
