"""``doctor`` tells right numbers from wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sklearn.linear_model import Lasso
from torch import Tensor

from groundstate import doctor
from groundstate.components import Solver
from groundstate.doctor import _lasso, diagnose
from groundstate.inference import Solved, solve
from groundstate.problem import Problem
from groundstate.registry import Registry
from groundstate.structure import L1, ProblemStructure
from groundstate.testing.reference import problem_of
from groundstate_plugins.backends.cpu import Cpu
from groundstate_plugins.solvers.auto import Auto

BACKENDS = """\
from groundstate import Availability, Backend


class Absent(Backend):
    @classmethod
    def available(cls):
        return Availability(False, "nobody home")

    @property
    def device(self): ...


class Faulty(Backend):
    @classmethod
    def available(cls):
        return Availability(True, "or so it says")

    @property
    def device(self):
        raise RuntimeError("no device")
"""


@pytest.fixture(autouse=True)
def _no_compilation(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernels give is the conformance kit's to say; compiling them all takes a minute."""
    monkeypatch.setattr(doctor, "kernel_problems", lambda backend: {})


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    (tmp_path / "mine.py").write_text(BACKENDS, encoding="utf-8")
    text = "".join(
        f'[backend.{name.lower()}]\npath = "mine:{name}"\nsummary = "a test"\n'
        for name in ("Absent", "Faulty", "Missing")
    )
    (tmp_path / "registry.toml").write_text(text, encoding="utf-8")
    return Registry.discover(tmp_path)


def test_every_backend_is_told_with_its_reason(registry: Registry) -> None:
    found = {one.name: one for one in diagnose(registry).backends}
    assert found["cpu"].available
    assert found["cpu"].right
    assert found["cpu"].error < 1e-4
    assert not found["absent"].available
    assert found["absent"].reason == "nobody home"
    assert "defines no 'Missing'" in found["missing"].reason
    assert "failed: RuntimeError: no device" in found["faulty"].reason
    assert not found["faulty"].right


def test_wrong_numbers_are_ill_health(monkeypatch: pytest.MonkeyPatch) -> None:
    assert diagnose(Registry.discover()).healthy
    monkeypatch.setattr(doctor, "numerical_error", lambda backend: 1e-3)
    diagnosis = diagnose(Registry.discover())
    assert not diagnosis.healthy
    assert any("NUMBERS WRONG: 1.0e-03 from float64" in line for line in diagnosis.lines())


def test_the_problem_is_solved_rightly() -> None:
    """Against scikit-learn's coordinate descent on the same lasso."""
    generator = torch.Generator().manual_seed(1)
    dictionary = torch.randn(40, 60, generator=generator, dtype=torch.float64)
    dictionary /= dictionary.norm(dim=0)
    x = torch.randn(3, 40, generator=generator, dtype=torch.float64)
    found = _lasso(x, dictionary, weight=0.3, steps=5000)
    # scikit-learn divides the data term by the number of rows
    lasso = Lasso(alpha=0.3 / 40, fit_intercept=False, tol=1e-12, max_iter=100_000)
    expected = torch.stack([torch.from_numpy(lasso.fit(dictionary, row).coef_) for row in x])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def test_each_kernel_is_named_with_what_it_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    class Kernel:
        def __init__(self, name: str, factor: float) -> None:
            self.name, self.factor = name, factor

        def __call__(self, problem: Problem, start: Tensor, config: Solver.Config) -> Solved:
            if not self.factor:
                raise ZeroDivisionError("no way")
            found = solve(problem, Auto(tolerance=config.tolerance, max_iterations=20_000), start)
            return Solved(self.factor * found.code, found.iterations)

    class Several(Cpu):
        kernels = iter((Kernel("exact", 1.0), Kernel("wrong", 1.1), Kernel("broken", 0.0)))

        def kernel(self, structure: ProblemStructure) -> Kernel:
            return next(self.kernels)

    problem = problem_of({"p": L1()})
    monkeypatch.setattr(doctor, "kernel_problems", lambda backend: dict.fromkeys(("a", "b", "c"), problem))
    exact, wrong, broken = doctor.examined_kernels(Several(dtype="float64"))
    assert exact.right
    assert (exact.name, exact.problem) == ("exact", "a")
    assert not wrong.right
    assert wrong.failed is not None
    assert "not 1e-08" in wrong.failed
    assert broken.failed == "ZeroDivisionError: no way"
    health = doctor.BackendHealth("several", True, "here", 0.0, right=False, kernels=(exact, wrong, broken))
    lines = list(doctor.Diagnosis({}, {}, (health,), ()).lines())
    assert lines[1].startswith("  kernel exact, a: works, relative gap ")
    assert lines[3] == "  kernel broken, c: FAILS: ZeroDivisionError: no way"
