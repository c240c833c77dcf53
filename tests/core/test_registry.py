"""The registry: what it finds, what it refuses, and that one broken plugin hurts none but those who use it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from groundstate import registry as module
from groundstate.components import KINDS, TERM_KINDS
from groundstate.errors import InputError, PluginError
from groundstate.registry import API_VERSION, Entry, Registry

HOYER = """\
from torch import Tensor

from groundstate import Regulariser


class Hoyer(Regulariser):
    def energy(self, z: Tensor) -> Tensor:
        return z.flatten(1).abs().sum(1) ** 2
"""


def local(
    folder: Path, code: str = HOYER, *, kind: str = "regulariser", name: str = "hoyer", cls: str = "Hoyer"
) -> Path:
    """A local plugin: its module and a registry.toml beside it."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(code, encoding="utf-8")
    text = f'[{kind}.{name}]\npath = "{name}:{cls}"\nsummary = "a test"\n'
    (folder / "registry.toml").write_text(text, encoding="utf-8")
    return folder


def distribution(
    folder: Path, monkeypatch: pytest.MonkeyPatch, code: str, *, name: str = "acme", version: str = "1.2"
) -> Path:
    """An installed distribution with an entry point of group groundstate."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(code, encoding="utf-8")
    metadata = folder / f"{name}-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    (metadata / "entry_points.txt").write_text(f"[groundstate]\n{name} = {name}\n", encoding="utf-8")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, name, raising=False)
    return folder


REGISTERS = """\
from groundstate.hooks import hookimpl

@hookimpl
def groundstate_register(register):
    register("regulariser", "{name}", "acme_terms:Term", "theirs")
    register("solver", "theirs", "acme_terms:Solver", "theirs")
"""


# -- what there is ----------------------------------------------------------------------------------


def test_kinds_are_those_of_the_components() -> None:
    assert tuple(sorted(module.KINDS)) == tuple(sorted(KINDS))
    assert module.TERM_KINDS == TERM_KINDS


def test_built_in_plugins_come_through_the_entry_point() -> None:
    registry = Registry.discover()
    entries = list(registry.entries())
    assert {entry.source.kind for entry in entries} == {"built-in"}
    assert all(entry.source.distribution == "groundstate" for entry in entries)
    assert not registry.problems
    assert not [entry for entry in entries if entry.broken]
    assert registry.default("backend").name == "cpu"
    assert registry.default("tracker").name == "mlflow"
    assert [entry.name for entry in registry.defaults("callback")] == ["progress"]
    assert registry.default("solver") is None


def test_finding_plugins_imports_none_of_them(tmp_path: Path) -> None:
    local(tmp_path, "raise RuntimeError('imported')")
    code = (
        "import sys; from pathlib import Path; from groundstate.registry import Registry; "
        f"found = Registry.discover(Path({str(tmp_path)!r})); assert found.get('regulariser', 'hoyer'); "
        "print(*{'torch', 'pydantic', 'mlflow', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


def test_the_built_in_registry_beside_a_config_is_not_read_twice(repository: Path) -> None:
    registry = Registry.discover(repository)
    assert not [entry for entry in registry.entries() if entry.broken]


# -- local plugins ----------------------------------------------------------------------------------


def test_a_local_plugin_is_loaded_from_its_file(tmp_path: Path) -> None:
    registry = Registry.discover(local(tmp_path))
    entry = registry.get("regulariser", "hoyer")
    cls = registry.load(entry)
    assert cls.__name__ == "Hoyer"
    assert entry.source.kind == "local"
    assert entry.source.file == tmp_path / "registry.toml"
    assert "hoyer" not in sys.modules, "a local module must not hide an installed one"
    assert registry.load(entry) is cls
    assert registry.find(cls) == entry


def test_an_edited_local_plugin_is_read_anew(tmp_path: Path) -> None:
    folder = local(tmp_path)
    before = Registry.discover(folder)
    first = before.load(before.get("regulariser", "hoyer"))
    local(tmp_path, HOYER.replace("** 2", "** 3"))
    after = Registry.discover(folder)
    second = after.load(after.get("regulariser", "hoyer"))
    assert second is not first
    assert after.load(after.get("regulariser", "hoyer")) is second


def test_a_module_in_a_folder_beside_the_registry(tmp_path: Path) -> None:
    (tmp_path / "terms").mkdir()
    (tmp_path / "terms" / "hoyer.py").write_text(HOYER, encoding="utf-8")
    text = '[regulariser.hoyer]\npath = "terms.hoyer:Hoyer"\nsummary = "a test"\n'
    (tmp_path / "registry.toml").write_text(text, encoding="utf-8")
    registry = Registry.discover(tmp_path)
    assert registry.load(registry.get("regulariser", "hoyer")).__name__ == "Hoyer"


def test_a_local_registry_may_name_an_installed_module(tmp_path: Path) -> None:
    text = '[regulariser.mine]\npath = "groundstate_plugins.regularisers.l1:L1"\nsummary = "the same"\n'
    (tmp_path / "registry.toml").write_text(text, encoding="utf-8")
    registry = Registry.discover(tmp_path)
    assert registry.load(registry.get("regulariser", "mine")) is registry.load(registry.get("regulariser", "l1"))


@pytest.mark.parametrize(
    ("code", "line", "words"),
    [
        ("x = 1\ny = undefined\n", 2, "NameError: name 'undefined' is not defined"),
        ("x = 1\n\nclass\n", 3, "SyntaxError"),
        ("import json\njson.loads('{')\n", 2, "JSONDecodeError"),
        ("x = 1\nimport no_such_module\n", 2, "No module named 'no_such_module'"),
    ],
)
def test_a_failing_import_names_plugin_file_and_line(tmp_path: Path, code: str, line: int, words: str) -> None:
    registry = Registry.discover(local(tmp_path, code))
    with pytest.raises(PluginError) as caught:
        registry.load(registry.get("regulariser", "hoyer"))
    message = str(caught.value)
    assert "regulariser 'hoyer'" in message
    assert f"{tmp_path / 'hoyer.py'}:{line}" in message
    assert words in message


def test_missing_modules_and_classes_are_named(tmp_path: Path) -> None:
    registry = Registry.discover(local(tmp_path, cls="Hoier"))
    with pytest.raises(PluginError, match=r"hoyer\.py\): the module defines no 'Hoier'"):
        registry.load(registry.get("regulariser", "hoyer"))
    (tmp_path / "hoyer.py").unlink()
    with pytest.raises(PluginError, match=r"there is neither .*hoyer\.py nor a module 'hoyer'"):
        registry.load(registry.get("regulariser", "hoyer"))


# -- names ------------------------------------------------------------------------------------------


def test_an_unknown_name_gets_the_nearest_and_where_was_looked(tmp_path: Path) -> None:
    registry = Registry.discover(tmp_path)
    with pytest.raises(InputError) as caught:
        registry.get("solver", "fsta")
    message = str(caught.value)
    assert "there is no solver 'fsta'; did you mean 'fista'?" in message
    assert "groundstate" in message
    assert f"{tmp_path / 'registry.toml'} (there is none)" in message
    with pytest.raises(InputError, match="'l1' is a regulariser"):
        registry.get("solver", "l1")


def test_a_clash_with_a_built_in_name_stops_only_that_name(tmp_path: Path) -> None:
    registry = Registry.discover(local(tmp_path, name="l1"))
    with pytest.raises(InputError) as caught:
        registry.get("regulariser", "l1")
    message = str(caught.value)
    assert "taken twice" in message
    assert "groundstate" in message
    assert str(tmp_path / "registry.toml") in message
    assert [entry.name for entry in registry.entries() if entry.broken] == ["l1", "l1"]  # both are shown
    assert registry.load(registry.get("regulariser", "l2")).__name__ == "L2"


def test_the_three_kinds_of_term_share_their_names(tmp_path: Path) -> None:
    registry = Registry.discover(local(tmp_path, kind="task", name="l1"))
    for kind in ("task", "regulariser"):
        with pytest.raises(InputError, match="taken twice"):
            registry.get(kind, "l1")


def test_the_same_name_in_different_kinds_is_no_clash(tmp_path: Path) -> None:
    registry = Registry.discover(local(tmp_path, name="fista"))
    assert registry.get("regulariser", "fista").broken is None
    assert registry.get("solver", "fista").broken is None


def test_two_defaults_of_a_kind_are_refused_when_one_is_needed(tmp_path: Path) -> None:
    text = '[backend.mine]\npath = "mine:Mine"\nsummary = "a test"\ndefault = true\n'
    (tmp_path / "registry.toml").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"several plugins want to be the default backend: 'cpu' in .* and 'mine'"):
        Registry.discover(tmp_path).default("backend")


# -- broken registries ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[regulariser.x\n", "cannot be read"),
        (
            '[regularizer.x]\npath = "x:X"\nsummary = ""\n',
            r"\[regularizer\] .* did you mean 'regulariser'",
        ),
        ('[regulariser]\nx = "x:X"\n', r"\[regulariser.x\] must be a table"),
        ('[regulariser.x]\npath = "x:X"\n', r"\[regulariser.x\] lacks summary"),
        ('[regulariser.x]\npath = "x:X"\nsumary = ""\n', "unknown key 'sumary'; did you mean 'summary'"),
        ('[regulariser.x]\npath = 3\nsummary = ""\n', "path must be of type str, not 3"),
    ],
)
def test_a_broken_registry_is_a_problem_that_is_told(tmp_path: Path, text: str, reason: str) -> None:
    good = '\n[solver.mine]\npath = "mine:Mine"\nsummary = "a test"\n'
    (tmp_path / "registry.toml").write_text(text + good, encoding="utf-8")
    registry = Registry.discover(tmp_path)
    (problem,) = registry.problems
    assert re.search(reason, str(problem))
    assert registry.get("regulariser", "l1")
    if "cannot be read" not in reason:
        assert registry.get("solver", "mine"), "the rest of the file counts"
    else:
        with pytest.raises(InputError, match=r"not readable: .*cannot be read"):
            registry.get("solver", "mine")


@pytest.mark.parametrize("path", ["x", "x:", ":X", "x:Y:Z"])
def test_a_path_that_is_none_breaks_its_entry(tmp_path: Path, path: str) -> None:
    (tmp_path / "registry.toml").write_text(f'[solver.x]\npath = "{path}"\nsummary = ""\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"not of the form package\.module:Class"):
        Registry.discover(tmp_path).get("solver", "x")


def test_another_version_of_the_contract_is_listed_as_broken(tmp_path: Path) -> None:
    text = '[solver.{0}]\npath = "x:X"\nsummary = ""\napi = {1}\n'
    versions = text.format("new", API_VERSION + 1) + text.format("now", API_VERSION)
    (tmp_path / "registry.toml").write_text(versions, encoding="utf-8")
    registry = Registry.discover(tmp_path)
    assert registry.get("solver", "now").broken is None
    with pytest.raises(InputError, match="speaks version 2 of the plugin contract"):
        registry.get("solver", "new")


# -- installed distributions ------------------------------------------------------------------------


def test_an_installed_distribution_registers_through_the_hook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = distribution(tmp_path, monkeypatch, REGISTERS.format(name="theirs"))
    (folder / "acme_terms.py").write_text(HOYER.replace("Hoyer", "Term"), encoding="utf-8")
    registry = Registry.discover()
    entry = registry.get("regulariser", "theirs")
    assert str(entry.source) == "acme 1.2"
    assert entry.source.kind == "distribution"
    assert registry.load(entry).__name__ == "Term"


def test_a_clash_with_a_distribution_names_both_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distribution(tmp_path, monkeypatch, REGISTERS.format(name="l1"))
    registry = Registry.discover()
    with pytest.raises(InputError, match=r"in groundstate .* and regulariser 'l1' in acme 1\.2; rename one"):
        registry.get("regulariser", "l1")
    assert registry.get("solver", "theirs").broken is None


@pytest.mark.parametrize(
    "code",
    [
        "raise RuntimeError('no')",
        "import no_such_module",
        "from groundstate.hooks import hookimpl\n@hookimpl\ndef groundstate_register(register, nonsense): ...",
        "from groundstate.hooks import hookimpl\n@hookimpl\ndef groundstate_register(register): register.nonsense()",
    ],
)
def test_an_entry_point_that_fails_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    distribution(tmp_path, monkeypatch, code)
    registry = Registry.discover()
    (problem,) = registry.problems
    assert "acme 1.2: entry point 'acme' failed" in str(problem)
    assert registry.load(registry.get("regulariser", "l1")).__name__ == "L1"
    with pytest.raises(InputError, match=r"not readable: acme 1\.2"):
        registry.get("regulariser", "theirs")


def test_a_distribution_with_an_unreadable_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "from pathlib import Path\nfrom groundstate.hooks import hookimpl\n@hookimpl\n"
        "def groundstate_register(register): register.toml(Path(__file__).with_name('registry.toml'))\n"
    )
    distribution(tmp_path, monkeypatch, code)
    assert "cannot be read" in str(Registry.discover().problems[0])


# -- the class's contract ---------------------------------------------------------------------------

HEAD = "from groundstate import *\nfrom groundstate.hooks import hookimpl\nfrom pydantic import BaseModel, Field\n"

BAD_CLASSES = [
    ("regulariser", "class X(Regulariser): ...", "does not implement energy"),
    (
        "regulariser",
        "class X(Task):\n def energy(self, z): ...",
        "must extend groundstate.Regulariser, but it is a task",
    ),
    ("regulariser", "class X: ...", "must extend groundstate.Regulariser"),
    ("regulariser", "def X(): ...", "must be a class"),
    ("regulariser", "class X(Regulariser):\n def energy(self, *z): ...", r"asks for '\*z'.*name them"),
    ("regulariser", "class X(Regulariser):\n def energy(self, **needs): ...", r"asks for '\*\*needs'"),
    ("regulariser", "class X(Regulariser):\n def energy(this, z): ...", "first parameter of energy must be self"),
    ("regulariser", "class X(Regulariser):\n energy = 3", "energy must be a method"),
    (
        "regulariser",
        "class X(Regulariser):\n def energy(self, z): ...\n def prox(self, v): ...",
        "prox must take v and step",
    ),
    (
        "regulariser",
        "class X(Regulariser):\n def energy(self, z): ...\n def prox(self, v, step, x): ...",
        "not for x",
    ),
    (
        "regulariser",
        "class X(Regulariser):\n def energy(self, z): ...\n def dual_norm(self): ...",
        r"dual_norm\(\) must take 1 argument beside self",
    ),
    (
        "regulariser",
        "class X(Regulariser):\n class Config(BaseModel): ...\n def energy(self, z): ...",
        "its Config must extend Regulariser.Config",
    ),
    (
        "regulariser",
        "class X(Regulariser):\n class Config(Regulariser.Config):\n  type: str = ''\n def energy(self, z): ...",
        "may not have a field 'type'",
    ),
    ("encoder", "class X(Encoder): ...", r"does not implement forward\(x\)"),
    ("encoder", "class X(Encoder):\n def forward(self, x, y): ...", "may ask for generator; not for y"),
    ("decoder", "class X(Decoder): ...", r"does not implement code_shape; does not implement forward\(z\)"),
    (
        "decoder",
        "class X(Decoder):\n def forward(self): ...\n def code_shape(self, input_shape): ...",
        r"forward\(\) must take 1 argument",
    ),
    ("solver", "class X(Solver): ...", "does not implement init, step"),
    (
        "solver",
        "class X(Solver):\n def init(self, problem, start): ...\n def step(self, state): ...",
        r"step\(state\) must take 2 arguments",
    ),
    ("backend", "class X(Backend): ...", "does not implement available, device"),
    ("backend", "class X(Backend):\n device = None\n def available(self): ...", "available must be a classmethod"),
    ("data", "class X(Data): ...", "does not implement describe, load"),
    ("callback", "class X(Callback):\n def run_started(self, run): ...", "without @hookimpl"),
    ("callback", "class X(Callback):\n @hookimpl\n def run_start(self): ...", "did you mean 'run_started'"),
    (
        "callback",
        "class X(Callback):\n @hookimpl\n def run_ended(self, model): ...",
        "asks for model; the hook",
    ),
]


@pytest.mark.parametrize(("kind", "code", "words"), BAD_CLASSES, ids=[words for _, _, words in BAD_CLASSES])
def test_a_class_that_breaks_its_contract_is_told_how(tmp_path: Path, kind: str, code: str, words: str) -> None:
    registry = Registry.discover(local(tmp_path, f"{HEAD}{code}\n", kind=kind, name="bad", cls="X"))
    with pytest.raises(PluginError, match=words) as caught:
        registry.load(registry.get(kind, "bad"))
    assert f"{kind} 'bad' ({tmp_path / 'bad.py'}, X)" in str(caught.value)


@pytest.mark.parametrize("entry", list(Registry.discover().entries()), ids=str)
def test_every_built_in_plugin_keeps_the_contract(entry: Entry) -> None:
    cls = Registry.discover().load(entry)
    assert issubclass(cls, KINDS[entry.kind])


# -- published systems ------------------------------------------------------------------------------


def test_published_systems_name_existing_configs() -> None:
    systems = Registry.discover().systems()
    assert "drsae" in [entry.name for entry in systems]
    assert all(Path(entry.path).is_file() for entry in systems)


def test_an_unknown_system_gets_the_nearest_name() -> None:
    with pytest.raises(InputError, match="there is no system 'drsea'; did you mean 'drsae'"):
        module.system_config(Registry.discover(), "groundstate:drsea")
