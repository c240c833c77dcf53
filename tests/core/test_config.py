"""Configs: what loads, what is inherited and overridden, and every fault at its file and line."""

from __future__ import annotations

import itertools
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundstate.config import RunConfig, config_hash, dump_toml, load_config
from groundstate.config.layers import read_overrides
from groundstate.errors import InputError

BASE = """\
seed = 3

[data]
type = "digits"

[model.decoder]
type = "linear"
units = 16

[energy.reconstruction]
type = "squared-error"

[energy.sparsity]
type = "l1"
weight = 0.1

[inference]
type = "fista"
max_iterations = 50

[phases.first]
epochs = 2
terms = ["reconstruction", "sparsity"]
"""

LOCAL = """\
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator
from torch import Tensor

from groundstate import ConfigPath, Data, DataInfo, Regulariser, Splits


class Files(Data):
    class Config(Data.Config):
        path: ConfigPath = Field(description="the file")
        others: list[ConfigPath] = []
        named: dict[str, ConfigPath] = {}
        groups: Literal["rows"] | ConfigPath | None = "rows"
        word: str = "word"
        limit: float | None = Field(2.0, description="at most this")
        flag: bool | None = None

    def load(self, seed: int) -> Splits: ...

    def describe(self) -> DataInfo: ...


class Pair(Regulariser):
    class Config(Regulariser.Config):
        low: float = 0
        high: float = 1

        @model_validator(mode="after")
        def ordered(self):
            if self.low > self.high:
                raise ValueError("low is above high")
            return self

    def energy(self, z: Tensor) -> Tensor: ...


class Predicted(Regulariser):
    def energy(self, z: Tensor, prediction: Tensor) -> Tensor: ...


class Refusing(Regulariser):
    def __init__(self, **fields) -> None:
        super().__init__(**fields)
        from groundstate.errors import Fault, InputError

        raise InputError(Fault("no luck", "weight"))

    def energy(self, z: Tensor) -> Tensor: ...
"""

LOCAL_REGISTRY = """\
[data.files]
path = "local:Files"
summary = "a test"

[regulariser.pair]
path = "local:Pair"
summary = "a test"

[regulariser.predicted]
path = "local:Predicted"
summary = "a test"

[regulariser.refusing]
path = "local:Refusing"
summary = "a test"

[regulariser.broken]
path = "broken:Broken"
summary = "raises when it is imported"
"""


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config that loads, in the working directory."""
    monkeypatch.chdir(tmp_path)
    return write(tmp_path / "base.toml", BASE)


@pytest.fixture
def plugins(base: Path) -> Path:
    """Local plugins beside the config, one of them broken."""
    write(base.parent / "local.py", LOCAL)
    write(base.parent / "broken.py", "raise RuntimeError('broken')")
    return write(base.parent / "registry.toml", LOCAL_REGISTRY)


def faults(path: Path, *words: str) -> list[str]:
    """What loading says, a line per fault."""
    with pytest.raises(InputError) as caught:
        load_config(path, words)
    return [str(fault) for fault in caught.value.faults]


def line_of(text: str, part: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if part in line)


# -- what loads -------------------------------------------------------------------------------------


def test_values_defaults_and_the_files_name(base: Path) -> None:
    config = load_config(base).config
    assert (config.name, config.seed) == ("base", 3)
    assert config.energy["sparsity"].arguments()["weight"] == 0.1
    assert list(config.energy) == ["reconstruction", "sparsity"]
    assert config.inference.type == "fista"
    assert config.model.encoder is None
    assert config.learning.rate == 1e-3
    assert config.phases["first"].terms == ["reconstruction", "sparsity"]
    assert config.output.folder == base.parent / "runs"


def test_the_registry_chooses_what_a_config_does_not_say(base: Path) -> None:
    config = load_config(base).config
    assert config.backend.type == "cpu"
    assert config.tracking is not None
    assert config.tracking.type == "mlflow"
    assert list(config.callbacks) == ["progress"]


def test_a_default_table_may_be_changed_without_its_type(base: Path) -> None:
    config = load_config(base, ["backend.dtype=float64", "callbacks.progress.seconds=3"]).config
    assert config.backend.type == "cpu"
    assert config.callbacks["progress"].arguments()["seconds"] == 3


@pytest.mark.parametrize("word", ["tracking=false", 'tracking.type="none"', "tracking.type=none"])
def test_no_tracking(base: Path, word: str) -> None:
    assert load_config(base, [word]).config.tracking is None


def test_a_default_callback_can_be_dropped(base: Path) -> None:
    assert load_config(base, ["callbacks.progress=false"]).config.callbacks == {"progress": None}


def test_a_mapping_loads_like_a_file(base: Path) -> None:
    from_file = load_config(base).config
    from_mapping = load_config(tomllib.loads(BASE) | {"name": "base"}).config
    assert from_mapping == from_file
    assert load_config(tomllib.loads(dump_toml(from_file))).config == from_file


def test_a_run_config_can_be_made_in_python(base: Path) -> None:
    made = RunConfig(**tomllib.loads(BASE), name="base")
    assert made == load_config(base).config


@pytest.mark.parametrize(
    ("stem", "name"), [("a run", "a-run"), ("läufe_1", "l-ufe_1"), ("...", "run"), ("v1.2", "v1.2")]
)
def test_a_files_name_becomes_a_runs_name(base: Path, stem: str, name: str) -> None:
    assert load_config(write(base.parent / f"{stem}.toml", BASE)).config.name == name


# -- extends ----------------------------------------------------------------------------------------


def test_a_child_merges_tables_key_by_key(base: Path) -> None:
    child = write(base.parent / "child.toml", 'extends = "base.toml"\n[energy.sparsity]\nweight = 0.5\n')
    config = load_config(child).config
    assert config.energy["sparsity"].type == "l1"
    assert config.energy["sparsity"].arguments()["weight"] == 0.5
    assert (config.name, config.seed) == ("child", 3)


def test_a_changed_type_replaces_the_whole_table(base: Path) -> None:
    text = 'extends = "base.toml"\n[energy.sparsity]\ntype = "l2"\n[inference]\ntype = "ista"\n'
    config = load_config(write(base.parent / "child.toml", text)).config
    assert config.energy["sparsity"].arguments()["weight"] == 1.0
    assert config.inference.arguments()["max_iterations"] == 200
    assert list(config.energy) == ["reconstruction", "sparsity"]


def test_a_published_system_is_a_config_in_this_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    named = load_config("groundstate:drsae", ["data.type=digits"]).config
    file = write(tmp_path / "drsae.toml", 'extends = "groundstate:drsae"\n[data]\ntype = "digits"\n')
    assert config_hash(named) == config_hash(load_config(file).config)
    assert named.output == load_config(file).config.output
    with pytest.raises(InputError, match="did you mean 'drsae'"):
        load_config("groundstate:drsea")


def test_the_same_type_again_keeps_the_table(base: Path) -> None:
    text = 'extends = "base.toml"\n[energy.sparsity]\ntype = "l1"\n'
    config = load_config(write(base.parent / "child.toml", text)).config
    assert config.energy["sparsity"].arguments()["weight"] == 0.1


def test_a_type_that_was_implied_counts_as_one(base: Path) -> None:
    parent = write(base.parent / "parent.toml", BASE + '[backend]\ndtype = "float64"\n')
    same = write(base.parent / "same.toml", f'extends = "{parent.name}"\n[backend]\ntype = "cpu"\n')
    other = write(base.parent / "other.toml", f'extends = "{parent.name}"\n[backend]\ntype = "cuda"\n')
    assert load_config(same).config.backend.arguments()["dtype"] == "float64"
    assert load_config(other).config.backend.arguments()["dtype"] == "float32"


def test_false_drops_what_is_inherited(base: Path) -> None:
    parent = write(
        base.parent / "parent.toml", BASE + '[model.encoder]\ntype = "linear"\n[phases.second]\nepochs = 1\n'
    )
    text = f"""\
extends = "{parent.name}"
[model]
encoder = false
[energy]
sparsity = false
[phases]
first = false
"""
    config = load_config(write(base.parent / "child.toml", text)).config
    assert config.model.encoder is None
    assert list(config.energy) == ["reconstruction"]
    assert list(config.phases) == ["second"]


def test_what_was_dropped_can_come_back(base: Path) -> None:
    write(base.parent / "child.toml", 'extends = "base.toml"\nenergy.sparsity = false\nphases.first.terms = false\n')
    text = 'extends = "child.toml"\n[energy.sparsity]\ntype = "l2"\n'
    config = load_config(write(base.parent / "grandchild.toml", text)).config
    assert config.energy["sparsity"].type == "l2"
    assert config.phases["first"].terms is None


def test_false_drops_nothing_that_is_not_there(base: Path) -> None:
    child = write(base.parent / "child.toml", 'extends = "base.toml"\n[energy]\nsparsiti = false\n')
    (fault,) = faults(child)
    assert fault.startswith("child.toml:3 energy.sparsiti: false drops an inherited table, and there is none")
    assert fault.endswith("did you mean 'sparsity'?")


def test_a_published_system_can_be_extended(base: Path) -> None:
    child = write(base.parent / "child.toml", 'extends = "groundstate:drsae"\n[energy.sparsity]\nweight = 0.5\n')
    config = load_config(child).config
    assert config.energy["sparsity"].arguments()["weight"] == 0.5
    assert config.model.encoder is not None


def test_a_chain_of_files_in_several_folders(base: Path) -> None:
    write(base.parent / "a" / "middle.toml", 'extends = "../base.toml"\nseed = 4\n')
    last = write(base.parent / "b" / "last.toml", 'extends = "../a/middle.toml"\nlearning.rate = 0.5\n')
    config = load_config(last).config
    assert (config.seed, config.learning.rate) == (4, 0.5)


@pytest.mark.parametrize(
    ("extends", "words"),
    [
        ('"bse.toml"', "there is no file bse.toml; did you mean 'base.toml'?"),
        ('"groundstate:drsea"', "there is no system 'drsea'; did you mean 'drsae'?"),
        ("3", "must be a file or 'groundstate:<name>', not 3"),
        ('"."', "is a folder"),
    ],
)
def test_extending_what_is_not_there(base: Path, extends: str, words: str) -> None:
    (fault,) = faults(write(base.parent / "child.toml", f"seed = 1\nextends = {extends}\n"))
    assert fault.startswith("child.toml:2 extends: ")
    assert words in fault


def test_files_that_extend_each_other(base: Path) -> None:
    write(base.parent / "one.toml", 'extends = "two.toml"\n')
    two = write(base.parent / "two.toml", 'extends = "one.toml"\n')
    (fault,) = faults(two)
    assert fault == ("one.toml:1 extends: files extend each other in a circle: two.toml → one.toml → two.toml")


# -- overrides --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("learning.rate=2e-3", 2e-3),
        ("learning.optimiser=sgd", "sgd"),
        ('learning.optimiser="sgd"', "sgd"),
        ("learning.monitor=validation/energy", "validation/energy"),
        ("learning.clip=1", 1.0),
        ("learning.clip=false", None),
    ],
)
def test_an_override_is_toml_or_else_a_string(base: Path, word: str, value: Any) -> None:
    key = word.partition("=")[0].partition(".")[2]
    assert getattr(load_config(base, [word]).config.learning, key) == value


def test_overrides_from_python(base: Path) -> None:
    config = load_config(base, {"energy.sparsity": {"type": "l2", "weight": 0.3}, "seed": 7}).config
    assert (config.energy["sparsity"].type, config.energy["sparsity"].arguments()["weight"]) == ("l2", 0.3)
    assert config.seed == 7


def test_an_override_of_a_type_replaces_the_table_in_any_order(base: Path) -> None:
    words = ["energy.sparsity.weight=0.3", "energy.sparsity.type=l2"]
    for order in itertools.permutations(words):
        config = load_config(base, order).config
        assert (config.energy["sparsity"].type, config.energy["sparsity"].arguments()["weight"]) == ("l2", 0.3)


def test_the_later_of_two_overrides_counts(base: Path) -> None:
    assert load_config(base, ["seed=1", "seed=2"]).config.seed == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["seed"], "command line: 'seed' is not of the form key.path=value"),
        (["a..b=1"], "command line: 'a..b' is not a key path such as energy.sparsity.weight"),
        (["=1"], "command line: '' is not a key path such as energy.sparsity.weight"),
        (["sead=1"], "command line sead: unknown key; did you mean 'seed'?"),
        (["learning.rate=-1"], "command line learning.rate: is -1; must be greater than 0"),
        (["energy.sparsity.wieght=1"], "command line energy.sparsity.wieght: unknown key; did you mean 'weight'?"),
        (["phases.first.terms=['sparse']"], "command line phases.first.terms[0]: there is no energy term 'sparse'"),
        (["energy.x=1", "energy.x.type=l1"], "command line energy.x: is given a value, and so is energy.x.type inside"),
    ],
)
def test_wrong_overrides(base: Path, words: list[str], message: str) -> None:
    (fault,) = faults(base, *words)
    assert fault.startswith(message)


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=12))
def test_any_text_of_an_override_is_toml_or_itself(text: str) -> None:
    value = read_overrides([f"name={text}"]).values["name"]
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        parsed = {}
    assert repr(value) == repr(parsed["value"] if list(parsed) == ["value"] else text)


# -- faults -----------------------------------------------------------------------------------------

TERMS = 'terms = ["reconstruction", "sparsity"]'

WRONG = [
    ("seed = 3", "sead = 3", "sead: unknown key; did you mean 'seed'?"),
    ("weight = 0.1", "wight = 0.1", "energy.sparsity.wight: unknown key; did you mean 'weight'?"),
    ("weight = 0.1", "weight = -0.1", "is -0.1; must be greater than or equal to 0 (multiplies the term; ≥ 0)"),
    ("weight = 0.1", 'weight = "much"', 'is "much"; it must be a number'),
    ("weight = 0.1", "weight = true", "is true; it must be a number"),
    ("weight = 0.1", "weight = nan", "is nan; must be"),
    ("units = 16", "units = 1.5", "model.decoder.units: is 1.5; must be a valid integer"),
    ("units = 16", 'units = "16"', 'is "16"; it must be a number'),
    ("seed = 3", "seed = -1", "seed: is -1; must be greater than or equal to 0"),
    ('type = "l1"', 'type = "l11"', "there is no energy term 'l11'; did you mean 'l1'? (looked in: groundstate"),
    ('type = "l1"', 'type = "ista"', "there is no energy term 'ista'; 'ista' is a solver"),
    ('type = "l1"', "type = 3", "energy.sparsity.type: is required: the name of a term plugin"),
    ('type = "fista"', 'type = "fist"', "inference.type: there is no solver 'fist'; did you mean 'fista'?"),
    ("epochs = 2", "epochs = 0", "phases.first.epochs: is 0; must be greater than or equal to 1"),
    ("epochs = 2", "epoch = 2", "phases.first.epoch: unknown key; did you mean 'epochs'?"),
    (TERMS, 'schedule = "cos"', "is \"cos\"; must be 'constant' or 'cosine' (the rate over the phase)"),
    (TERMS, 'terms = ["sparse"]', "phases.first.terms[0]: there is no energy term 'sparse'; did you mean 'sparsity'?"),
    (TERMS, "terms = []", "phases.first.terms: names no term; leave it out for all of them"),
    (TERMS, "weights.sparse = 1", "phases.first.weights.sparse: there is no energy term 'sparse'"),
    (
        TERMS,
        'terms = ["reconstruction"]\nweights.sparsity = 1',
        "phases.first.weights.sparsity: 'sparsity' does not act in this phase; add it to its terms",
    ),
    ("[energy.sparsity]", '[energy."a.b"]', "letters, digits, '_' and '-' only"),
    ("[energy.sparsity]", "[energy.keys]", "'keys' cannot name a term"),
    ("[model.decoder]", "[model.dekoder]", "model.dekoder: unknown key; did you mean 'decoder'?"),
]


@pytest.mark.parametrize(("old", "new", "words"), WRONG, ids=[new for _, new, _ in WRONG])
def test_a_fault_stands_at_its_line(base: Path, old: str, new: str, words: str) -> None:
    text = BASE.replace(old, new)
    assert text != BASE
    place = f"base.toml:{line_of(text, new.splitlines()[-1])} "
    found = faults(write(base, text))
    assert [fault for fault in found if fault.startswith(place) and words in fault], found


def test_what_is_required_is_told_at_its_table(base: Path) -> None:
    text = BASE.replace("units = 16\n", "").replace('type = "digits"\n', "")
    assert faults(write(base, text)) == [
        f"base.toml:{line_of(text, '[data]')} data.type: is required: the name of a data plugin",
        f"base.toml:{line_of(text, '[model.decoder]')} model.decoder.units: is required: units of the code, "
        "the columns of the dictionary",
    ]


def test_all_faults_come_at_once_in_the_files_order(base: Path) -> None:
    text = BASE.replace("seed", "sead").replace("weight = 0.1", "weight = -1").replace('"fista"', '"fist"')
    found = faults(write(base, text.replace('"sparsity"]', '"sparse"]')), "learning.rate=0")
    assert [fault.partition(":")[0].partition(" ")[0] for fault in found] == ["base.toml"] * 4 + ["command"]
    lines = [int(fault.split(":")[1].split(" ")[0]) for fault in found[:4]]
    assert lines == sorted(lines)


def test_faults_of_a_parent_stand_in_the_parent(base: Path) -> None:
    write(base, BASE.replace("weight = 0.1", "weight = -1"))
    child = write(base.parent / "child.toml", 'extends = "base.toml"\n[learning]\nrate = -1\n')
    found = faults(child)
    assert found[0].startswith(f"base.toml:{line_of(BASE, 'weight')} energy.sparsity.weight: is -1")
    assert found[1].startswith("child.toml:3 learning.rate: is -1")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("data", "data: is required: the data set"),
        ("energy", "energy: is required"),
        ("inference", "inference: is required: the solver"),
        ("phases", "phases: is required"),
    ],
)
def test_a_missing_table_is_told(base: Path, table: str, words: str) -> None:
    values = {key: value for key, value in tomllib.loads(BASE).items() if key != table}
    with pytest.raises(InputError) as caught:
        load_config(values)
    assert words in str(caught.value)


def test_empty_tables_are_told(base: Path) -> None:
    values = tomllib.loads(BASE) | {"energy": {}, "phases": {}}
    with pytest.raises(InputError) as caught:
        load_config(values)
    assert "energy: has no terms; add [energy.<name>] with a type" in str(caught.value)
    assert "phases: has no phases; add [phases.<name>] with epochs" in str(caught.value)


def test_a_term_in_the_energy_itself(base: Path) -> None:
    text = BASE.replace("[energy.sparsity]", "[energy]")
    place = f"base.toml:{line_of(text, 'l1')} energy.type: must be a table with a type that names a term"
    assert place in faults(write(base, text))


def test_a_term_without_the_decoder_it_asks_for(base: Path) -> None:
    text = BASE.replace('[model.decoder]\ntype = "linear"\nunits = 16\n', "")
    (fault,) = faults(write(base, text))
    line = line_of(text, "[energy.reconstruction]")
    assert fault.startswith(f"base.toml:{line} energy.reconstruction: the term asks for 'decoded', but there is no")


def test_a_term_without_the_encoder_it_asks_for(plugins: Path, base: Path) -> None:
    (fault,) = faults(base, "energy.near.type=predicted")
    assert fault == (
        "command line energy.near: the term asks for 'prediction', but there is no encoder; add [model.encoder]"
    )


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [("seed = \n", 1, 8), ("seed = 1\n[data\n", 2, 6), ("seed = 1\nseed = 2\n", 2, 9), ('name = "open', 1, 13)],
)
def test_what_is_not_toml(base: Path, text: str, line: int, column: int) -> None:
    (fault,) = faults(write(base, text))
    assert fault.startswith(f"base.toml:{line}:{column}: not TOML: ")
    assert "(at " not in fault


def test_what_is_no_text_and_what_is_not_there(base: Path) -> None:
    base.write_bytes(b"seed = 1 # \xff\n")
    assert faults(base) == ["base.toml: is not UTF-8 text (byte 11); save it as UTF-8"]
    write(base, BASE)
    assert faults(base.with_name("bas.toml")) == ["there is no file bas.toml; did you mean 'base.toml'?"]
    assert faults(base.parent) == [
        f"{base.parent} is a folder; give a config file in it".replace(str(base.parent), ".")
    ]


def test_a_models_own_validator_is_heard(plugins: Path, base: Path) -> None:
    (fault,) = faults(base, "energy.sparsity={type='pair', low=3}")
    assert fault.startswith("command line energy.sparsity: ")
    assert "low is above high" in fault


# -- plugins ----------------------------------------------------------------------------------------


def test_a_broken_plugin_hurts_only_those_who_use_it(plugins: Path, base: Path) -> None:
    assert load_config(base).config.energy["sparsity"].type == "l1"
    (fault,) = faults(base, "energy.sparsity.type=broken")
    assert fault.startswith("command line energy.sparsity.type: regulariser 'broken' (broken.py:1) cannot be imported")


def test_a_constructors_refusal_is_located(plugins: Path, base: Path) -> None:
    from groundstate.config import assemble

    text = BASE.replace('type = "l1"', 'type = "refusing"')
    loaded = load_config(write(base, text))
    with pytest.raises(InputError) as caught:
        assemble(loaded)
    assert str(caught.value) == f"base.toml:{line_of(text, 'weight')} energy.sparsity.weight: no luck"


def test_components_are_made_by_plain_constructors(base: Path) -> None:
    from groundstate.config import assemble

    parts = assemble(load_config(base, ["evaluation.reference.type=ista", "evaluation.reference.max_iterations=7"]))
    (layer,) = parts.layers
    assert layer.encoder is None
    assert layer.decoder is not None
    assert layer.decoder.config.units == 16
    assert list(layer.terms) == ["reconstruction", "sparsity"]
    assert layer.solver.config.max_iterations == 50
    assert parts.reference.config.max_iterations == 7
    assert list(parts.callbacks) == ["progress"]
    assert parts.data.describe().classes == 10


# -- paths ------------------------------------------------------------------------------------------


def test_a_path_starts_from_the_file_it_is_written_in(plugins: Path, base: Path) -> None:
    here = base.parent
    files = 'type = "files"\npath = "x.npy"\nothers = ["a.npy", "/abs/b.npy"]\nnamed.one = "c.npy"'
    write(here / "parents" / "parent.toml", BASE.replace('type = "digits"', files))
    child = write(here / "child.toml", 'extends = "parents/parent.toml"\ndata.groups = "g.npy"\ndata.word = "w.npy"\n')
    data = load_config(child).config.data.arguments()
    assert data["path"] == here / "parents" / "x.npy"
    assert data["others"] == [here / "parents" / "a.npy", Path("/abs/b.npy")]
    assert data["named"] == {"one": here / "parents" / "c.npy"}
    assert data["groups"] == here / "g.npy"
    assert data["word"] == "w.npy"
    assert load_config(child, ["data.groups=rows"]).config.data.arguments()["groups"] == "rows"


def test_a_path_on_the_command_line_starts_from_the_working_directory(
    plugins: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = base.parent / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    config = load_config(base, ["data.type=files", "data.path=x.npy"]).config
    assert config.data.arguments()["path"] == elsewhere / "x.npy"


def test_home_is_expanded(plugins: Path, base: Path) -> None:
    config = load_config(base, ["data.type=files", "data.path=~/x.npy", "output.folder=~/runs"]).config
    assert config.data.arguments()["path"] == Path.home() / "x.npy"
    assert config.output.folder == Path.home() / "runs"


# -- the resolved config ----------------------------------------------------------------------------


def round_trip(config: RunConfig, folder: Path) -> RunConfig:
    """Written out and loaded again, from another folder."""
    text = dump_toml(config)
    again = load_config(write(folder / "resolved" / "config.toml", text)).config
    assert dump_toml(again) == text
    assert config_hash(again) == config_hash(config)
    return again


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["tracking=false", "callbacks.progress=false"],
        ["learning.clip=0.5", "learning.checkpoint_seconds=5", "phases.first.weights.sparsity=2"],
        ["evaluation.reference.type=ista", "model.encoder.type=linear", "phases.first.freeze=['encoder']"],
    ],
    ids=str,
)
def test_a_resolved_config_loads_to_an_equal_one(base: Path, words: list[str]) -> None:
    config = load_config(base, words).config
    assert round_trip(config, base.parent) == config
    assert "#" not in dump_toml(config)


@pytest.mark.parametrize("limit", ["false", "1", "inf"])
def test_none_and_paths_survive_too(plugins: Path, base: Path, limit: str) -> None:
    words = ["data={type='files', path='x.npy', groups='g'}", f"data.limit={limit}", "data.flag=false"]
    config = load_config(base, words).config
    assert config.data.arguments()["flag"] is False
    assert config.data.arguments()["limit"] == {"false": None, "1": 1.0, "inf": float("inf")}[limit]
    assert round_trip(config, base.parent) == config


def test_a_resolved_config_says_where_its_local_plugins_are(plugins: Path, base: Path) -> None:
    config = load_config(base, ["energy.sparsity.type=pair"]).config
    assert config.plugins == [plugins]
    assert load_config(base).config.plugins == []
    assert round_trip(config, base.parent) == config


def test_plugins_that_are_not_there(base: Path) -> None:
    (fault,) = faults(write(base, f'plugins = ["nowhere"]\n{BASE}'))
    assert fault.startswith("base.toml:1 plugins[0]: there is no file")


@pytest.mark.parametrize("system", ["drsae", "drsae-mnist", "sparse-coding"])
def test_published_systems_round_trip(base: Path, system: str) -> None:
    config = load_config(write(base.parent / "child.toml", f'extends = "groundstate:{system}"\n')).config
    assert round_trip(config, base.parent) == config


def test_the_hash_is_of_what_determines_the_numbers(base: Path) -> None:
    reference = config_hash(load_config(base).config)
    for word in ("name=other", "tracking=false", "output.folder=there", "callbacks.progress=false"):
        assert config_hash(load_config(base, [word]).config) == reference
    for word in ("seed=4", "energy.sparsity.weight=0.2", "backend.dtype=float64", "phases.first.epochs=3"):
        assert config_hash(load_config(base, [word]).config) != reference


SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "seed": st.integers(0, 2**63 - 1),
        "name": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]*", fullmatch=True),
        "learning.rate": st.floats(1e-12, 1e6),
        "learning.clip": st.floats(1e-6, 1e6) | st.just(False),
        "energy.sparsity.weight": st.floats(0, 1e9),
        "phases.first.freeze": st.lists(st.text(st.characters(exclude_categories=("Cs",)), max_size=5), max_size=3),
        "phases.first.schedule": st.sampled_from(["constant", "cosine"]),
        "learning.monitor": st.text(st.characters(exclude_categories=("Cs",)), max_size=8) | st.just(False),
        "model.encoder": st.just({"type": "linear"}) | st.just(False),
    },
)


@given(settings=SETTINGS)
def test_any_config_survives_being_written(settings: dict[str, Any]) -> None:
    config = load_config(tomllib.loads(BASE), settings).config
    assert load_config(tomllib.loads(dump_toml(config))).config == config
