"""K-SVD denoising (Elad & Aharon 2006), as a peer: the settings of the paper, SPAMS for the pursuit.

8×8 patches without their mean, 256 atoms from an overcomplete cosine dictionary, ten rounds on at most 40,000 patches
of the noisy image, orthogonal matching pursuit down to (1.15 σ)² a pixel, all overlapping patches averaged with the
noisy image at weight 30/σ.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse
import spams
from numpy.typing import NDArray

Floats = NDArray[np.float64]
SIZE, ATOMS, GAIN, ROUNDS, TRAINING = 8, 256, 1.15, 10, 40_000


def denoise(noisy: Floats, sigma: float, seed: int = 0) -> Floats:
    """noisy: (height, width), grey levels. sigma: of the noise, in grey levels."""
    rng = np.random.default_rng(seed)
    patches = np.lib.stride_tricks.sliding_window_view(noisy, (SIZE, SIZE)).reshape(-1, SIZE * SIZE)
    chosen = rng.permutation(len(patches))[:TRAINING]
    train = patches[chosen] - patches[chosen].mean(1, keepdims=True)
    d = _learned(np.asfortranarray(train.T), _cosines(), sigma, rng)
    rows, columns = (side - SIZE + 1 for side in noisy.shape)
    total, count = np.zeros_like(noisy), np.zeros_like(noisy)
    for row in range(rows):
        block = patches[row * columns : (row + 1) * columns]
        mean = block.mean(1, keepdims=True)
        clean = (d @ _codes(np.asfortranarray((block - mean).T), d, sigma)).T + mean
        tiles = clean.reshape(columns, SIZE, SIZE)
        for i in range(SIZE):
            for j in range(SIZE):
                total[row + i, j : j + columns] += tiles[:, i, j]
                count[row + i, j : j + columns] += 1
    weight = 30 / sigma
    return (weight * noisy + total) / (weight + count)


def _codes(x: Floats, d: Floats, sigma: float) -> Any:
    """(atoms, samples), sparse."""
    return spams.omp(x, d, eps=float(SIZE * SIZE * (GAIN * sigma) ** 2), L=SIZE * SIZE // 2, numThreads=1)


def _learned(x: Floats, d: Floats, sigma: float, rng: np.random.Generator) -> Floats:
    for _ in range(ROUNDS):
        codes = scipy.sparse.csr_matrix(_codes(x, d, sigma))
        z = codes.toarray()
        for atom in rng.permutation(ATOMS):
            used = np.flatnonzero(z[atom])
            if len(used) == 0:
                error = ((x - d @ z) ** 2).sum(0)
                new = x[:, int(error.argmax())]
                d[:, atom] = new / np.linalg.norm(new)
                continue
            part = z[:, used]
            part[atom] = 0
            residual = x[:, used] - d @ part
            d[:, atom] = np.linalg.eigh(residual @ residual.T)[1][:, -1]  # the largest left singular vector
            z[atom, used] = d[:, atom] @ residual
        d = np.asfortranarray(d)
    return d


def _cosines() -> Floats:
    count = round(ATOMS**0.5)
    line = np.cos(np.outer(np.arange(SIZE), np.arange(count)) * np.pi / count)
    line[:, 1:] -= line[:, 1:].mean(0)
    line /= np.linalg.norm(line, axis=0)
    return np.asfortranarray(np.kron(line, line))
