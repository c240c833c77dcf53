"""The sections that a report has for some systems only, each against what it can be counted from by hand."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve
from tests.core.test_report import material_of, plain

from groundstate.components import Code, Context, Encoder, Term
from groundstate.model import Model
from groundstate.report import groups, inhibition, iterates, labels, trees, variational
from groundstate.report.observe import Labels
from groundstate.report.words import number, percent
from groundstate.structure import Groups
from groundstate_plugins.decoders.linear import LinearDecoder
from groundstate_plugins.encoders.recurrent import Recurrent
from groundstate_plugins.reconstructions.squared_error import SquaredError
from groundstate_plugins.regularisers.group import Group
from groundstate_plugins.regularisers.l1 import L1
from groundstate_plugins.regularisers.tree_group import TreeGroup
from groundstate_plugins.regularisers.tree_inhibition import TreeInhibition
from groundstate_plugins.solvers.amortised import Amortised
from groundstate_plugins.solvers.fista import Fista

SIDE = 4


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def built(term: Term, units: int, encoder: Encoder | None = None) -> Model:
    solver = Amortised() if encoder is not None else Fista(max_iterations=30)
    model = Model(
        terms={"reconstruction": SquaredError(), "penalty": term},
        solver=solver,
        encoder=encoder,
        decoder=LinearDecoder(units=units),
    )
    return model.build((SIDE * SIDE,))


# -- encoders that iterate ------------------------------------------------------------------------------


def test_energy_by_step_is_that_of_the_encoder_stopped_there(tmp_path: Path) -> None:
    x = normal(20, SIDE * SIDE)
    model = built(L1(weight=0.05, non_negative=True), 24, Recurrent(steps=4))
    found = iterates.follow(material_of(model, x, (SIDE, SIDE), tmp_path))
    assert found is not None
    assert model.encoder is not None
    for step in range(4):
        model.encoder.config = model.encoder.config.model_copy(update={"steps": step + 1})
        with torch.no_grad():
            z = model.encoder(x)
            left = 0.5 * (x - model.decode(z)).square().sum(1).mean()
        assert found.energies["reconstruction"][step] == pytest.approx(float(left), rel=1e-5)
        assert found.energies["penalty"][step] == pytest.approx(0.05 * float(z.sum(1).mean()), rel=1e-5)
    assert found.error is None


def test_units_are_told_apart_by_the_angle_of_row_and_column(tmp_path: Path) -> None:
    model = built(L1(weight=0.01, non_negative=True), 24, Recurrent(steps=3, bound_rows=None))
    dictionary = model.get_parameter("decoder.dictionary")
    rows = model.get_parameter("encoder.feedforward")
    turned = torch.linspace(0, 1.4, 24)
    with torch.no_grad():
        other = normal(24, SIDE * SIDE, seed=1)
        column = dictionary.T / dictionary.T.norm(dim=1, keepdim=True)
        other -= (other * column).sum(1, keepdim=True) * column
        other /= other.norm(dim=1, keepdim=True)
        rows.copy_(turned.cos()[:, None] * column + turned.sin()[:, None] * other)
        model.get_parameter("encoder.threshold").fill_(-1.0)  # every unit is active
    words = plain(iterates.steps(material_of(model, normal(30, SIDE * SIDE), (SIDE, SIDE), tmp_path)))
    assert f"part-units, which the input drives directly. Right of 0.7 ( ◆ , {percent(12 / 24)} )".replace(
        " )", ")"
    ) in (words.replace(" )", ")"))
    assert f"{percent(9 / 24)}" in words


def test_an_encoder_of_one_pass_has_no_steps(tmp_path: Path) -> None:
    model = built(L1(), 6, Gaussian())
    assert iterates.steps(material_of(model, normal(5, SIDE * SIDE), (SIDE, SIDE), tmp_path)) is None


# -- pools and trees ------------------------------------------------------------------------------------


def test_use_of_pools_is_counted_over_samples() -> None:
    active = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]).bool()
    form = Groups(index=torch.tensor([[0, 1], [2, 3], [3, -1]]), disjoint=False)
    found = groups.use(active, form)
    assert found.pools.tolist() == pytest.approx([2 / 3, 0, 0])
    assert found.members.tolist() == pytest.approx([1.5, 0, 0])


def test_filters_of_a_pool_are_compared_by_their_cosine() -> None:
    columns = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, -3.0]])
    found = groups.alike(columns, Groups(index=torch.tensor([[0, 1], [2, 3]]), disjoint=True))
    assert found is not None
    assert found[0] == pytest.approx(1.0)
    assert found[1] == pytest.approx(1 / 3, abs=0.02)  # of six pairs two are alike
    assert groups.alike(columns, Groups(index=torch.arange(4)[:, None], disjoint=True)) is None


@pytest.mark.parametrize(
    ("term", "says", "pictures"),
    [
        (Group(sheet=(4, 6), window=(2, 2), weight=0.1), "24 pools of up to 4 units, the windows of a 4×6 sheet", 2),
        (Group(size=3, weight=0.1), "8 pools of 3 units", 1),
    ],
)
def test_pools_are_drawn(term: Group, says: str, pictures: int, tmp_path: Path) -> None:
    html = groups.pools(material_of(built(term, 24), normal(30, SIDE * SIDE), (SIDE, SIDE), tmp_path))
    assert says in plain(html)
    assert str(html).count("<img") == pictures
    assert ("pinwheel" in plain(html)) == (term.config.sheet is not None)
    assert groups.pools(material_of(built(L1(), 24), normal(9, SIDE * SIDE), (SIDE, SIDE), tmp_path)) is None


def test_pairs_on_a_branch_are_counted() -> None:
    """0 → (1 → 2, 3): 1, 2, 3 are on a branch with 0, and 2 with 1."""
    found = trees.branches(torch.tensor([-1, 0, 1, 0]))
    assert found.depth.tolist() == [0, 1, 2, 1]
    related = {(0, 1), (0, 2), (0, 3), (1, 2)}
    assert {(i, j) for i, j in found.related.nonzero().tolist() if i < j} == related
    active = torch.tensor([[1, 1, 0, 1], [1, 0, 1, 0]]).bool()  # pairs 01, 03, 13; 02
    assert trees.together(active, found.related) == pytest.approx((3 / 4, 4 / 6))


def test_a_tree_stands_with_its_root_above_the_middle_of_its_leaves() -> None:
    parent = torch.tensor([-1, 0, 0, 1, 1, 1])
    places = trees._places(0, trees._children(parent), set(range(6)))
    assert {unit: level for unit, (_, level) in places.items()} == {0: 0, 1: 1, 2: 1, 3: 2, 4: 2, 5: 2}
    assert [round(8 * places[unit][0]) for unit in (3, 4, 5, 2)] == [1, 3, 5, 7]
    assert places[1][0] == pytest.approx(3 / 8)


@pytest.mark.parametrize("term", [TreeInhibition(branching=[3, 2, 2], sparsity=0.01), TreeGroup(branching=[3, 2, 2])])
def test_trees_are_drawn_with_their_filters(term: Term, tmp_path: Path) -> None:
    material = material_of(built(term, 21), normal(30, SIDE * SIDE), (SIDE, SIDE), tmp_path)
    html = inhibition.inhibition(material) if isinstance(term, TreeInhibition) else trees.sections(material)
    assert str(html).count("<svg") == 3
    assert str(html).count("<image") == 21
    assert "All trees, each unit drawn by its decoder filter" in plain(html)
    assert "roots (3) in" in plain(html)


# -- codes that are distributions -----------------------------------------------------------------------


class Gaussian(Encoder):
    """Codes of mean E x and a given variance."""

    def build(self, context: Context) -> None:
        self.declare("feedforward", 0.1 * context.randn(context.units, context.inputs))
        self.declare("log_variance", torch.linspace(-3, 0, context.units))

    def forward(self, x: torch.Tensor, generator: torch.Generator) -> Code:
        mean = x @ self.feedforward.T
        log_variance = self.log_variance.expand_as(mean)
        noise = torch.randn(mean.shape, generator=generator)
        return Code(mean + (0.5 * log_variance).exp() * noise, mean=mean, log_variance=log_variance)


def test_rate_is_the_divergence_that_torch_computes(tmp_path: Path) -> None:
    from torch.distributions import Normal, kl_divergence

    x = normal(40, SIDE * SIDE)
    model = built(L1(), 6, Gaussian())
    material = material_of(model, x, (SIDE, SIDE), tmp_path)
    found = variational.channel(material)
    assert found is not None
    assert model.encoder is not None
    code = model.encoder(x, torch.Generator())
    nats = kl_divergence(Normal(code.mean, (0.5 * code.log_variance).exp()), Normal(0.0, 1.0)).detach()
    np.testing.assert_allclose(found.rate, nats.sum(1) / math.log(2), rtol=1e-4)
    np.testing.assert_allclose(found.units, nats.mean(0) / math.log(2), rtol=1e-4)
    left = 0.5 * (x - model.decode(code.mean)).detach().square().sum(1)
    assert found.at_mean is not None
    np.testing.assert_allclose(found.at_mean, left, rtol=1e-4)
    html = variational.rate_and_distortion(material)
    assert f"It carries {number(found.rate.mean(), 3)} bits on average" in plain(html)
    assert str(html).count("<svg") == 3


def test_a_code_without_variance_has_no_rate(tmp_path: Path) -> None:
    model = built(L1(non_negative=True), 6, Recurrent(steps=2))
    assert variational.rate_and_distortion(material_of(model, normal(5, 16), (SIDE, SIDE), tmp_path)) is None


# -- calibration ----------------------------------------------------------------------------------------


def test_calibration_error_is_that_of_its_definition() -> None:
    draw = np.random.default_rng(0)
    sure = np.concatenate([draw.uniform(0.1, 1, 3000), [0.2, 1.0, 1.0]])  # on the edges of bins too
    right = draw.random(len(sure)) < 0.8 * sure
    truth = torch.zeros(len(sure), dtype=torch.int64)
    found = labels.reliability(Labels("task", truth, torch.from_numpy((~right).astype(int)), torch.from_numpy(sure)))
    accuracy, probability = calibration_curve(right, sure, n_bins=labels.BINS)
    np.testing.assert_allclose(found.accuracy, accuracy, rtol=1e-12)
    np.testing.assert_allclose(found.probability, probability, rtol=1e-12)
    edges = np.linspace(0, 1, labels.BINS + 1)
    share = [((low < sure) & (sure <= high)).mean() for low, high in itertools.pairwise(edges)]
    expected = sum(of * abs(a - p) for of, a, p in zip(filter(None, share), accuracy, probability, strict=True))
    assert found.error == pytest.approx(expected, rel=1e-9)
    assert found.count.sum() == len(sure)
    assert found.right == pytest.approx(right.mean())


def test_the_strongest_pairs_make_a_graph(tmp_path: Path) -> None:
    from tests.core.test_report import Rivals

    model = built(Rivals(learned=True), 10)
    html = str(inhibition.inhibition(material_of(model, normal(20, SIDE * SIDE), (SIDE, SIDE), tmp_path)))
    said = re.search(r'aria-label="(Graph [^"]*)"', html)
    assert said is not None
    assert said[1].startswith("Graph of the 5 strongest entries of S between 10 units, drawn by their filters: 5 sets")
