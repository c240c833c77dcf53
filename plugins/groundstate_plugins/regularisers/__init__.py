"""Regularisers: one file per plugin."""
