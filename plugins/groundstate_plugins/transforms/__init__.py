"""Transforms: one file per plugin."""
