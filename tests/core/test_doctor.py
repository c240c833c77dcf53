"""``doctor`` tells right numbers from wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sklearn.linear_model import Lasso

from groundstate import doctor
from groundstate.doctor import _lasso, diagnose
from groundstate.registry import Registry

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
