"""What a report looks at: the trained model on held-out samples."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from groundstate.components import State, Task
from groundstate.data import Batch, Source, Splits
from groundstate.inference import Solution
from groundstate.model import Model
from groundstate.problem import Certificate, Problem

CLOSELY = 2000
"""Samples whose codes and certificates are looked at."""
SHOWN = 12
"""Samples that are shown one by one."""
SECONDS = 2.0
"""For looking at codes: a slow solver's are looked at on fewer samples, which is said."""
LEAST = 20
"""Samples that a further batch is worth."""
BATCHES = (100, 400, 500)
"""Samples of the first batch, of the second, and of each later one."""
KEPT = 2**22
"""Entries of codes that are kept at most."""
FOLLOWED, FOLLOWED_POINTS = 32, 60
"""Samples whose inference is followed, and at how many iterations at most."""


@dataclass(frozen=True)
class Labels:
    """What a task says of each sample of the split, beside the truth: (samples,) int64 each.

    confidence: (samples,), the probability that it gives its answer; None where it gives none.
    """

    task: str
    truth: Tensor
    predicted: Tensor
    confidence: Tensor | None = None


@dataclass(frozen=True)
class Observed:
    """A model's codes on the first ``samples`` of a split.

    frequency: (units,), the share of samples in which a unit is active (for a code with positions, of samples
    and positions). active: (samples,), active entries of each code. entries: how many a code has.
    code: the codes themselves, of fewer samples where they are large.
    iterations: (samples,). shown: the first few samples, ``decoded`` what the decoder makes of their codes.
    labels: over all samples of the split (over fewer where that takes long), where a task predicts.
    """

    split: str
    samples: int
    frequency: Tensor
    active: Tensor
    entries: int
    code: Tensor
    iterations: Tensor
    certificate: Certificate | None
    shown: Batch
    decoded: Tensor | None
    labels: Labels | None


def held_out(splits: Splits) -> tuple[str, Source]:
    """The split that figures are reported on: test, else validation, else train."""
    return list(splits.parts().items())[-1]


def observe(model: Model, splits: Splits, seed: int) -> Observed:
    """Infer codes of held-out samples. seed: of the noise that an encoder may draw."""
    split, source = held_out(splits)
    generator = torch.Generator(model.device).manual_seed(seed)
    task = predicting(model) if "y" in source.names else None
    solutions: list[Solution] = []
    guesses: list[Tensor] = []
    sure: list[Tensor] = []
    first: Batch | None = None
    with torch.no_grad():
        for rows in _in_time(len(source) if task is not None else min(len(source), CLOSELY)):
            closely = int(rows[0]) < CLOSELY
            batch = source.read(rows).to(model.device, model.dtype)
            solution = model.infer_batch(batch, generator=generator, certify=closely)
            if first is None:
                first = batch
            if closely:
                solutions.append(solution)
            if task is not None:
                guesses.append(_labels(task[1], solution.code))
                if task[1].probabilities is not None:
                    sure.append(task[1].probabilities(solution.code).amax(1))
        assert first is not None
        code = torch.cat([solution.code for solution in solutions])
        shown = first.select(torch.arange(min(SHOWN, len(first))))
        decoded = model.decode(code[: len(shown)]).cpu() if model.decoder is not None else None
    active = (code != 0).cpu()
    unit_axis = (0, *range(2, active.dim()))
    certificates = [solution.certificate for solution in solutions if solution.certificate is not None]
    labels = None
    if task is not None:
        predicted = torch.cat(guesses).cpu()
        truth = source.read(torch.arange(len(predicted))).fields["y"].cpu()
        labels = Labels(task[0], truth, predicted, torch.cat(sure).cpu() if sure else None)
    return Observed(
        split=split,
        samples=len(code),
        frequency=active.double().mean(unit_axis),
        active=active.flatten(1).sum(1),
        entries=active[0].numel(),
        code=code[: max(1, KEPT // active[0].numel())].cpu(),
        iterations=torch.cat([solution.iterations for solution in solutions]).cpu(),
        certificate=_joined(certificates),
        shown=Batch({name: value.cpu() for name, value in shown.fields.items()}),
        decoded=decoded,
        labels=labels,
    )


def _in_time(samples: int) -> Iterator[Tensor]:
    """Row numbers up to ``samples``, batch by batch, as many as fit into the time at the pace so far."""
    began, first = time.monotonic(), 0
    for number in itertools.count():
        size = BATCHES[min(number, len(BATCHES) - 1)]
        if first:
            passed = time.monotonic() - began
            size = min(size, int((SECONDS - passed) * first / max(passed, 1e-9)))
        if first >= samples or size < LEAST:
            return
        yield torch.arange(first, min(first + size, samples))
        first += size


def predicting(model: Model) -> tuple[str, Task] | None:
    """The first task that predicts, with its name."""
    for name, term in model.energy.terms.items():
        if isinstance(term, Task) and term.predict is not None:
            return name, term
    return None


def _labels(task: Task, code: Tensor) -> Tensor:
    assert task.predict is not None
    scores: Tensor = task.predict(code)
    return scores.argmax(1) if scores.dim() > 1 else scores


def _joined(parts: list[Certificate]) -> Certificate | None:
    if not parts:
        return None
    value, relative = (torch.cat([getattr(part, name) for part in parts]).cpu() for name in ("value", "relative"))
    return Certificate(parts[0].kind, value, relative)


@dataclass(frozen=True)
class Descent:
    """Inference, followed: the mean energy of some samples above the lowest that each reached, by iteration."""

    iterations: np.ndarray
    above: np.ndarray
    samples: int


def follow_inference(model: Model, splits: Splits, seed: int) -> Descent | None:
    """The energy from iteration to iteration, or None where the solver does not iterate in the open."""
    last = model.solver.config.max_iterations
    if last == 0:
        return None
    watched = set(np.unique(np.geomspace(1, last, FOLLOWED_POINTS).round().astype(int)).tolist())
    source = held_out(splits)[1]
    batch = source.read(torch.arange(min(FOLLOWED, len(source)))).to(model.device, model.dtype)
    code = batch.x.new_zeros(len(batch), *model.shapes.code_shape)
    seen: dict[int, Tensor] = {}

    def watch(iteration: int, rows: Tensor, state: State, certificate: Certificate | None) -> None:
        code[rows] = state.code.detach()
        if iteration in watched:
            seen[iteration] = code.clone()

    generator = torch.Generator(model.device).manual_seed(seed)
    with torch.no_grad():
        solution = model.infer_batch(batch, generator=generator, callback=watch)
        shape, encoded = model.shapes.code_shape, solution.encoded
        problem = Problem(model.energy, batch, shape, encoded=encoded, generator=generator)
        energies = {iteration: problem.value(z).double().cpu() for iteration, z in seen.items()}
    if len(energies) < 2:
        return None
    table = torch.stack(list(energies.values()))
    above = (table - table.amin(0)).mean(1)
    return Descent(np.array(list(energies)), above.numpy(), len(batch))
