"""What a decoder's matrix tells of its units."""

from __future__ import annotations

import math

import torch

from groundstate.structure import LinearMap


def test_the_angle_between_a_units_row_and_its_column() -> None:
    columns = torch.tensor([[1.0, 0.0, 1.0, 2.0], [0.0, 1.0, 0.0, 0.0]])
    rows = torch.tensor([[3.0, 0.0], [1.0, 1.0], [-1.0, 0.0], [0.0, 5.0]])
    found = LinearMap(matrix=columns).angles(rows)
    expected = torch.tensor([0.0, math.pi / 4, math.pi, math.pi / 2], dtype=torch.float64)
    torch.testing.assert_close(found, expected, atol=1e-7, rtol=0)
