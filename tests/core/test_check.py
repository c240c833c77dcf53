"""What ``check`` says of a config, and what it refuses before a run begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from groundstate.check import CheckReport, TermReport, check
from groundstate.config import load_config
from groundstate.errors import InputError, PluginError

BASE = """\
[data]
type = "digits"

[model.encoder]
type = "linear"

[model.decoder]
type = "linear"
units = 16

[energy.reconstruction]
type = "squared-error"

[energy.sparsity]
type = "l1"
weight = 0.1

[energy.classification]
type = "cross-entropy"
weight = 0.5

[inference]
type = "fista"

[phases.first]
epochs = 2
terms = ["reconstruction", "sparsity"]

[phases.second]
epochs = 3
weights.sparsity = 0.2
"""

LOCAL = """\
import torch

from groundstate import Data, DataInfo, Encoder, NonNegative, NormBound, Regulariser, Solver, State
from groundstate.errors import Fault, InputError


class Plain(Data):
    def load(self, seed): ...

    def describe(self):
        return DataInfo((5,), ("x", "mask"), {"train": 30})


class Ascending(Regulariser):
    class Config(Regulariser.Config):
        bound: str = "none"

    def build(self, context):
        bounds = {"none": None, "half": NonNegative(), "full": NormBound((0,))}
        self.declare("push", torch.ones(3), direction="ascend", constraint=bounds[self.config.bound])

    def energy(self, z):
        return z.flatten(1).sum(1)


class Masked(Regulariser):
    def energy(self, z, mask, weather): ...


class Labelled(Regulariser):
    def energy(self, z, y): ...


class Unfit(Regulariser):
    def build(self, context):
        raise InputError(Fault(f"the pools do not fit {context.units} units", "weight"))

    def energy(self, z): ...


class Falls(Regulariser):
    def energy(self, z):
        return z.flatten(1) @ torch.ones(3)


class Total(Regulariser):
    def energy(self, z):
        return z.sum()


class Wide(Encoder):
    def forward(self, x):
        return x.new_zeros(len(x), 99)


class Picky(Solver[State]):
    def init(self, problem, start): ...

    def step(self, problem, state): ...

    def refuses(self, problem):
        return "too many terms" if len(problem.weights) > 1 else None
"""

NAMES = {
    "data": ["plain"],
    "regulariser": ["ascending", "masked", "labelled", "unfit", "falls", "total"],
    "encoder": ["wide"],
    "solver": ["picky"],
}


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "local.py").write_text(LOCAL, encoding="utf-8")
    tables = [
        f'[{kind}.{name}]\npath = "local:{name.capitalize()}"\nsummary = "a test"\n'
        for kind, names in NAMES.items()
        for name in names
    ]
    (tmp_path / "registry.toml").write_text("\n".join(tables), encoding="utf-8")
    path = tmp_path / "base.toml"
    path.write_text(BASE, encoding="utf-8")
    return path


def line_of(part: str) -> int:
    return next(number for number, line in enumerate(BASE.splitlines(), 1) if part in line)


def refused(path: Path, *words: str) -> list[str]:
    with pytest.raises(InputError) as caught:
        check(load_config(path, words))
    return [str(fault) for fault in caught.value.faults]


# -- what it says -----------------------------------------------------------------------------------


def test_the_energy_parameters_and_phases(base: Path) -> None:
    report = check(load_config(base))
    assert report.formula.startswith("E = ½‖x − D z‖² + 0.1·‖z‖₁ + 0.5·(−log softmax(")
    acts = {term.name: term.acts for term in report.terms}
    assert acts == {"reconstruction": "both", "sparsity": "both", "classification": "learning"}
    weights = {term.name: dict(term.phases) for term in report.terms}
    assert weights["sparsity"] == {"first": 0.1, "second": 0.2}
    assert weights["classification"] == {"second": 0.5}
    dictionary = next(one for one in report.parameters if one.name == "decoder.dictionary")
    assert (dictionary.shape, dictionary.count, dictionary.direction) == ((64, 16), 1024, "descend")
    assert dictionary.constraint == "‖·‖ ≤ 1, each of 16"
    assert report.count == sum(one.count for one in report.parameters)
    # 1,079 training digits in batches of 100 are 11 steps an epoch
    assert [(phase.name, phase.epochs, phase.steps) for phase in report.phases] == [("first", 2, 22), ("second", 3, 33)]
    assert report.info.classes == 10
    assert not report.warnings


def test_the_parameters_are_those_of_the_run(base: Path) -> None:
    """Against the model that is built for training."""
    from groundstate.run import Run

    loaded = load_config(base)
    model = Run(loaded, base.parent / "never-written").model
    report = check(loaded)
    assert {one.name: one.shape for one in report.parameters} == {
        name: tuple(value.shape) for name, value in model.named_parameters()
    }
    assert not (base.parent / "never-written").exists()


def test_memory_counts_what_an_optimiser_keeps(base: Path) -> None:
    memory = check(load_config(base)).memory
    assert memory.gradients == memory.parameters
    assert memory.optimiser == 2 * memory.parameters
    assert check(load_config(base, ["learning.optimiser=sgd"])).memory.optimiser == 0
    double = check(load_config(base, ["backend.dtype=float64"])).memory
    assert double.total == 2 * memory.total


def test_activations_grow_with_the_batch(base: Path) -> None:
    one, two = (check(load_config(base, [f"learning.batch_size={size}"])).memory.activations for size in (50, 100))
    assert two == pytest.approx(2 * one, rel=0.01)
    # at the least: codes, inputs and what is decoded, of every sample
    assert two >= 100 * (16 + 64 + 64) * 4


def test_unrolling_keeps_every_iteration(base: Path) -> None:
    plain, unrolled = (
        check(load_config(base, ["inference.differentiate=" + path])).memory.activations for path in ("none", "unroll")
    )
    assert unrolled > 50 * plain


def term(formula: str, weight: float = 1.0) -> TermReport:
    return TermReport("a", "regulariser", "a", formula, weight, "both", {})


@pytest.mark.parametrize(
    ("terms", "formula"),
    [
        ([term("½‖x − D z‖²"), term("‖z‖₁", 0.1)], "E = ½‖x − D z‖² + 0.1·‖z‖₁"),
        ([term("‖z‖₁, z ≥ 0", 2), term("‖z‖², z ≥ 0")], "E = 2·‖z‖₁ + ‖z‖², z ≥ 0"),
        ([term("Σ z⁺ + 10·z⁻", 3)], "E = 3·(Σ z⁺ + 10·z⁻)"),
        ([term("−log p(y | z)", 0.5)], "E = 0.5·(−log p(y | z))"),
        ([term("Mine(x, decoded)", 1e-5)], "E = 1e-05·Mine(x, decoded)"),
        ([term("|z|ᵀS|z| + ‖z‖₁", 2)], "E = 2·(|z|ᵀS|z| + ‖z‖₁)"),
    ],
)
def test_formulas_are_sums_a_person_can_read(terms: list[TermReport], formula: str) -> None:
    parts: dict[str, Any] = dict.fromkeys(CheckReport.__dataclass_fields__)
    assert CheckReport(**{**parts, "terms": tuple(terms)}).formula == formula


def test_the_report_is_plain_values_too(base: Path) -> None:
    import json

    record = check(load_config(base)).record()
    assert json.loads(json.dumps(record))["phases"][1]["terms"]["sparsity"] == 0.2


def test_it_says_how_weights_descend_and_inhibition_ascends(base: Path) -> None:
    report = check(load_config(base, ["learning.descend_steps=3"]))
    assert (report.learner, report.learner_settings["descend_steps"]) == ("gradient", 3)
    assert "ascend_every" not in report.learner_settings
    learned = [
        "energy.sparsity.type=lateral-inhibition",
        "energy.sparsity.learn=true",
        "energy.sparsity.row_sum=5",
        "learning.ascend_every=2",
    ]
    assert check(load_config(base, learned)).learner_settings["ascend_every"] == 2


def test_it_names_the_kernel_that_finds_the_codes(base: Path) -> None:
    lasso = ["backend.type=cpu-native", "inference.type=auto"]
    assert check(load_config(base, lasso)).kernel == "native lasso"
    assert check(load_config(base, [lasso[0], "inference.type=fista"])).kernel is None  # its iterations are asked for
    assert check(load_config(base, [lasso[1]])).kernel is None


def test_a_backend_that_is_not_here_is_a_warning(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from groundstate.components import Availability
    from groundstate_plugins.backends.cuda import Cuda

    monkeypatch.setattr(Cuda, "available", classmethod(lambda cls: Availability(False, "no such thing here")))
    report = check(load_config(base, ["backend.type=cuda"]))
    assert "no such thing here" in report.warnings[0]


def test_nothing_is_read_and_nothing_is_written(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from groundstate_plugins.data.digits import Digits

    monkeypatch.setattr(Digits, "load", lambda self, seed: pytest.fail("data was read"))
    before = sorted(base.parent.iterdir())
    check(load_config(base))
    assert [path for path in sorted(base.parent.iterdir()) if path.name != "__pycache__"] == before


def test_the_global_generator_is_left_alone(base: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    check(load_config(base))
    assert torch.equal(torch.rand(3), expected)


# -- what it refuses --------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", ["none", "half"])
def test_ascent_without_a_bound(base: Path, bound: str) -> None:
    found = refused(base, f"energy.sparsity={{type='ascending', bound='{bound}'}}")
    assert found == [
        "command line energy.sparsity: its parameter 'push' ascends the energy without a bounded constraint "
        "and would diverge"
    ]


def test_ascent_with_a_bound(base: Path) -> None:
    report = check(load_config(base, ["energy.sparsity={type='ascending', bound='full'}"]))
    push = next(one for one in report.parameters if one.name == "terms.sparsity.push")
    assert push.direction == "ascend"
    # two tensors per descending parameter, none per ascending one: its optimiser is plain by default
    assert report.memory.optimiser == 2 * 4 * (report.count - 3)


def test_a_task_without_labels(base: Path) -> None:
    place = f"base.toml:{line_of('[energy.classification]')} energy.classification: "
    (fault,) = refused(base, "data.type=plain")
    assert fault.startswith(place)
    assert "labels" in fault
    # a term that does not look at the labels while it is built is found all the same
    (fault,) = refused(base, "data.type=plain", "energy.classification.type=labelled")
    assert fault.endswith("energy.classification: the term needs labels, and this data has none (it has: x, mask)")


def test_a_need_that_nothing_provides(base: Path) -> None:
    found = refused(base, "data.type=plain", "energy.classification=false", "energy.sparsity.type=masked")
    assert found == [
        "command line energy.sparsity: the term asks for 'weather', which nothing provides; "
        "there is: x, mask, z, code, prediction, decoded, decode, generator"
    ]


def test_what_a_term_refuses_to_build_on(base: Path) -> None:
    """The fault stands at the key that the term names, and those of other terms come with it."""
    found = refused(base, "energy.sparsity={type='unfit', weight=2}", "energy.more.type=unfit")
    assert found == [
        "command line energy.sparsity.weight: the pools do not fit 16 units",
        "command line energy.more.weight: the pools do not fit 16 units",
    ]


def test_a_solver_says_which_problems_it_refuses(base: Path) -> None:
    found = refused(base, "inference.type=picky", "evaluation.reference.type=picky")
    assert found == [
        "command line inference.type: too many terms",
        "command line evaluation.reference.type: too many terms",
    ]


def test_a_solver_that_starts_from_an_encoder_that_is_not_there(base: Path) -> None:
    (fault,) = refused(base, "model.encoder=false", "inference.type=amortised")
    assert fault.startswith("command line inference.start: solver 'amortised' starts from the encoder's code")
    assert fault.endswith("add [model.encoder]")


def test_an_encoder_of_another_size(base: Path) -> None:
    found = refused(base, "model.encoder.type=wide", "inference.type=amortised")
    assert found == ["command line model.encoder: the encoder gives codes of shape (99,), the decoder takes (16,)"]


def test_no_decoder_and_no_encoder_to_tell_the_codes_shape(base: Path) -> None:
    words = ["model={}", "model.encoder=false", "model.decoder=false", "energy.reconstruction=false"]
    (fault,) = refused(base, *words[1:], "energy.classification=false", "phases={first={terms=['sparsity']}}")
    assert "nothing tells the shape of a code" in fault


def test_a_phase_in_which_nothing_is_learned_or_inferred(base: Path) -> None:
    (fault,) = refused(base, "phases.first.terms=['classification']")
    line = line_of("[phases.first]")
    assert fault.startswith(f"base.toml:{line} phases.first: no term acts in inference here")
    (fault,) = refused(base, "phases.first.terms=['sparsity']", "energy.sparsity.acts=inference")
    assert fault.startswith(f"base.toml:{line} phases.first: no term acts in learning here")


def test_freezing_what_is_not_there(base: Path) -> None:
    (fault,) = refused(base, "phases.second.freeze=['decoder', 'dekoder']")
    assert fault.startswith("command line phases.second.freeze[1]: no parameter begins with 'dekoder'; there are: ")
    assert "terms.classification.weight" in fault


def test_a_monitor_needs_a_validation_split(base: Path) -> None:
    words = ["data.type=plain", "energy.classification=false", "learning.monitor=validation/energy"]
    assert refused(base, *words) == [
        "command line learning.monitor: this data has no validation split; hold some samples out"
    ]
    (fault,) = refused(base, "learning.monitor=test/energy")
    assert "only a metric of the validation split can choose the best epoch" in fault


def test_data_that_is_refused_is_located(base: Path) -> None:
    (fault,) = refused(base, "data.test=2")
    assert fault.startswith("command line data.validation, data.test: ")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("falls", r"energy\.sparsity: regulariser 'falls' of registry\.toml failed .*\(local\.py:43\): RuntimeError"),
        ("total", r"energy\.sparsity \(Total\) returned shape \(\); an energy is one value per sample, \(2,\)"),
    ],
)
def test_a_term_that_fails_is_named_before_the_run(base: Path, name: str, words: str) -> None:
    with pytest.raises(PluginError, match=words):
        check(load_config(base, [f"energy.sparsity.type={name}"]))
