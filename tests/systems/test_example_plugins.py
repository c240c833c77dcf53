"""The distributions under examples/plugins: built on the public API, installed, found, tested, trained with."""

from __future__ import annotations

import os
import site
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from groundstate.testing import private_imports
from groundstate.testing.api import is_public

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "examples" / "plugins"
DISTRIBUTIONS = sorted(path.parent.name for path in FOLDER.glob("*/pyproject.toml"))
QUICK = {
    "groundstate-hoyer": ["phases.unsupervised.epochs=1", "phases.joint.epochs=1", "callbacks.baseline=false"],
    "groundstate-winners": ["phases.learn.epochs=1"],
    "groundstate-cpu-gram": ["phases.learn.epochs=1"],
    "groundstate-tensorboard": ["phases.unsupervised.epochs=1", "phases.joint.epochs=1", "callbacks.baseline=false"],
}
Run = Callable[..., str]


def plugins_of(distribution: str) -> list[tuple[str, str]]:
    (registry,) = (FOLDER / distribution / "src").glob("*/registry.toml")
    tables = tomllib.loads(registry.read_text(encoding="utf-8"))
    return [(kind, name) for kind, named in tables.items() for name in named]


def needs_missing(distribution: str) -> str | None:
    """What a distribution needs beyond groundstate and is not here."""
    if distribution.endswith("tensorboard"):
        try:
            import tensorboard  # noqa: F401
        except ImportError:
            return "needs tensorboard: pip install tensorboard"
    return None


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_distribution_imports_public_names_only(name: str) -> None:
    assert private_imports(FOLDER / name) == []


@pytest.mark.parametrize(
    "line",
    [
        "from groundstate.problem import Problem",
        "from groundstate import Problem, run_secretly",
        "import groundstate.run",
        "from groundstate_plugins.regularisers.l1 import L1",
        "import groundstate as gs\ngs.registry",
        "import groundstate\nprint(groundstate.components.KINDS)",
    ],
)
def test_a_private_name_is_found(tmp_path: Path, line: str) -> None:
    (tmp_path / "module.py").write_text(f"{line}\n", encoding="utf-8")
    assert len(private_imports(tmp_path)) >= 1


def test_public_names_are_those_that_are_exported() -> None:
    import groundstate

    assert all(is_public(f"groundstate.{name}") for name in groundstate.__all__)
    assert is_public("groundstate.structure.L1")
    assert is_public("torch.nn")
    assert not is_public("groundstate.structure.torch")


def test_the_regulariser_with_its_own_config_is_at_most_fifteen_lines() -> None:
    text = (FOLDER / "groundstate-hoyer" / "src" / "groundstate_hoyer" / "hoyer.py").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.strip()]
    assert len(lines) <= 15
    imported = {line.split()[1].partition(".")[0] for line in lines if line.startswith(("from ", "import "))}
    assert imported <= {"groundstate", "torch", "pydantic"}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A fresh environment with all distributions installed by pip; what they need is seen in this one."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=120)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    packages = next(folder.glob("lib*/**/site-packages"))
    here = [path for path in site.getsitepackages() if Path(path).is_dir()]
    lines = "".join(f"import site; site.addsitedir({path!r})\n" for path in here)
    (packages / "outer.pth").write_text(lines, encoding="utf-8")

    def run(*words: str, cwd: Path = folder, code: int = 0) -> str:
        own = {"OMP_NUM_THREADS": "1", "COLUMNS": "200", "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [str(python), *words],
            cwd=cwd,
            env={**os.environ, **own},
            capture_output=True,
            encoding="utf-8",
            timeout=300,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    built = tmp_path_factory.mktemp("sources")
    for name in DISTRIBUTIONS:
        source = built / name
        subprocess.run(["cp", "-r", str(FOLDER / name), str(source)], check=True)
        run("-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", str(source))
    return run


@pytest.mark.slow
def test_all_are_installed_and_found_with_their_version(environment: Run, tmp_path: Path) -> None:
    printed = environment("-m", "groundstate", "plugins", "list", cwd=tmp_path)
    for name in DISTRIBUTIONS:
        assert f"{name} 0.1.0" in printed
        for _, plugin in plugins_of(name):
            assert f" {plugin} " in printed


@pytest.mark.slow
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_distribution_is_shown_and_tested(name: str, environment: Run, tmp_path: Path) -> None:
    if (reason := needs_missing(name)) is not None:
        pytest.skip(reason)
    for kind, plugin in plugins_of(name):
        assert name in environment("-m", "groundstate", "plugins", "show", plugin, "--kind", kind, cwd=tmp_path)
        assert "0 failed" not in environment(
            "-m", "groundstate", "plugins", "test", plugin, "--kind", kind, cwd=tmp_path
        )
    environment("-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=FOLDER / name)


@pytest.mark.slow
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_distribution_is_trained_with_from_its_config(name: str, environment: Run, tmp_path: Path) -> None:
    if (reason := needs_missing(name)) is not None:
        pytest.skip(reason)
    config = FOLDER / name / "example.toml"
    words = [*QUICK[name], *([] if name.endswith("tensorboard") else ["tracking=false"])]
    environment("-m", "groundstate", "train", str(config), *words, cwd=tmp_path)
    (run,) = (tmp_path / "runs").iterdir()
    assert (run / "model" / "model.safetensors").is_file()
    if name.endswith("tensorboard"):
        assert list((run / "tensorboard").glob("events*"))


@pytest.mark.slow
def test_the_schema_knows_third_party_plugins(environment: Run, tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="validates against the schema: install the [test] extra")
    file = tmp_path / "schema.json"
    environment("-m", "groundstate", "schema", "--output", str(file), cwd=tmp_path)
    import json

    validator = jsonschema.Draft202012Validator(json.loads(file.read_text(encoding="utf-8")))
    for name in DISTRIBUTIONS:
        tables = tomllib.loads((FOLDER / name / "example.toml").read_text(encoding="utf-8"))
        assert [error.message for error in validator.iter_errors(tables)] == [], name
    wrong = tomllib.loads((FOLDER / "groundstate-hoyer" / "example.toml").read_text(encoding="utf-8"))
    wrong["energy"]["sparsity"]["epsilom"] = 1.0
    assert list(validator.iter_errors(wrong))
