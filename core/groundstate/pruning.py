"""Pruning: the units that a trained run's codes use least are taken out, and what is left is a run of its own."""

from __future__ import annotations

import secrets
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

import torch
from torch import Tensor

from groundstate.check import check
from groundstate.components import Transform
from groundstate.config import LoadedConfig, Overrides, load_config, pruned_tables
from groundstate.data import Source
from groundstate.errors import InputError
from groundstate.evaluate import evaluate
from groundstate.files import require_writable
from groundstate.model import Model
from groundstate.run import Position, Run, find_run, open_run

SAMPLES = 20_000
"""Training inputs at most whose codes tell how often a unit is used."""
BATCH = 1000


@dataclass(frozen=True)
class Pruned:
    """What a run lost: each pair is before and after the cut, without further training.

    source: the id of the run that was pruned. part: the part of the data whose mean energy is told. kept: the units
    of the code that stay, as they were numbered before.
    """

    source: str
    units: list[int]
    parameters: list[int]
    part: str
    energy: list[float]
    kept: list[int]


def prune(
    run: Path | str,
    overrides: Overrides | None = None,
    *,
    keep: int | None = None,
    least_used: int | None = None,
    rarer_than: float | None = None,
) -> Run:
    """Take units out of a run, finished or interrupted; gives the new run that goes on without them.

    run: its folder or id; it stays as it is. Of a stack, the last layer that it has is pruned. Exactly one of keep (so
    many units stay), least_used (so many go) and rarer_than (those go that a smaller share of codes uses) is given.
    overrides: changes of the config; phases that they add are trained now. Parameters, S, the optimiser's state and
    the config shrink; the record's ``pruned`` tells what went. InputError before anything is written.
    """
    if sum(given is not None for given in (keep, least_used, rarer_than)) != 1:
        raise InputError("say what to prune by one of keep, least_used and rarer_than")
    old = open_run(find_run(run))
    if old.processes.number > 1:
        raise InputError("prune in one process; what is left can then be trained in several")
    old.restore()
    if old.position.complete:
        old.settle()
    frequency, size = usage(old.model, old.splits.train, old.config.seed)
    order = torch.argsort(size, stable=True)
    order = order[torch.argsort(frequency[order], stable=True)]
    units = len(order)
    if keep is None:
        keep = units - least_used if least_used is not None else int((frequency >= (rarer_than or 0)).sum())
    if keep < 1:
        raise InputError(f"pruning would remove every one of the {units} units; at least one must stay")
    if keep >= units:
        raise InputError(f"nothing would be pruned: {keep} units are to stay, and the code has {units}")
    kept = order[units - keep :].sort().values
    part, source = next(reversed(old.splits.parts().items()))
    energies, sizes = [_energy(old, source)], [parameters(old.model)]
    old.learner.select(kept.to(old.model.device))
    if isinstance(old.stack.top.pool, Transform):
        old.stack.top.pool.output_shape(old.model.shapes.code_shape)  # InputError where its windows fit no more
    energies.append(_energy(old, source))
    sizes.append(parameters(old.model))
    cut = Pruned(old.id, [units, keep], sizes, part, energies, kept.tolist())
    return _go_on(old, kept, load_config(pruned_tables(old.config, old.stack.top), overrides), cut)


def usage(model: Model, source: Source, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Of each unit along the code's first axis: the share of codes (and places) that use it, and its mean size."""
    generator = torch.Generator(model.device).manual_seed(seed)
    rows = torch.arange(min(len(source), SAMPLES))
    used, size = (torch.zeros(model.shapes.code_shape[0], dtype=torch.float64) for _ in range(2))
    for some in torch.split(rows, BATCH):
        batch = source.read(some).to(model.device, model.dtype)
        with torch.no_grad():
            code = model.infer_batch(batch, generator=generator, certify=False).code
        code = code.reshape(*code.shape[:2], -1).cpu().double()  # (batch, units, places)
        used += (code != 0).double().mean(2).sum(0)
        size += code.abs().mean(2).sum(0)
    return used / len(rows), size / len(rows)


def _energy(run: Run, source: Source) -> float:
    return evaluate(run.model, source, seed=run.config.seed)["energy"]


def parameters(model: Model) -> int:
    """How many numbers a model learns."""
    return sum(value.numel() for value in model.parameters())


def _go_on(old: Run, kept: Tensor, loaded: LoadedConfig, cut: Pruned) -> Run:
    """A new run of this config with the state of the old one, whose model is pruned; trained to its end."""
    position = _position(old, loaded)
    output = loaded.config.output.folder
    require_writable(output, "output.folder")
    check(loaded)
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    run = Run(loaded, output / f"{loaded.config.name}-{stamp}-{secrets.token_hex(2)}")
    state = {name: value for name, value in old.state().items() if not name.startswith("best/")}
    if "previous" in state:
        state["previous"] = state["previous"].index_select(1, kept)
    while len(run.stack) < len(old.stack):
        run.enter_layer(sample=False)
    shapes = {f"model/{name}": value.shape for name, value in run.stack.state_dict().items()}
    other = [name for name, shape in shapes.items() if name not in state or state[name].shape != shape]
    if other:
        raise InputError(f"what is left of {old.id} does not fit the changed config: {', '.join(other)}")
    run.take(position, state)
    run.start(pruned=asdict(cut))
    run.execute()
    return run


def _position(old: Run, loaded: LoadedConfig) -> Position:
    """Where the new run stands: where the old one stood, or at the phases that the config adds to a finished one."""
    position = replace(old.position, best=None, best_step=0, records=0, seconds=0.0)
    phases = loaded.layers[position.layer].config.phases
    done = old.phases if position.complete else old.phases[: position.phase]
    for name, phase in done:
        if phases.get(name) != phase:
            raise InputError(f"the phase '{name}' is over; to train what is left, add one, e.g. phases.refine.epochs=4")
    if position.complete and len(phases) > len(done):
        return replace(position, phase=len(done), complete=False)
    return position
