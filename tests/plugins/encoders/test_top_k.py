"""The top-k encoder: the largest entries of a matrix product."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from groundstate.components import Code, Context
from groundstate.errors import InputError
from groundstate.structure import LinearMap
from groundstate_plugins.encoders.top_k import GATHERED, TopK


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def built(dictionary: Tensor | None = None, code: tuple[int, ...] = (9,), **fields: Any) -> TopK:
    encoder = TopK(**fields)
    linear = None if dictionary is None else LinearMap(matrix=dictionary.float())
    encoder.build(Context((2, 3), code, torch.Generator().manual_seed(0), decoder=linear))
    encoder.double()
    encoder.bias.data.copy_(0.3 * normal(*encoder.bias.shape, seed=5))
    return encoder


def largest_by_sorting(before: Tensor, keep: int) -> Tensor:
    """Entry by entry, in plain Python."""
    code = torch.zeros_like(before)
    for row, values in enumerate(before.tolist()):
        for unit in sorted(range(len(values)), key=lambda i: -values[i])[:keep]:
            code[row, unit] = values[unit]
    return code


@pytest.mark.parametrize("rectify", [False, True])
@pytest.mark.parametrize("keep", [1, 4, 9, 50])
def test_the_formula_and_its_gradients(keep: int, rectify: bool) -> None:
    encoder, x = built(keep=keep, rectify=rectify), normal(7, 2, 3, seed=3)
    before = x.flatten(1) @ encoder.feedforward.T + encoder.bias
    kept = largest_by_sorting(before.detach(), keep)
    code = encoder(x)
    torch.testing.assert_close(code.pre_activation, before)
    torch.testing.assert_close(code.value, kept.clamp_min(0) if rectify else kept)

    def function(feedforward: Tensor, bias: Tensor) -> Tensor:
        named = {"feedforward": feedforward, "bias": bias}
        result: Tensor = torch.func.functional_call(encoder, named, x).value
        return result

    assert torch.autograd.gradcheck(function, (encoder.feedforward, encoder.bias))


@pytest.mark.parametrize("rectify", [False, True])
def test_the_gradient_by_a_gather(rectify: bool) -> None:
    """At one entry in 32: of the code, of the entries and of E x + b, against finite differences."""
    encoder, x = built(normal(6, 64), code=(64,), keep=2, rectify=rectify), normal(3, 6, seed=3).requires_grad_()
    assert GATHERED * 2 <= 64

    def function(x: Tensor, feedforward: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        code: Code = torch.func.functional_call(encoder, {"feedforward": feedforward, "bias": bias}, x)
        assert code.entries is not None
        assert code.pre_activation is not None
        return code.value, code.entries, code.pre_activation

    assert torch.autograd.gradcheck(function, (x, encoder.feedforward, encoder.bias))


def test_what_it_shares_is_all_that_a_decoder_needs() -> None:
    encoder, d = built(keep=4, rectify=True), normal(6, 9, seed=7)
    code = encoder(normal(5, 6, seed=1))
    by_atoms = functional.embedding_bag(code.kept, d.T.contiguous(), per_sample_weights=code.entries, mode="sum")
    torch.testing.assert_close(by_atoms, code.value @ d.T)
    some = code.mapped(lambda part: part[[3, 0]])
    assert torch.equal(some.kept, code.kept[[3, 0]])


def test_it_starts_from_the_dictionary_or_at_random() -> None:
    d = normal(6, 9)
    assert torch.equal(built(d, keep=2).feedforward, d.float().T.double())
    assert not torch.equal(built(keep=2).feedforward, d.float().T.double())


@pytest.mark.parametrize(
    ("code", "fields", "says"), [((9,), {"units": 5}, "5 units.*decoder 9"), ((4, 2, 2), {}, "flat codes")]
)
def test_a_code_that_does_not_fit_is_an_input_error(code: Any, fields: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        TopK(keep=2, **fields).build(Context((6,), code, torch.Generator()))


def test_pruning_keeps_rows() -> None:
    encoder = built(keep=9, units=9)
    x, kept = normal(3, 6), torch.tensor([3, 0])
    before = encoder(x).value
    encoder.select(kept)
    assert torch.equal(encoder(x).value, before[:, kept])
    assert encoder.code_shape((6,)) == (2,)
