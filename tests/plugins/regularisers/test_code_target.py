"""½‖z − z*‖²: its value, where it acts, and the figures of which the NMSE is made."""

from __future__ import annotations

import math

import torch

from groundstate.components import needs
from groundstate_plugins.regularisers.code_target import CodeTarget


def test_it_is_the_squared_distance_from_the_target() -> None:
    z = torch.tensor([[1.0, 2.0], [0.0, -1.0]], dtype=torch.float64)
    target = torch.tensor([[1.0, 0.0], [3.0, 3.0]], dtype=torch.float64)
    expected = torch.tensor([2.0, 12.5], dtype=torch.float64)
    torch.testing.assert_close(CodeTarget().energy(z, target), expected)
    torch.testing.assert_close(CodeTarget().energy(z.view(2, 2, 1, 1), target.view(2, 2, 1, 1)), expected)
    assert needs(CodeTarget.gradient) == needs(CodeTarget.energy) == ("z", "target")


def test_its_figures_make_the_nmse() -> None:
    target = torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    figures = CodeTarget().metrics(1.1 * target, target)
    nmse = 10 * math.log10(figures["error"].mean() / figures["signal"].mean())
    assert round(nmse, 9) == -20


def test_it_acts_in_learning_alone_unless_it_is_told_otherwise() -> None:
    term = CodeTarget()
    assert term.acts_in("learning")
    assert not term.acts_in("inference")
    assert CodeTarget(acts="both").acts_in("inference")
