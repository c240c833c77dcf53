"""Random sparse codes: their statistics, the noise, and the dictionary that a decoder can draw as well."""

from __future__ import annotations

import pytest
import torch

from groundstate.components import Context
from groundstate_plugins.data.gaussian_sparse import GaussianSparse
from groundstate_plugins.decoders.linear import LinearDecoder

SMALL = {"inputs": 30, "units": 60, "train": 4000, "validation": 50, "test": 50}


def test_the_codes_and_the_noise_are_as_said() -> None:
    data = GaussianSparse(**SMALL, density=0.2, snr=20.0)
    splits = data.load(0)
    batch = splits.train.read(torch.arange(4000))
    target = batch.fields["target"]
    assert float((target != 0).double().mean()) == pytest.approx(0.2, abs=0.005)
    assert float(target[target != 0].std()) == pytest.approx(1, abs=0.01)
    clean = target @ data.dictionary().T
    ratio = clean.square().sum(1) / (batch.x - clean).square().sum(1)
    assert float(10 * ratio.log10().mean()) == pytest.approx(20, abs=0.2)
    torch.testing.assert_close(data.dictionary().norm(dim=0), torch.ones(60))


def test_the_linear_decoder_draws_the_same_dictionary_from_the_same_seed() -> None:
    decoder = LinearDecoder(units=60, seed=7)
    decoder.build(Context((30,), (60,), torch.Generator().manual_seed(123)))
    data = GaussianSparse(**SMALL, dictionary_seed=7)
    torch.testing.assert_close(decoder.dictionary.detach(), data.dictionary())


def test_what_is_described_is_what_is_loaded() -> None:
    data = GaussianSparse(**SMALL)
    info, splits = data.describe(), data.load(0)
    assert splits.train.names == info.fields
    assert {name: len(source) for name, source in splits.parts().items()} == info.samples
    assert splits.train.input_shape == info.input_shape


def test_more_training_samples_move_no_held_out_one_and_seeds_decide() -> None:
    one, more = GaussianSparse(**SMALL).load(0), GaussianSparse(**{**SMALL, "train": 5000}).load(1)
    assert one.test is not None
    assert more.test is not None
    rows = torch.arange(50)
    assert torch.equal(one.test.read(rows).x, more.test.read(rows).x)
    other = GaussianSparse(**SMALL, sample_seed=1).load(0)
    assert other.fingerprint != one.fingerprint
    assert GaussianSparse(**SMALL).load(5).fingerprint == one.fingerprint
