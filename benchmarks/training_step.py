"""Overhead of the framework: a training step through groundstate, tracking on, against plain torch.

All take batches of the same size through the same model (units, steps, optimiser, clipping, average, constraints), in
one process, in turn, block by block; the figure is the median over blocks of the ratio of their medians. The hand-
written model runs as it is and with torch.compile (where a C++ compiler is there). A step that begins an epoch is
counted apart: before it stands the validation pass, which the hand-written loop has not.

    python benchmarks/training_step.py --config examples/drsae-mnist.toml data.path=PATH
    python benchmarks/training_step.py --config benchmarks/topk.toml --blocks 6 --steps 5 --warm 2
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from _plain_drsae import PlainDrsae
from _plain_topk import PlainTopK
from _race import RESULTS, machine, save
from torch import nn

from groundstate.config import load_config
from groundstate.run import Run
from groundstate_plugins.encoders.top_k import TopK


def framework_steps(run: Run) -> Callable[[], bool]:
    """Each call is a step; it tells whether an epoch's end, with its validation pass, came before it."""
    run.start()
    run.hook.run_started(run=run, resumed=False)
    stream = run.steps()

    def advance() -> bool:
        next(stream)
        return run.position.batch == 1

    return advance


def plain_models(run: Run) -> dict[str, nn.Module]:
    """The run's model hand-written, by name: in each way that may be the fastest."""
    dictionary = run.model.decoder.structure().matrix.detach()
    encoder = run.model.encoder.config
    if isinstance(run.model.encoder, TopK):
        return {
            name: PlainTopK(dictionary, encoder.keep, gathered=gathered)
            for name, gathered in {"plain": False, "gathered": True}.items()
        }
    weights = {name: term.config.weight for name, term in run.model.energy.terms.items()}
    sparsity, task = weights["sparsity"], weights["classification"]
    learning = run.config.learning
    model = PlainDrsae(dictionary, run.splits.classes, encoder.steps, sparsity, task, learning.clip, learning.average)
    return {"plain": model}


def plain_steps(run: Run, model: nn.Module, *, compiled: bool = False) -> Callable[[], bool]:
    config = run.config
    if compiled:
        model.loss = torch.compile(model.loss, dynamic=False)
    optimiser = model.optimiser(config.learning.rate)
    source, size = run.splits.train, config.learning.batch_size
    state = {"order": torch.randperm(len(source)), "at": 0}

    def advance() -> bool:
        # whole batches alone: another shape would be compiled anew
        if state["at"] + size > len(source):
            state.update(order=torch.randperm(len(source)), at=0)
        rows = state["order"][state["at"] : state["at"] + size]
        state["at"] += size
        fields = source.read(rows).fields
        model.train_step(optimiser, *(fields[name] for name in ("x", "y") if name in fields))
        return False

    return advance


def timed(advance: Callable[[], bool], steps: int) -> tuple[list[float], list[float]]:
    """Seconds of plain steps, and of those that an epoch's end came before."""
    inside, after_epoch = [], []
    for _ in range(steps):
        began = time.perf_counter()
        ended = advance()
        (after_epoch if ended else inside).append(time.perf_counter() - began)
    return inside, after_epoch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="examples/drsae-digits.toml")
    parser.add_argument("--blocks", type=int, default=40)
    parser.add_argument("--steps", type=int, default=25, help="steps in a block")
    parser.add_argument("--warm", type=int, default=10, help="steps before the first that counts")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("overrides", nargs="*", help="config overrides, key.path=value")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        # joint training from the first step: the plain model runs all three terms too
        overrides = [f'output.folder="{folder}"', *arguments.overrides]
        if "unsupervised" in load_config(Path(arguments.config), overrides).config.phases:
            overrides.append("phases.unsupervised=false")
        loaded = load_config(Path(arguments.config), overrides)
        run = Run(loaded, Path(folder) / "benchmark")
        ways = {"groundstate": framework_steps(run)}
        for name, model in plain_models(run).items():
            ways[name] = plain_steps(run, model)
        if shutil.which("g++"):
            for name, model in plain_models(run).items():
                ways["compiled" if name == "plain" else f"{name}_compiled"] = plain_steps(run, model, compiled=True)
        for advance in ways.values():
            timed(advance, arguments.warm)
        times: dict[str, list[float]] = {name: [] for name in ways}
        epochs: list[float] = []
        for block in range(arguments.blocks):
            names = list(ways) if block % 2 == 0 else list(ways)[::-1]
            for name in names:
                inside, after_epoch = timed(ways[name], arguments.steps)
                times[name].append(statistics.median(inside))
                epochs += after_epoch
        run.hook.run_failed(run=run, error=KeyboardInterrupt())
    ours = times["groundstate"]
    result: dict[str, float] = {f"{name}_ms": statistics.median(found) * 1e3 for name, found in times.items()}
    for name in list(ways)[1:]:
        ratios = [a / b for a, b in zip(ours, times[name], strict=True)]
        result[f"ratio_to_{name}"] = statistics.median(ratios)
        result |= dict(zip((f"ratio_to_{name}_q1", f"ratio_to_{name}_q3"), quartiles(ratios), strict=True))
    if epochs:
        result["validation_ms"] = (statistics.median(epochs) - statistics.median(ours)) * 1e3
        result["validation_share"] = result["validation_ms"] / (result["groundstate_ms"] * run.steps_in_epoch)
    result |= {"threads": torch.get_num_threads(), "blocks": arguments.blocks, "steps": arguments.steps}
    save(f"training_step_{Path(arguments.config).stem}", {"machine": machine(), **result}, arguments.output)


def quartiles(values: list[float]) -> list[float]:
    return statistics.quantiles(values, n=4)[::2]


if __name__ == "__main__":
    main()
