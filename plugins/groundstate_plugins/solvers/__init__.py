"""Solvers: one file per plugin."""
