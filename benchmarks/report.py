"""How large a run's report is, how long it takes to make, and to open in headless Chromium.

    python benchmarks/report.py RUN …

RUN: folders of finished runs. The page is made three times in this process, from the run as it stands in memory at the
end of a training, and opened three times; medians are told, and 1 is the exit code where a limit is missed.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import time
from pathlib import Path

import torch

from groundstate.report import opened, write_report

LIMITS = {"megabytes": 5.0, "seconds_to_make": 5.0, "seconds_to_open": 1.0}
TIMES = 3


def seconds_to_open(page: Path) -> float:
    """From asking for the page to its load event, by the browser's own clock."""
    from playwright.sync_api import sync_playwright

    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--headless", "--no-sandbox"])
        times = []
        for _ in range(TIMES):
            view = browser.new_page()
            view.goto(page.absolute().as_uri())
            times.append(view.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd") / 1000)
            view.close()
        browser.close()
    return statistics.median(times)


def seconds_to_make(folder: Path) -> float:
    run = opened(folder)
    times = []
    for _ in range(TIMES):
        began = time.perf_counter()
        write_report(run)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def main() -> int:
    torch.set_num_threads(1)
    kept = True
    for folder in map(Path, sys.argv[1:]):
        made = seconds_to_make(folder)
        page = folder / "report.html"
        found = {
            "megabytes": page.stat().st_size / 1e6,
            "seconds_to_make": made,
            "seconds_to_open": seconds_to_open(page),
        }
        print(json.dumps({"run": folder.name, **{name: round(value, 3) for name, value in found.items()}}))
        kept = kept and all(found[name] <= limit for name, limit in LIMITS.items())
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
