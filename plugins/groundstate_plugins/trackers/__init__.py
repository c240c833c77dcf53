"""Trackers: callbacks that keep a record of a run elsewhere."""
