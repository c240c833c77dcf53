"""What a logged model takes along, by how its distributions were installed."""

from __future__ import annotations

import tomllib
from importlib.metadata import PathDistribution, entry_points, version
from pathlib import Path

import pytest

from groundstate_plugins.trackers import mlflow_carried
from groundstate_plugins.trackers.mlflow_carried import carry_code, carry_model, requirements


@pytest.mark.parametrize("indexed", [True, False])
def test_a_version_or_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, indexed: bool) -> None:
    monkeypatch.setattr(mlflow_carried, "from_index", lambda name: indexed)
    pinned = requirements(())
    carried = carry_code((), tmp_path / "code")
    if indexed:
        assert pinned == [f"groundstate=={version('groundstate')}"]
        assert carried == []
        return
    assert not [line for line in pinned if line.startswith("groundstate")]
    assert {"torch", "pydantic", "mlflow", "safetensors"} <= {line.partition("==")[0] for line in pinned}
    assert (tmp_path / "code" / "groundstate" / "model.py").is_file()
    registry = tomllib.loads((tmp_path / "code" / "groundstate_plugins" / "registry.toml").read_text("utf-8"))
    assert "l1" in registry["regulariser"]
    (metadata,) = (tmp_path / "code").glob("groundstate-*.dist-info")
    found = PathDistribution(metadata)
    assert {point.value for point in found.entry_points} >= {"groundstate_plugins"}
    assert {point.value for point in entry_points(group="groundstate")} >= {"groundstate_plugins"}


def test_local_plugins_go_along_with_both_configs(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("")
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "inner.py").write_text("")
    registry = tmp_path / "registry.toml"
    registry.write_text('[regulariser.one]\npath = "one:One"\n[callback.two]\npath = "two.inner:Two"\n')
    model = tmp_path / "model"
    model.mkdir()
    for config in (model / "config.toml", tmp_path / "config.toml"):
        config.write_text(f'plugins = ["{registry}"]\n')
    places = carry_model(model, tmp_path / "config.toml", tmp_path / "carried")
    carried = tmp_path / "carried" / "model" / "plugins" / "0"
    assert sorted(file.name for file in carried.rglob("*.*")) == ["inner.py", "one.py", "registry.toml"]
    for name in (f"{places['model']}/config.toml", places["config"]):
        (listed,) = tomllib.loads(Path(name).read_text("utf-8"))["plugins"]
        assert (Path(name).parent / listed).samefile(carried / "registry.toml")
