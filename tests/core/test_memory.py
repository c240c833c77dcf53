"""Freed memory stays with the process where the C library can be told."""

from __future__ import annotations

import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
from groundstate.memory import keep_freed_memory
{call}
def churn(count):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        torch.zeros(2**18)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
churn(20)
print(churn(200))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc alone is told")
def test_tensors_that_come_and_go_cost_no_page_faults() -> None:
    script = FAULTS.format(call="keep_freed_memory(); keep_freed_memory()")
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert int(told.stdout) < 200


def test_the_environment_has_the_last_word() -> None:
    script = (
        "import os; os.environ['MALLOC_TRIM_THRESHOLD_'] = '131072'\n"
        "import ctypes, torch; ctypes.CDLL = None\n"  # asked, it would fail; torch itself needs it to be imported
        "from groundstate.memory import keep_freed_memory; keep_freed_memory()"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
