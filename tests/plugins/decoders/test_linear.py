"""The linear decoder: D z, its start, its constraint and its structure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from groundstate.components import Code, Context
from groundstate.errors import InputError
from groundstate.parameters import NormBound
from groundstate_plugins.decoders.linear import LinearDecoder


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def built(shape: tuple[int, ...] = (9,), sample: Tensor | None = None, seed: int = 0, **fields: Any) -> LinearDecoder:
    decoder = LinearDecoder(**{"units": 5} | fields)
    decoder.build(Context(shape, decoder.code_shape(shape), torch.Generator().manual_seed(seed), sample=sample))
    return decoder


@pytest.mark.parametrize("shape", [(9,), (3, 3), (1, 3, 3)])
def test_it_is_one_matrix_for_inputs_of_any_shape(shape: tuple[int, ...]) -> None:
    decoder, z = built(shape), normal(4, 5)
    assert decoder.code_shape(shape) == (5,)
    assert decoder.dictionary.shape == (9, 5)
    decoded = decoder(z)
    assert decoded.shape == (4, *shape)
    torch.testing.assert_close(decoded.flatten(1), z @ decoder.dictionary.T)
    assert decoder.structure().matrix is decoder.dictionary


def test_the_gradient_against_finite_differences() -> None:
    decoder = built().double()
    assert torch.autograd.gradcheck(decoder, normal(3, 5).double().requires_grad_())


@pytest.mark.parametrize("keep", [2, 3])
def test_a_code_that_tells_its_entries_is_decoded_as_by_the_product(keep: int) -> None:
    """One entry in 32 is gathered, one in 21 is not."""
    decoder = built((3, 3), units=64).double()
    kept = normal(4, 64).topk(keep).indices
    entries = normal(4, keep, seed=1).double().requires_grad_()
    value = torch.zeros(4, 64).double().scatter(1, kept, entries)

    upstream = normal(4, 3, 3, seed=2).double()
    by_product, gathered = decoder(value), decoder.decode(Code(value, kept=kept, entries=entries))
    torch.testing.assert_close(gathered, by_product)
    wanted = torch.autograd.grad(by_product, (decoder.dictionary, entries), upstream, retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(gathered, (decoder.dictionary, entries), upstream), wanted)
    # what a solver made of the code has other entries
    elsewhere = normal(4, 64, seed=3).double()
    moved = Code(value, pre_activation=value, kept=kept, entries=entries).at(elsewhere)
    assert moved.pre_activation is value
    torch.testing.assert_close(decoder.decode(moved), decoder(elsewhere))


@pytest.mark.parametrize("constraint", ["ball", "sphere", "none"])
def test_columns_start_with_unit_norm_and_keep_their_constraint(constraint: str) -> None:
    decoder = built(constraint=constraint)
    torch.testing.assert_close(decoder.dictionary.norm(dim=0), torch.ones(5))
    spec = decoder.specs["dictionary"]
    if constraint == "none":
        assert spec.constraint is None
        return
    assert isinstance(spec.constraint, NormBound)
    value = torch.stack([2 * torch.ones(9), 0.1 * torch.ones(9)], 1)
    spec.constraint.project_(value)
    expected = [1.0, 1.0 if constraint == "sphere" else 0.3]
    torch.testing.assert_close(value.norm(dim=0), torch.tensor(expected))


def test_the_start_depends_on_the_seed_alone() -> None:
    assert torch.equal(built(seed=1).dictionary, built(seed=1).dictionary)
    assert not torch.equal(built(seed=1).dictionary, built(seed=2).dictionary)


def nearest(decoder: LinearDecoder, sample: Tensor) -> Tensor:
    """For each column the number of the sample it is most like, and the cosine."""
    flat = sample.flatten(1)
    cosine = (flat / flat.norm(dim=1, keepdim=True)) @ decoder.dictionary.detach()
    return torch.stack([cosine.argmax(0).float(), cosine.amax(0)])


def test_a_start_from_data_takes_distinct_samples_with_the_noise_asked_for() -> None:
    """Noise of relative norm ν, nearly orthogonal to a long sample, leaves a cosine of about 1/√(1 + ν²)."""
    sample = normal(20, 30, 30)
    decoder = built((30, 30), sample, initialise="data", noise=0.5)
    which, cosine = nearest(decoder, sample)
    assert which.unique().numel() == 5
    torch.testing.assert_close(cosine, torch.full((5,), 1 / 1.25**0.5), rtol=0.05, atol=0)
    torch.testing.assert_close(nearest(built((30, 30), sample, initialise="data", noise=0), sample)[1], torch.ones(5))


def test_blank_samples_are_passed_over_and_few_are_used_again() -> None:
    sample = torch.cat([torch.zeros(10, 9), normal(3, 9)])
    which, cosine = nearest(built(sample=sample, initialise="data", noise=0.01), sample[10:])
    assert bool((cosine > 0.99).all())
    assert sorted(which.long().bincount(minlength=3).tolist()) == [1, 2, 2]


@pytest.mark.parametrize("sample", [None, torch.zeros(4, 9), torch.zeros(0, 9)])
def test_without_a_usable_sample_the_start_is_random(sample: Tensor | None) -> None:
    assert torch.equal(built(sample=sample, initialise="data").dictionary, built().dictionary)


def test_pruning_keeps_columns_and_counts_them() -> None:
    decoder = built()
    before, kept = decoder.dictionary.detach().clone(), torch.tensor([4, 1])
    decoder.select(kept)
    assert torch.equal(decoder.dictionary, before[:, kept])
    assert decoder.config.units == 2
    assert decoder.code_shape((9,)) == (2,)
    assert decoder(normal(3, 2)).shape == (3, 9)


@pytest.mark.parametrize("wrong", [{"units": 0}, {"constraint": "cube"}, {"noise": -1}, {"unit": 3}])
def test_bad_fields_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        LinearDecoder(**{"units": 5} | wrong)


def test_a_seed_of_its_own_draws_the_same_columns_in_every_run() -> None:
    columns = []
    for run_seed in (0, 1):
        decoder = LinearDecoder(units=4, seed=5)
        decoder.build(Context((3,), (4,), torch.Generator().manual_seed(run_seed)))
        columns.append(decoder.dictionary)
    assert torch.equal(*columns)


def test_the_first_columns_come_from_a_file_that_a_saved_model_does_not_need(tmp_path: Path) -> None:
    matrix = np.random.default_rng(0).standard_normal((3, 4))
    np.save(tmp_path / "d.npy", matrix)
    decoder = LinearDecoder(units=4, dictionary=tmp_path / "d.npy")
    decoder.build(Context((3,), (4,), torch.Generator()))
    np.testing.assert_allclose(decoder.dictionary.detach(), matrix / np.linalg.norm(matrix, axis=0), rtol=1e-6)
    assert decoder.config.dictionary is None


@pytest.mark.parametrize("content", [np.ones((4, 3)), np.full((3, 4), np.nan), None])
def test_a_file_that_holds_no_such_dictionary_is_refused(tmp_path: Path, content: np.ndarray | None) -> None:
    path = tmp_path / "d.npy"
    if content is not None:
        np.save(path, content)
    with pytest.raises(InputError, match=r"d\.npy"):
        LinearDecoder(units=4, dictionary=path).build(Context((3,), (4,), torch.Generator()))


def test_cosines_are_an_orthonormal_basis_where_there_are_as_many_as_pixels() -> None:
    """Of as many units as pixels: the discrete cosine transform, as scipy has it."""
    import scipy.fft

    decoder = LinearDecoder(units=16, initialise="cosine")
    decoder.build(Context((16,), (16,), torch.Generator().manual_seed(0)))
    line = scipy.fft.idct(np.eye(4), norm="ortho", axis=0)
    product = np.abs(np.kron(line, line).T @ decoder.dictionary.detach().double().numpy())
    np.testing.assert_allclose(np.sort(product, 0)[-1], 1, atol=1e-6)
    np.testing.assert_allclose(product.sum(0), 1, atol=1e-5)


def test_cosines_need_square_patches() -> None:
    with pytest.raises(InputError, match="square patches, and 12 values are none"):
        LinearDecoder(units=20, initialise="cosine").build(Context((12,), (20,), torch.Generator()))
