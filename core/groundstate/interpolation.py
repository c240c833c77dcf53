"""Missing pixels from known ones, without learning."""

from __future__ import annotations

import numpy as np
import scipy.sparse
import torch
from scipy.sparse.linalg import spsolve
from torch import Tensor


def smooth_fill(image: Tensor, known: Tensor) -> Tensor:
    """The image with missing pixels on the biharmonic surface through the known ones: Δ²u = 0 where a pixel is missing.

    image: (height, width), any value where it is missing. known: bool, of the same shape, some of it true. Returns
    float64. The gradient across the border is 0. Damelin & Hoang 2018.
    """
    height, width = image.shape
    laplacian = scipy.sparse.kronsum(_second_difference(width), _second_difference(height), format="csr")
    missing = ~known.flatten().numpy()
    values = np.where(missing, 0.0, image.double().flatten().numpy())
    equations = (laplacian @ laplacian)[missing]
    values[missing] = spsolve(equations[:, missing].tocsc(), -(equations @ values))
    return torch.from_numpy(values).view(height, width)


def _second_difference(length: int) -> scipy.sparse.spmatrix:
    """u ↦ u_{i−1} − 2u_i + u_{i+1}, where a neighbour over the end is the end itself."""
    middle = np.full(length, -2.0)
    middle[[0, -1]] += 1.0
    return scipy.sparse.diags([np.ones(length - 1), middle, np.ones(length - 1)], [-1, 0, 1])
