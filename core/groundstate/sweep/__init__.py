"""Searches over configs: each trial is an ordinary run, in a process of its own."""

from groundstate.sweep.plan import Plan, SweepConfig, SweepTable, read_sweep
from groundstate.sweep.search import Sweep, sweep
from groundstate.sweep.space import Range, Space

__all__ = ["Plan", "Range", "Space", "Sweep", "SweepConfig", "SweepTable", "read_sweep", "sweep"]
