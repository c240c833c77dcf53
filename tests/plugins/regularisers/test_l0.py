"""‖z‖₀: value, prox."""

from __future__ import annotations

import numpy as np
import torch

from groundstate.structure import L0 as L0Form
from groundstate_plugins.regularisers.l0 import L0


def test_the_energy_is_the_number_of_active_units() -> None:
    z = torch.tensor([[0.0, 2.0, -1e-9, 0.0], [0.0, 0.0, 0.0, 0.0]])
    assert L0().energy(z).tolist() == [2, 0]
    assert L0().energy(z.view(2, 2, 1, 2)).tolist() == [2, 0]


def test_the_prox_keeps_what_pays() -> None:
    """argmin_u step·1[u ≠ 0] + ½(u − v)² is v where ½v² > step, else 0: the two candidates compared."""
    v = torch.linspace(-3, 3, 601, dtype=torch.float64)[None]
    found = L0().prox(v, 0.7)
    expected = np.where(0.5 * v.numpy() ** 2 > 0.7, v.numpy(), 0)
    np.testing.assert_array_equal(found.numpy(), expected)


def test_it_tells_its_form() -> None:
    assert L0().structure() == L0Form()
    assert L0().formula() == "‖z‖₀"
