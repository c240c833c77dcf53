"""What tracking costs: the training time of one config with MLflow on and off, in turn, in processes of their own.

A pair of runs gives one ratio; the figure is the median over the pairs. The time is that of the training alone (the
run's ``seconds``), while the process that delivers to MLflow works beside it as it always does.

    python benchmarks/tracking.py --config examples/drsae-digits.toml --pairs 5
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

LIMIT = 1.03
QUIET = ["callbacks.baseline=false", "callbacks.progress=false", "output.report=false"]


def seconds(config: Path, folder: Path, overrides: list[str]) -> float:
    """Train in a process of its own. Gives the seconds of its training."""
    command = [sys.executable, "-m", "groundstate", "train", str(config), "--json", *QUIET, *overrides]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, encoding="utf-8", check=True)
    return float(json.loads(done.stdout)["metrics"]["seconds"])


def main() -> int:
    """Print the figures; 1 where the median is over the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("examples/drsae-digits.toml"))
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--log-every", type=int, default=1)
    parser.add_argument("overrides", nargs="*", help="config overrides, key.path=value")
    given = parser.parse_args()
    common = [f"learning.log_every={given.log_every}", *given.overrides]
    on, off = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for pair in range(given.pairs):
            for tracked in (True, False) if pair % 2 == 0 else (False, True):
                overrides = [*common, *(() if tracked else ("tracking=false",))]
                (on if tracked else off).append(seconds(given.config.resolve(), folder, overrides))
    ratios = [one / other for one, other in zip(on, off, strict=True)]
    result = {
        "on_seconds": statistics.median(on),
        "off_seconds": statistics.median(off),
        "ratio_median": statistics.median(ratios),
        "ratio_of_least": min(on) / min(off),
        "ratios": ratios,
        "limit": LIMIT,
    }
    print(json.dumps(result, indent=2))
    return int(result["ratio_median"] > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
