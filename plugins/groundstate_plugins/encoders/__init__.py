"""Encoders: one file per plugin."""
