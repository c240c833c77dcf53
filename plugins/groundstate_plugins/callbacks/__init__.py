"""Callbacks: what follows a run through its hooks."""
