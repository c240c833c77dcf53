"""System metrics of the machine and of one process, under the names that MLflow's page groups."""

from __future__ import annotations

import importlib
import importlib.util
import time
from typing import Any

EVERY_SECONDS = 10.0
MEGABYTE = 1e6


class Machine:
    """Samples processor and memory every ten seconds; gives nothing where psutil is not installed."""

    def __init__(self, pid: int) -> None:
        self._psutil: Any = None
        self._next = time.monotonic() + 1.0
        if importlib.util.find_spec("psutil") is None:
            return
        psutil = importlib.import_module("psutil")
        try:
            self._process = psutil.Process(pid)
            self._process.cpu_percent()  # the first call only starts the clock
        except psutil.Error:
            return  # the process is gone already
        psutil.cpu_percent()
        self._psutil = psutil

    def sample(self) -> dict[str, float] | None:
        """The figures if it is time for them, else None."""
        if self._psutil is None or time.monotonic() < self._next:
            return None
        self._next = time.monotonic() + EVERY_SECONDS
        memory = self._psutil.virtual_memory()
        values = {
            "cpu_utilization_percentage": self._psutil.cpu_percent(),
            "system_memory_usage_megabytes": memory.used / MEGABYTE,
            "system_memory_usage_percentage": 100 * memory.used / memory.total,
        }
        try:
            values["process_cpu_percentage"] = self._process.cpu_percent()
            values["process_memory_megabytes"] = self._process.memory_info().rss / MEGABYTE
        except self._psutil.Error:
            return None  # the process ended between two samples
        return {f"system/{name}": round(value, 1) for name, value in values.items()}
