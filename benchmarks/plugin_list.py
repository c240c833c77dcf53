"""``groundstate plugins list`` with 200 registered plugins, 5 of them broken: at most 0.6 s, nothing imported."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT = 0.6
CLI = (sys.executable, "-c", "import sys; from groundstate.cli import main; sys.exit(main(['plugins', 'list']))")
PLUGIN = """
from pathlib import Path

from groundstate import Regulariser

Path(__file__).with_suffix(".imported").touch()


class Penalty{number}(Regulariser):
    def energy(self, z):
        return z.flatten(1).abs().sum(1)
"""


def write_plugins(folder: Path, count: int = 200) -> None:
    """A registry.toml of ``count`` plugins and their files; five are broken, each in another way."""
    entries = []
    for number in range(count):
        (folder / f"penalty{number}.py").write_text(PLUGIN.format(number=number), encoding="utf-8")
        lines = [f'path = "penalty{number}:Penalty{number}"', f'summary = "penalty number {number}"']
        entries.append([f"[regulariser.penalty-{number}]", *lines])
    entries[0][1] = 'path = "no-class"'
    entries[1].append("api = 99")
    (folder / "penalty2.py").write_text("def broken(:\n", encoding="utf-8")
    (folder / "penalty3.py").unlink()
    entries[4][1] = 'path = "penalty4:Another"'
    (folder / "registry.toml").write_text(
        "\n".join(line for entry in entries for line in entry) + "\n", encoding="utf-8"
    )


def measure(folder: Path, rounds: int = 9) -> tuple[list[float], list[float]]:
    """Seconds of each call by the wall clock and of the processor, the interpreter's start among them."""
    wall, processor = [], []
    for _ in range(rounds):
        began, used = time.perf_counter(), processor_seconds()
        subprocess.run(CLI, cwd=folder, check=True, capture_output=True)
        wall.append(time.perf_counter() - began)
        processor.append(processor_seconds() - used)
    return wall, processor


def processor_seconds() -> float:
    """What child processes have used so far."""
    times = os.times()
    return times.children_user + times.children_system


def main() -> int:
    """Print the figure; 1 where it is over the limit."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_plugins(folder)
        wall, processor = measure(folder)
        imported = list(folder.glob("*.imported"))
    median = statistics.median(wall)
    print(f"plugins list, 200 plugins, 5 broken: median {median:.3f} s, least {min(wall):.3f} s (limit {LIMIT} s)")
    print(f"processor time, which a busy machine does not change: {statistics.median(processor):.3f} s")
    print(f"plugins imported: {len(imported)}; Python {platform.python_version()}, {platform.machine()}")
    return int(min(wall) > LIMIT or bool(imported))


if __name__ == "__main__":
    sys.exit(main())
