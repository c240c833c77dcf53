"""The config of a saved model: written from its components, read back into the same model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from groundstate.components import Availability, Regulariser
from groundstate.config import assemble, load_config, load_model_tables, model_tables
from groundstate.errors import InputError
from groundstate.model import Model
from groundstate.stack import Layer

CONFIG: dict[str, Any] = {
    "data": {"type": "digits"},
    "model": {"decoder": {"type": "linear", "units": 6}, "encoder": {"type": "linear"}},
    "energy": {"reconstruction": {"type": "squared-error"}, "sparsity": {"type": "l1", "weight": 0.1}},
    "inference": {"type": "fista", "max_iterations": 30},
    "phases": {"first": {"epochs": 1}},
}

HOYER = """\
from groundstate import Regulariser


class Hoyer(Regulariser):
    class Config(Regulariser.Config):
        power: int = 2

    def energy(self, z):
        return z.flatten(1).abs().sum(1) ** self.config.power
"""


def build(config: dict[str, Any] | Path, **overrides: Any) -> Model:
    loaded = load_config(config, overrides)
    parts = assemble(loaded)
    return Layer.of(parts.layers[0], parts.backend).model.build((5,), seed=1)


def test_a_saved_model_gives_the_same_codes(tmp_path: Path) -> None:
    model = build(CONFIG)
    model.save(tmp_path)
    again = Model.load(tmp_path)
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.encode(x), again.encode(x))
    assert torch.equal(model.encode(x, sparse=True).to_dense(), model.encode(x).flatten(1))
    assert again.solver.config == model.solver.config
    assert model_tables(again) == model_tables(model)


def test_a_pruned_model_says_its_new_size(tmp_path: Path) -> None:
    model = build(CONFIG)
    model.select(torch.tensor([0, 2, 3]))
    model.save(tmp_path)
    assert "units = 3" in (tmp_path / "config.toml").read_text(encoding="utf-8")
    assert Model.load(tmp_path).shapes.code_shape == (3,)


def test_a_model_with_a_local_plugin_loads_from_elsewhere(tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (here / "hoyer.py").write_text(HOYER, encoding="utf-8")
    registry = here / "registry.toml"
    registry.write_text('[regulariser.hoyer]\npath = "hoyer:Hoyer"\nsummary = "a test"\n', encoding="utf-8")
    config = here / "config.toml"
    config.write_text(
        'extends = "groundstate:drsae"\nmodel.encoder = false\nenergy.classification = false\n'
        'energy.sparsity = { type = "hoyer", power = 3 }\ninference.type = "fista"\n',
        encoding="utf-8",
    )
    model = build(config)
    model.save(tmp_path / "model")
    assert str(registry) in (tmp_path / "model" / "config.toml").read_text(encoding="utf-8")
    again = Model.load(tmp_path / "model")
    assert type(again.energy.terms["sparsity"]) is type(model.energy.terms["sparsity"])
    assert again.energy.terms["sparsity"].config.power == 3


def test_a_class_that_no_registry_names_is_refused() -> None:
    class Unnamed(Regulariser):
        def energy(self, z: torch.Tensor) -> torch.Tensor:
            return z.flatten(1).sum(1)

    parts = assemble(load_config(CONFIG)).layers[0]
    model = Model(decoder=parts.decoder, terms={"unnamed": Unnamed()}, solver=parts.solver)
    with pytest.raises(InputError, match=r"Unnamed is in no registry\.toml"):
        model_tables(model)


def test_a_backend_that_is_not_here_gives_way_to_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from groundstate_plugins.backends.cuda import Cuda

    monkeypatch.setattr(Cuda, "available", classmethod(lambda cls: Availability(False, "a test")))
    model = build(CONFIG, **{"backend.dtype": "float64"})
    file = tmp_path / "config.toml"
    file.write_text(model_tables(model).replace('type = "cpu"', 'type = "cuda"'), encoding="utf-8")
    backend = load_model_tables(file)[1]
    assert backend is not None
    assert type(backend).__name__ == "Cpu"
    assert backend.dtype == torch.float64
