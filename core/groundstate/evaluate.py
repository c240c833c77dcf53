"""Figures of a model on a data split: energies per term, task metrics, certificates, use of the code."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from groundstate.components import Solver
from groundstate.data import Batch, Source
from groundstate.inference import Solution, solve
from groundstate.model import Model
from groundstate.problem import Problem
from groundstate.processes import Processes

Extra = Callable[[Batch, Solution], Mapping[str, Tensor]]


def evaluate(
    model: Model,
    source: Source,
    *,
    batch_size: int = 1000,
    limit: int | None = None,
    seed: int = 0,
    extra: Extra | None = None,
    processes: Processes | None = None,
) -> dict[str, float]:
    """Means over a split: ``energy``, ``energy/<term>``, ``<term>/<metric>``, certificates and code statistics.

    limit: only the first samples. seed: of the noise that encoders or terms draw. extra: further per-sample
    figures of a batch. processes: share the work; each gives the means of the whole split.
    """
    processes = processes or Processes()
    totals: defaultdict[str, Tensor] = defaultdict(lambda: torch.zeros((), dtype=torch.float64))
    certificates: list[Tensor] = []
    used: Tensor | None = None
    rows = torch.arange(min(len(source), limit or len(source)))
    generator = torch.Generator(model.device).manual_seed(seed)
    weights = {name: term.config.weight for name, term in model.energy.terms.items()}
    with torch.no_grad():
        for whole in torch.split(rows, batch_size):
            own, places = processes.part(whole)
            batch = source.read(own).to(model.device, model.dtype)
            solution = model.infer_batch(batch, generator=generator)
            point = model.point(batch, solution, generator)
            figures: dict[str, Tensor] = {}
            for name, value in model.energy.values(point, weights).items():
                figures[f"energy/{name}"] = value
            for name, term in model.energy.terms.items():
                if term.metrics is not None:
                    figures |= {f"{name}/{metric}": value for metric, value in point.call(term.metrics).items()}
            if extra is not None:
                figures |= extra(batch, solution)
            for name, value in figures.items():
                totals[name] += value[: len(places)].double().sum().cpu()
            active = (solution.code != 0)[: len(places)]
            used = active.sum(0) if used is None else used + active.sum(0)
            if solution.certificate is not None:
                certificates.append(processes.gather(solution.certificate.relative.cpu(), places, len(whole)))
    count = len(rows)
    processes.reduce([*totals.values(), *(() if used is None else (used,))])
    means = {name: float(total) / count for name, total in totals.items()}
    means = {"energy": sum(value for name, value in means.items() if name.startswith("energy/")), **means}
    return means | _code_statistics(used, count) | _certificate_statistics(certificates)


def _code_statistics(used: Tensor | None, count: int) -> dict[str, float]:
    """density: share of non-zero entries. dead: share of units never active. entropy: of use over units, 1 = even."""
    if used is None:
        return {}
    share = used.double().flatten() / used.sum().clamp_min(1)
    entropy = torch.special.entr(share).sum() / torch.log(torch.tensor(float(max(used.numel(), 2))))
    return {
        "code/density": float(used.sum()) / (count * used.numel()),
        "code/dead": float((used == 0).double().mean()),
        "code/entropy": float(entropy),
    }


def _certificate_statistics(parts: list[Tensor]) -> dict[str, float]:
    if not parts:
        return {}
    relative = torch.cat(parts)
    return {"certificate/median": float(relative.median()), "certificate/max": float(relative.max())}


def amortisation_gap(model: Model, reference: Solver[Any], source: Source, samples: int) -> dict[str, float]:
    """How far the model's codes are above the lowest energy that a reference solver finds, relative to it.

    Both energies are over the terms that act in inference; the reference starts from the model's code, so
    that the gap is never negative by more than its certificate.
    """
    rows = torch.arange(min(samples, len(source)))
    batch = source.read(rows).to(model.device, model.dtype)
    with torch.no_grad():
        solution = model.infer_batch(batch)
        problem = Problem(model.energy, batch, model.shapes.code_shape, encoded=solution.encoded)
        best = solve(problem, reference, solution.code, backend=model.backend)
    assert solution.energy is not None
    assert best.energy is not None
    gap = (solution.energy - best.energy) / best.energy.abs().clamp_min(torch.finfo(best.energy.dtype).tiny)
    figures = {"amortisation_gap/mean": float(gap.mean()), "amortisation_gap/median": float(gap.median())}
    if best.certificate is not None:
        figures["amortisation_gap/reference_certificate"] = float(best.certificate.relative.max())
    return figures
