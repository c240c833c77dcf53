"""Overhead of the framework: a DrSAE training step through groundstate, tracking on, against plain torch.

Both take the same batches of the same size through the same model (units, steps, optimiser, constraints), in one
process, in turn, block by block; the figure is the median over blocks of the ratio of their times.

    python benchmarks/training_step.py --config examples/drsae-mnist.toml data.path=PATH
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from _plain_drsae import PlainDrsae

from groundstate.config import load_config
from groundstate.run import Run


def framework_steps(run: Run) -> Callable[[int], None]:
    run.start()
    run.hook.run_started(run=run, resumed=False)
    stream = run.steps()

    def advance(count: int) -> None:
        for _ in range(count):
            next(stream)

    return advance


def plain_steps(run: Run) -> Callable[[int], None]:
    config = run.config
    dictionary = run.model.decoder.structure().matrix.detach().clone()
    weights = {name: term.config.weight for name, term in run.model.energy.terms.items()}
    model = PlainDrsae(
        dictionary,
        run.splits.classes,
        run.model.encoder.config.steps,
        weights["sparsity"],
        weights["classification"],
    )
    optimiser = model.optimiser(config.learning.rate)
    source, size = run.splits.train, config.learning.batch_size
    state = {"order": torch.randperm(len(source)), "at": 0}

    def advance(count: int) -> None:
        for _ in range(count):
            if state["at"] >= len(source):
                state.update(order=torch.randperm(len(source)), at=0)
            rows = state["order"][state["at"] : state["at"] + size]
            state["at"] += size
            batch = source.read(rows)
            model.train_step(optimiser, batch.fields["x"], batch.fields["y"])

    return advance


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="examples/drsae-digits.toml")
    parser.add_argument("--blocks", type=int, default=40)
    parser.add_argument("--steps", type=int, default=25, help="steps in a block")
    parser.add_argument("--json", type=Path)
    parser.add_argument("overrides", nargs="*", help="config overrides, key.path=value")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        # joint training from the first step: the plain model runs all three terms too
        overrides = ["phases.unsupervised=false", f'output.folder="{folder}"', *arguments.overrides]
        loaded = load_config(Path(arguments.config), overrides)
        run = Run(loaded, Path(folder) / "benchmark")
        ways = {"groundstate": framework_steps(run), "plain torch": plain_steps(run)}
        for advance in ways.values():
            advance(10)
        times: dict[str, list[float]] = {name: [] for name in ways}
        for block in range(arguments.blocks):
            names = list(ways) if block % 2 == 0 else list(ways)[::-1]
            for name in names:
                began = time.perf_counter()
                ways[name](arguments.steps)
                times[name].append((time.perf_counter() - began) / arguments.steps)
        run.hook.run_failed(run=run, error=KeyboardInterrupt())
    ratios = [a / b for a, b in zip(times["groundstate"], times["plain torch"], strict=True)]
    result = {
        "groundstate_ms": statistics.median(times["groundstate"]) * 1e3,
        "plain_ms": statistics.median(times["plain torch"]) * 1e3,
        "ratio_median": statistics.median(ratios),
        "ratio_quartiles": statistics.quantiles(ratios, n=4)[::2],
        "threads": torch.get_num_threads(),
        "blocks": arguments.blocks,
        "steps": arguments.steps,
    }
    print(json.dumps(result, indent=2))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
