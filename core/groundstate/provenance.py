"""Where a run came from: versions, git state, machine."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from importlib import metadata
from typing import Any

import torch

DISTRIBUTION = "groundstate"


def versions() -> dict[str, str]:
    """Python and every installed distribution that groundstate requires, by name."""
    found = {"python": platform.python_version()}
    required = metadata.requires(DISTRIBUTION) or []
    names = [re.split(r"[\s<>=!~;\[(]", line, maxsplit=1)[0] for line in required if "extra ==" not in line]
    for name in (DISTRIBUTION, *names):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def git_state() -> dict[str, Any] | None:
    """Commit and whether tracked files differ from it, for the working directory; None outside a checkout."""
    try:
        commit, status = (
            subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=10, check=True).stdout.strip()
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "dirty": bool(status)}


def uncommitted(limit: int = 1_000_000) -> str | None:
    """How tracked files differ from the commit, as a diff of ``limit`` characters at most; None where they do not."""
    command = ["git", "diff", "HEAD", "--no-ext-diff", "--no-color"]
    try:
        diff = subprocess.run(command, capture_output=True, timeout=10, check=True).stdout.decode("utf-8", "replace")
    except (OSError, subprocess.SubprocessError):
        return None
    if len(diff) > limit:
        diff = f"{diff[:limit]}\n… cut after {limit:,} of {len(diff):,} characters\n"
    return diff or None


def host() -> dict[str, Any]:
    """The machine, as far as it changes figures."""
    return {
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux: the processor's own string is all there is
    return platform.processor() or platform.machine()


def command() -> str:
    """The command line of this process, as typed."""
    return " ".join(sys.argv)
