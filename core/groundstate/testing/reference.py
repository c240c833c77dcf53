"""What plugins are compared with: slow, plain float64 versions of the field's standard parts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from groundstate.components import Decoder, Reconstruction, Regulariser
from groundstate.data import Batch
from groundstate.energy import Energy
from groundstate.problem import Problem, Step
from groundstate.structure import (
    L1,
    Cardinality,
    Groups,
    Inhibition,
    LeastSquares,
    LinearMap,
    Pooled,
    Ridge,
    SmoothedGroups,
    Structure,
    Tree,
)
from groundstate.testing.subject import Setting, generator


class ReferenceDecoder(Decoder):
    """One matrix, fixed or a parameter; tells its structure where ``open_`` is set."""

    linear = True
    matrix: Tensor

    def __init__(self, setting: Setting, matrix: Tensor | None = None, *, open_: bool = True) -> None:
        super().__init__()
        self.setting, self.open = setting, open_
        if isinstance(matrix, nn.Parameter):
            self.matrix = matrix
        else:
            self.register_buffer("matrix", setting.matrix() if matrix is None else matrix)

    def code_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.setting.code_shape

    def forward(self, z: Tensor) -> Tensor:
        """z: (batch, *code_shape), or fewer units after pruning."""
        flat = z.flatten(1)
        return (flat @ self.matrix.T).view(len(z), *self.setting.input_shape)

    def structure(self) -> LinearMap | None:
        return LinearMap(matrix=self.matrix) if self.open and len(self.setting.code_shape) == 1 else None


class ReferenceData(Reconstruction):
    """½‖x − decoded‖²; tells its structure where ``open_`` is set."""

    quadratic = True

    def __init__(self, *, open_: bool = True) -> None:
        super().__init__()
        self.open = open_

    def energy(self, x: Tensor, decoded: Tensor) -> Tensor:
        return 0.5 * (x - decoded).flatten(1).square().sum(1)

    def structure(self) -> Structure | None:
        return LeastSquares() if self.open else None


class ReferenceTerm(Regulariser):
    """The penalty of one structure, by its formula."""

    def __init__(self, form: Structure, weight: float = 1.0) -> None:
        super().__init__(weight=weight)
        self.form = form
        self.non_negative = bool(getattr(form, "non_negative", False))

    def energy(self, z: Tensor) -> Tensor:
        value = value_of(self.form, z)
        assert value is not None
        return value

    def curvature(self) -> float:
        if not isinstance(self.form, Inhibition):
            return 0.0
        largest = float(torch.linalg.eigvalsh(self.form.matrix.double())[-1].clamp_min(0))
        return 2 * float(self.form.weight) * largest

    def structure(self) -> Structure:
        return self.form


class ReferenceRidge(ReferenceTerm):
    """½‖z‖², in the smooth part."""

    quadratic = True


class ReferenceInhibition(ReferenceTerm):
    """What has a proximal map and is no norm."""

    def prox(self, v: Tensor, step: Step, z: Tensor) -> Tensor:
        return prox_of(self.form, v, step, z)


class ReferenceNorm(ReferenceInhibition):
    """What a duality gap may be asked of."""

    norm = True


def term_of(form: Structure, weight: float = 1.0) -> ReferenceTerm:
    """The term of a structure that is known here."""
    match form:
        case Ridge():
            return ReferenceRidge(form, weight)
        case Inhibition() | Cardinality():
            return ReferenceInhibition(form, weight)
    return ReferenceNorm(form, weight)


def value_of(form: Structure, z: Tensor) -> Tensor | None:
    """The penalty that a structure describes, (batch,); None for a structure that is not known here."""
    flat = z.flatten(1)
    value: Tensor | None = None
    match form:
        case L1():
            value = flat.abs().sum(1) * form.weight
        case Cardinality():
            value = flat.new_zeros(len(flat))
        case Ridge():
            value = 0.5 * flat.square().sum(1) * form.weight
        case Groups():
            weight = torch.as_tensor(form.weight, dtype=z.dtype)
            value = (weight * _pools(form, flat).norm(dim=2)).sum(1)
        case SmoothedGroups():
            weight = torch.as_tensor(form.weight, dtype=z.dtype)
            value = (weight * (_pools(form, flat).square().sum(2) + form.smoothing).sqrt()).sum(1)
        case Tree():
            weight = torch.as_tensor(form.weight, dtype=z.dtype).expand(flat.shape[1])
            value = torch.stack([weight[g] * flat[:, rows].norm(dim=1) for g, rows in _branches(form)]).sum(0)
        case Inhibition():
            size, matrix = flat.abs(), form.matrix.to(z.dtype)
            value = form.weight * (form.sparsity * size.sum(1) + ((size @ matrix) * size).sum(1))
    return value


def _pools(form: Pooled, flat: Tensor) -> Tensor:
    """The pools' entries with their own weights, (batch, pools, size); 0 where a pool is padded."""
    entries = flat[:, form.index.clamp_min(0)] * (form.index >= 0)
    return entries if form.scale is None else entries * form.scale


def _branches(form: Tree) -> list[tuple[int, list[int]]]:
    """Each node with the numbers of all in its group: itself and its descendants; leaves before their parents."""
    parent = form.parent.tolist()
    found: list[list[int]] = [[] for _ in parent]
    for node in range(len(parent)):
        above = node
        while above >= 0:
            found[above].append(node)
            above = parent[above]
    depth = [sum(node in group for group in found) for node in range(len(parent))]
    return sorted(enumerate(found), key=lambda one: -depth[one[0]])


def prox_of(form: Structure, v: Tensor, step: Step, z: Tensor) -> Tensor:
    """argmin_u step·penalty(u) + ½‖u − v‖²; of an inhibition or a smoothed norm, majorised at z.

    Norms of overlapping pools are not known here.
    """
    flat = v.flatten(1)
    t = torch.as_tensor(step, dtype=v.dtype).expand(len(v), *[1] * (v.dim() - 1)).reshape(len(v), 1)
    if getattr(form, "non_negative", False):
        flat = flat.clamp_min(0)
    match form:
        case L1():
            flat = _soft(flat, t * form.weight)
        case Ridge():
            flat = flat / (1 + t * form.weight)
        case Cardinality():
            least = flat.abs().sort(1, descending=True).values[:, min(form.count, flat.shape[1]) - 1, None]
            flat = torch.where(flat.abs() >= least, flat, 0.0)
        case Groups(disjoint=True, scale=None):
            weight = torch.as_tensor(form.weight, dtype=v.dtype).expand(len(form.index))
            flat = flat.clone()
            for pool, row in enumerate(form.index.tolist()):
                rows = [unit for unit in row if unit >= 0]
                flat[:, rows] = _shrink(flat[:, rows], t * weight[pool])
        case SmoothedGroups():
            size = (_pools(form, z.flatten(1)).square().sum(2) + form.smoothing).sqrt()
            weight = torch.as_tensor(form.weight, dtype=v.dtype).expand(len(form.index))
            scale = torch.ones_like(form.index, dtype=v.dtype) if form.scale is None else form.scale.to(v.dtype)
            shrink = torch.zeros_like(flat)
            for pool, row in enumerate(form.index.tolist()):
                for entry, unit in enumerate(row):
                    if unit >= 0:
                        shrink[:, unit] += weight[pool] * scale[pool, entry] ** 2 / size[:, pool]
            flat = flat / (1 + t * shrink)
        case Tree():
            weight = torch.as_tensor(form.weight, dtype=v.dtype).expand(flat.shape[1])
            flat = flat.clone()
            for node, rows in _branches(form):
                flat[:, rows] = _shrink(flat[:, rows], t * weight[node])
        case Inhibition():
            size = z.flatten(1).abs() @ form.matrix.to(v.dtype)
            flat = _soft(flat, t * form.weight * (form.sparsity + 2 * size))
        case _:
            raise ValueError(f"no reference for {form}")
    return flat.view_as(v)


def _soft(flat: Tensor, threshold: Tensor) -> Tensor:
    return flat.sign() * (flat.abs() - threshold).clamp_min(0)


def _shrink(part: Tensor, threshold: Tensor) -> Tensor:
    norm: Tensor = part.norm(dim=1, keepdim=True)
    return part * (1 - threshold / norm.clamp_min(1e-300)).clamp_min(0)


# -- problems ---------------------------------------------------------------------------------------


def problem_of(
    penalties: dict[str, Structure],
    *,
    inputs: int = 20,
    units: int = 36,
    samples: int = 4,
    weight: float = 0.1,
    open_: bool = True,
    dtype: torch.dtype = torch.float64,
    device: str | torch.device = "cpu",
    matrix: Tensor | None = None,
) -> Problem:
    """½‖x − Dz‖² + weight·penalties on made-up data. open_: whether data and decoder tell their structure."""
    setting = Setting((inputs,), (units,))
    decoder = ReferenceDecoder(setting, matrix, open_=open_)
    terms: dict[str, Any] = {"data": ReferenceData(open_=open_)}
    terms |= {name: term_of(form, weight) for name, form in penalties.items()}
    x = torch.randn(samples, inputs, generator=generator(21), dtype=torch.float64)
    x = x / x.norm(dim=1, keepdim=True)
    for part in (decoder, *terms.values()):
        part.to(device, dtype)
    energy = Energy(terms, decoder)
    return Problem(energy, Batch({"x": x.to(device, dtype)}), (units,), tolerance=1e-10)


def sparse_problem_of(*, count: int = 5, units: int = 36, **fields: Any) -> Problem:
    """½‖x − Dz‖² with at most ``count`` entries of z, and DᵀD = 1: the largest of Dᵀx are the minimum.

    No other problem of this kind, which is not convex, has a minimum that all solvers must find.
    """
    matrix = torch.linalg.qr(torch.randn(40, units, generator=generator(22), dtype=torch.float64)).Q
    return problem_of({"s": Cardinality(count=count)}, inputs=40, units=units, matrix=matrix, **fields)


def solved(problem: Problem, iterations: int = 4000) -> Tensor:
    """The code of lowest energy by FISTA with restart (Beck & Teboulle 2009; O'Donoghue & Candès 2015)."""
    step = 1.0 / (problem.lipschitz().value + problem.curvature())
    z = ahead = problem.zeros()
    t = 1.0
    with torch.no_grad():
        for _ in range(iterations):
            following = problem.prox(ahead - step * problem.smooth(ahead)[1], step, ahead)
            if bool(((ahead - following) * (following - z)).sum() > 0):
                t, ahead, following = 1.0, z, problem.prox(z - step * problem.smooth(z)[1], step, z)
            if bool((following - z).abs().max() <= 1e-14):
                break
            t, before = 0.5 * (1 + (1 + 4 * t * t) ** 0.5), t
            ahead = following + (before - 1) / t * (following - z)
            z = following
    return z


def standard_penalties(units: int = 36) -> dict[str, Structure]:
    """One structure of each form that a kernel may be written for."""
    index = torch.arange(units).view(-1, 4)
    parent = torch.tensor([-1 if unit < 4 else (unit - 4) // 2 for unit in range(units)])
    matrix = torch.rand(units, units, generator=generator(5), dtype=torch.float64)
    matrix = (0.05 * (matrix + matrix.T)).fill_diagonal_(0)
    ones = torch.ones(len(index), dtype=torch.float64)
    weights = torch.linspace(0.5, 1.5, units, dtype=torch.float64)
    return {
        "L1": L1(),
        "non-negative L1": L1(non_negative=True),
        "disjoint groups": Groups(index=index, weight=ones, disjoint=True),
        "non-negative disjoint groups": Groups(index=index, weight=ones, disjoint=True, non_negative=True),
        "tree": Tree(parent=parent, weight=weights),
        "inhibition": Inhibition(matrix=matrix, sparsity=1.0),
    }
