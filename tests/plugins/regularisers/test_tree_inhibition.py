"""Lateral inhibition in tree form: who inhibits whom, ascent on that mask, pruning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from groundstate.errors import InputError
from groundstate.structure import Inhibition
from groundstate_plugins.regularisers.tree_inhibition import TreeInhibition

Laid = Callable[..., Any]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def matrix_of(term: TreeInhibition) -> Tensor:
    form = term.structure()
    assert isinstance(form, Inhibition)
    return form.matrix.detach()


def test_only_units_off_each_others_branch_inhibit_each_other(laid: Laid) -> None:
    """Two trees 0 → (1 → 2, 3) and 4 → 5."""
    term = laid(TreeInhibition(parents=[-1, 0, 1, 0, -1, 4], strength=0.5), 6)
    free = {(0, 1), (0, 2), (0, 3), (1, 2), (4, 5)}
    for i in range(6):
        for j in range(6):
            spared = i == j or (min(i, j), max(i, j)) in free
            assert float(matrix_of(term)[i, j]) == (0.0 if spared else 0.5), (i, j)
    assert term.structure().parent.tolist() == [-1, 0, 1, 0, -1, 4]


def test_a_branch_costs_nothing_but_its_sparsity(laid: Laid) -> None:
    term = laid(TreeInhibition(branching=[2, 2, 2], sparsity=0.25), 14)
    branch, torn = torch.zeros(2, 1, 14).unbind(0)
    branch[0, [0, 1, 3]] = torch.tensor([1.0, -2.0, 3.0])
    torn[0, [3, 4]] = torch.tensor([1.0, 2.0])  # siblings
    assert float(term.energy(branch)) == pytest.approx(0.25 * 6)
    assert float(term.energy(torn)) == pytest.approx(0.25 * 3 + 2 * 1.0 * 2.0)


def test_a_learned_matrix_stays_on_the_trees_mask(laid: Laid) -> None:
    term = laid(TreeInhibition(branching=[3, 2, 2], learn=True, row_sum=2.0), 21)
    ((_, parameter, spec),) = term.declared()
    related = term.config.forest().ancestors()
    related = related | related.T | torch.eye(21, dtype=torch.bool)
    assert spec.direction == "ascend"
    assert spec.constraint is not None
    for seed in range(3):
        with torch.no_grad():
            parameter.add_(normal(21, 21, seed=seed).abs())
            spec.constraint.project_(parameter)
        assert not parameter[related].any()
        assert spec.constraint.violation(parameter.detach()) < 1e-6
        assert float(parameter.detach().sum(1).max()) == pytest.approx(2.0, abs=1e-5)


@pytest.mark.parametrize("learned", [{}, {"learn": True, "row_sum": 2.0}], ids=["fixed", "learned"])
def test_pruned_units_leave_the_others_relations_as_they_were(learned: dict[str, Any], laid: Laid) -> None:
    term = laid(TreeInhibition(branching=[3, 2, 2], **learned), 21)
    keep = torch.tensor([0, 3, 4, 8, 10, 14, 20])  # 3 and 4 lose their parent 1, 10 its parent 8's sibling
    before = matrix_of(term)[keep][:, keep].clone()
    z = normal(4, len(keep))
    whole = torch.zeros(4, 21)
    whole[:, keep] = z
    energy = term.energy(whole)
    term.select(keep)
    torch.testing.assert_close(matrix_of(term), before, rtol=0, atol=0)
    torch.testing.assert_close(term.energy(z), energy)
    again = laid(TreeInhibition(**term.config.model_dump()), len(keep))  # as a saved model is made again
    assert bool(((matrix_of(again) > 0) == (before > 0)).all())
    again.load_state_dict(term.state_dict())
    torch.testing.assert_close(again.energy(z), energy)


def test_trees_of_another_size_than_the_code_are_refused(laid: Laid) -> None:
    with pytest.raises(InputError, match="trees have 256 units, but the code has 100"):
        laid(TreeInhibition(branching=[16, 3, 4]), 100)
