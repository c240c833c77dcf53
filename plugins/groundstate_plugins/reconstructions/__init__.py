"""Reconstruction terms: one file per plugin."""
