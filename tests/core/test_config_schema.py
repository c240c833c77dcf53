"""The JSON Schemas, judged by an independent validator."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from groundstate.config import dump_toml, json_schema, load_config, registry_schema
from groundstate.registry import Registry

ROOT = Path(__file__).resolve().parents[2]

CONFIG: dict[str, Any] = {
    "data": {"type": "digits"},
    "model": {"decoder": {"type": "linear", "units": 16}},
    "energy": {"reconstruction": {"type": "squared-error"}, "sparsity": {"type": "l1", "weight": 0.1}},
    "inference": {"type": "fista"},
    "phases": {"first": {"epochs": 2}},
}


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    schema = json_schema(Registry.discover())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.toml")), ids=lambda path: path.stem)
def test_every_example_fits(example: Path, validator: jsonschema.Draft202012Validator) -> None:
    validator.validate(tomllib.loads(example.read_text(encoding="utf-8")))


def test_a_resolved_config_fits(validator: jsonschema.Draft202012Validator) -> None:
    loaded = load_config(CONFIG, {"tracking": False, "callbacks.progress": False, "model.encoder": False})
    validator.validate(tomllib.loads(dump_toml(loaded.config)))


@pytest.mark.parametrize(
    "child",
    [
        {},
        {"energy": {"sparsity": {"weight": 0.2}}},
        {"energy": {"sparsity": False}, "phases": {"first": False}, "tracking": False},
        {"energy": {"sparsity": {"type": "l2"}}, "phases": {"first": {"rate": 0.1}}},
        {"model": {"encoder": False}, "learning": {"clip": False}},
        {"tracking": {"type": "none"}},
    ],
    ids=str,
)
def test_a_file_that_extends_another_may_be_partial(
    child: dict[str, Any], validator: jsonschema.Draft202012Validator
) -> None:
    validator.validate({"extends": "groundstate:drsae", **child})


@pytest.mark.parametrize(
    "change",
    [
        {"sead": 1},
        {"seed": -1},
        {"data": {}},
        {"data": {"type": "digit"}},
        {"inference": {"type": "l1"}},
        {"inference": {"type": "fista", "tolerance": -1}},
        {"energy": {"sparsity": {"weight": 1}}},
        {"energy": {"sparsity": {"type": "l1", "wight": 1}}},
        {"energy": {"sparsity": {"type": "fista"}}},
        {"phases": {"first": {}}},
        {"phases": {"first": {"epochs": 0}}},
        {"learning": {"optimiser": "adm"}},
        {"model": {"decoder": {"type": "linear"}}},
        {"evaluation": {"reference": {"type": "l1"}}},
    ],
    ids=str,
)
def test_what_loading_refuses_does_not_fit(change: dict[str, Any], validator: jsonschema.Draft202012Validator) -> None:
    assert not validator.is_valid({**CONFIG, **change})


@pytest.mark.parametrize("table", ["data", "energy", "inference", "phases"])
def test_a_table_that_is_required_is_missed(table: str, validator: jsonschema.Draft202012Validator) -> None:
    assert not validator.is_valid({key: value for key, value in CONFIG.items() if key != table})


def test_plugins_are_told_apart_by_their_type(validator: jsonschema.Draft202012Validator) -> None:
    definitions = validator.schema["$defs"]
    registry = Registry.discover()
    for kind in ("encoder", "decoder", "solver", "backend", "data", "tracker", "callback"):
        union = definitions[kind]
        assert union["discriminator"]["propertyName"] == "type"
        assert set(union["discriminator"]["mapping"]) == {entry.name for entry in registry.entries(kind)}
        for name, reference in union["discriminator"]["mapping"].items():
            table = definitions[reference.removeprefix("#/$defs/")]
            assert table["properties"]["type"]["const"] == name
            assert table["description"] == registry.get(kind, name).summary


def test_descriptions_and_defaults_are_there(validator: jsonschema.Draft202012Validator) -> None:
    weight = validator.schema["$defs"]["regulariser.l1"]["properties"]["weight"]
    assert weight["default"] == 1.0
    assert weight["minimum"] == 0
    assert "multiplies the term" in weight["description"]


def test_local_plugins_are_in_it_and_broken_ones_are_not(tmp_path: Path) -> None:
    code = (
        "from typing import Literal\nfrom pydantic import BaseModel\nfrom groundstate import Regulariser\n\n"
        "class Inner(BaseModel):\n    width: int\n\n"
        "class Mine(Regulariser):\n    class Config(Regulariser.Config):\n        inner: Inner\n\n"
        "    def energy(self, z): ...\n"
    )
    (tmp_path / "mine.py").write_text(code, encoding="utf-8")
    registry = "".join(
        f'[regulariser.{name}]\npath = "{name}:Mine"\nsummary = "a test"\n' for name in ("mine", "missing")
    )
    (tmp_path / "registry.toml").write_text(registry, encoding="utf-8")
    schema = json_schema(Registry.discover(tmp_path))
    assert "regulariser.missing" not in schema["$defs"]
    validator = jsonschema.Draft202012Validator(schema)
    energy = {"term": {"type": "mine", "inner": {"width": 3}}}
    validator.validate({**CONFIG, "energy": energy})
    energy["term"]["inner"] = {"width": "three"}
    assert not validator.is_valid({**CONFIG, "energy": energy})


def test_the_registrys_schema() -> None:
    schema = registry_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(tomllib.loads((ROOT / "registry.toml").read_text(encoding="utf-8")))
    entry = {"path": "x:X", "summary": "a test"}
    validator.validate({"regulariser": {"x": {**entry, "default": True, "api": 1}}})
    for wrong in (
        {"regularizer": {"x": entry}},
        {"regulariser": {"x": {"path": "x:X"}}},
        {"regulariser": {"x": {**entry, "kind": "task"}}},
        {"system": {"x": entry}},
    ):
        assert not validator.is_valid(wrong)
