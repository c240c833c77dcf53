"""The weighted sum of terms: who acts when, what each may ask for, and how a solver splits them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from groundstate.components import Code, Context, Decoder, Regulariser, Task, Term
from groundstate.data import Batch
from groundstate.energy import Energy, Point
from groundstate.errors import InputError, PluginError
from groundstate.structure import Structure


class Square(Regulariser):
    def energy(self, z: Tensor) -> Tensor:
        return z.square().sum(1)


class Label(Task):
    def energy(self, z: Tensor, y: Tensor) -> Tensor:
        return (z.sum(1) - y).square()


class Misfit(Regulariser):
    def energy(self, x: Tensor, decoded: Tensor) -> Tensor:
        return (x - decoded).square().sum(1)


class Counting(Decoder):
    """z ↦ (z, z); counts its calls."""

    calls = 0

    def code_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (input_shape[0] // 2,)

    def forward(self, z: Tensor) -> Tensor:
        self.calls += 1
        return torch.cat([z, z], 1)


class Shrink(Regulariser):
    """A term with a prox that composes only after the structures it is told of."""

    def __init__(self, after: tuple[type, ...] = (), form: Structure | None = None, **fields: Any) -> None:
        super().__init__(**fields)
        self.after, self.form = after, form

    def energy(self, z: Tensor) -> Tensor:
        return z.abs().sum(1)

    def prox(self, v: Tensor, step: float) -> Tensor:
        return v / (1 + step)

    def prox_after(self, earlier: Any) -> bool:
        return all(isinstance(form, self.after) for form in earlier)

    def structure(self) -> Structure | None:
        return self.form


def point(decoder: Decoder | None = None, **fields: Tensor) -> Point:
    z = torch.tensor([[1.0, 2.0], [0.0, -1.0], [3.0, 0.5]])
    return Point(Batch({"x": torch.ones(3, 4), **fields}), Code(z), decoder)


def energy(terms: Mapping[str, Term], decoder: Decoder | None = None) -> Energy:
    return Energy(terms, decoder)


def test_a_task_acts_in_learning_only_and_the_rest_in_both() -> None:
    terms = energy({"fit": Square(weight=2), "label": Label(weight=3)})
    assert terms.weights("inference") == {"fit": 2}
    assert terms.weights("learning") == {"fit": 2, "label": 3}


@pytest.mark.parametrize(
    ("acts", "inference", "learning"),
    [("inference", True, False), ("learning", False, True), ("both", True, True)],
)
def test_acts_moves_a_term_between_the_stages(acts: str, inference: bool, learning: bool) -> None:
    terms = energy({"label": Label(acts=acts)})
    assert ("label" in terms.weights("inference")) is inference
    assert ("label" in terms.weights("learning")) is learning


def test_a_phase_chooses_terms_and_changes_weights() -> None:
    terms = energy({"fit": Square(weight=2), "other": Square(weight=5)})
    assert terms.weights("learning", only=["other"]) == {"other": 5}
    assert terms.weights("learning", changed={"fit": 0.5}) == {"fit": 0.5, "other": 5}


def test_the_total_is_the_weighted_sum_per_sample() -> None:
    terms = energy({"fit": Square(weight=2), "label": Label(weight=3)})
    at = point(y=torch.tensor([1, 0, 2]))
    values = terms.values(at, terms.weights("learning"))
    torch.testing.assert_close(values["fit"], 2 * torch.tensor([5.0, 1.0, 9.25]))
    torch.testing.assert_close(values["label"], 3 * torch.tensor([4.0, 1.0, 2.25]))
    torch.testing.assert_close(terms.total(at, terms.weights("learning")), values["fit"] + values["label"])


def test_no_acting_term_gives_zero_energy() -> None:
    assert energy({"label": Label()}).total(point(), {}).tolist() == [0, 0, 0]


def test_the_code_is_decoded_once_for_all_terms() -> None:
    decoder = Counting()
    terms = energy({"one": Misfit(), "two": Misfit()}, decoder)
    terms.total(point(decoder), {"one": 1.0, "two": 1.0})
    assert decoder.calls == 1


@pytest.mark.parametrize(
    ("name", "says"),
    [("mask", "'mask'.*nothing provides.*x.*decoded"), ("prediction", "no encoder"), ("decoded", "no decoder")],
)
def test_a_name_that_nothing_provides_is_an_input_error(name: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        point().provide(name)


def test_a_field_of_the_batch_is_provided_by_its_name() -> None:
    mask = torch.tensor([1.0, 0.0, 1.0])
    assert point(mask=mask).provide("mask") is mask
    assert point().provide("generator") is None


def test_an_energy_that_is_not_one_value_per_sample_names_the_term() -> None:
    class Total(Regulariser):
        def energy(self, z: Tensor) -> Tensor:
            return z.square().sum()

    with pytest.raises(PluginError, match=r"energy\.whole.*Total.*one value per sample, \(3,\)"):
        energy({"whole": Total()}).total(point(), {"whole": 1.0})


class FormA(Structure):
    pass


class FormB(Structure):
    pass


def test_a_term_with_a_prox_is_split_from_the_smooth_part() -> None:
    split = energy({"fit": Square(), "sparse": Shrink()}).split(("fit", "sparse"))
    assert (split.smooth, split.proxed, split.composed) == (("fit",), ("sparse",), True)


def test_proxes_are_put_in_the_order_that_is_exact() -> None:
    """b may follow a but not the other way round, in whatever order the config names them."""
    terms = {"b": Shrink(after=(FormA,), form=FormB()), "a": Shrink(form=FormA())}
    split = energy(terms).split(("b", "a"))
    assert (split.proxed, split.composed) == (("a", "b"), True)


def test_proxes_that_do_not_compose_are_left_to_dykstra() -> None:
    split = energy({"a": Shrink(form=FormA()), "b": Shrink(form=FormB())}).split(("a", "b"))
    assert not split.composed


def test_needs_are_read_off_the_methods_parameters() -> None:
    from groundstate.components import needs

    assert needs(Label().energy) == ("z", "y")
    assert needs(Square.energy) == ("z",)


def test_context_counts_entries() -> None:
    context = Context((3, 4), (5, 2, 2), torch.Generator())
    assert (context.inputs, context.units) == (12, 20)
    with pytest.raises(InputError, match="flat codes"):
        context.flat_units()
