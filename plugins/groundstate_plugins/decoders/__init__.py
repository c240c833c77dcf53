"""Decoders: one file per plugin."""
