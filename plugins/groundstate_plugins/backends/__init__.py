"""Backends: one file per plugin."""
