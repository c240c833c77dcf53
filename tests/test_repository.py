"""What holds for the repository as a whole: who may import whom, and that nothing is missing from the parts."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CORE = ROOT / "core" / "groundstate"
PLUGINS = ROOT / "plugins" / "groundstate_plugins"
COMMANDS = ("setup", "demo", "test", "lint", "bench", "docs")

# A tracker, a data set, the format of a file of data: each is a plugin's business.
FORBIDDEN_IN_CORE = {"groundstate_plugins", "mlflow", "sklearn", "skimage", "PIL", "pandas"}
ALLOWED = {
    ("report", "PIL"): "the report writes its pictures as PNG; it reads none",
    ("cli", "PIL"): "restore writes its pictures; it reads them by the format plugins",
    ("few_labels.py", "sklearn"): "fits the linear classifier that features are judged by",
}

# Plugin names that are also words of the core's own vocabulary, and what the core means by them.
CORE_WORDS = {
    "none": "a table's type that stands for 'no component'",
    "cpu": "the device of torch",
    "gradient": "a method that a term may have",
    "cuda": "the device of torch",
    "auto": "the solver of groundstate.infer where the caller names none",
    "local": "where a plugin was found",
    "baseline": "the group of metrics that a report sets beside the model's own",
}

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REGISTRY = tomllib.loads((ROOT / "registry.toml").read_text(encoding="utf-8"))
ENTRIES = [(kind, name, table) for kind, named in REGISTRY.items() if kind != "system" for name, table in named.items()]
EXAMPLES = sorted((ROOT / "examples").glob("*.toml"))


def sources(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def imported(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every module that is imported anywhere in a file, inside functions too, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module, node.lineno
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from ((str(one.value), node.lineno) for one in node.args[:1] if isinstance(one, ast.Constant))


def strings(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every string literal of a file that is not a docstring, with its line."""
    documentation = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node.value, node.lineno


# -- who knows whom ---------------------------------------------------------------------------------


def test_the_core_imports_no_plugin_and_no_data_format() -> None:
    found = [
        f"{file.relative_to(ROOT)}:{line} imports {module}"
        for file in sources(CORE)
        for module, line in imported(ast.parse(file.read_text(encoding="utf-8")))
        if module.partition(".")[0] in FORBIDDEN_IN_CORE
        and (file.relative_to(CORE).parts[0], module.partition(".")[0]) not in ALLOWED
    ]
    assert found == []


def test_the_core_names_no_plugin() -> None:
    names = {name for _, name, _ in ENTRIES} - set(CORE_WORDS)
    found = [
        f"{file.relative_to(ROOT)}:{line} says '{value}'"
        for file in sources(CORE)
        for value, line in strings(ast.parse(file.read_text(encoding="utf-8")))
        if value in names
    ]
    assert found == []


def test_plugins_import_no_plugin_of_another_kind() -> None:
    found = [
        f"{file.relative_to(ROOT)}:{line} imports {module}"
        for file in sources(PLUGINS)
        for module, line in imported(ast.parse(file.read_text(encoding="utf-8")))
        if module.startswith("groundstate_plugins.")
        and (PLUGINS / module.split(".")[1]).is_dir()  # a file beside the kinds' folders is what kinds share
        and module.split(".")[1] != file.relative_to(PLUGINS).parts[0]
    ]
    assert found == []


# -- the registry -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "name", "table"), ENTRIES, ids=[f"{kind}-{name}" for kind, name, _ in ENTRIES])
def test_every_registered_plugin_has_a_file_and_a_test_that_mirrors_it(kind: str, name: str, table: dict) -> None:
    module, _, class_name = table["path"].partition(":")
    package, folder, stem = module.split(".")
    file = PLUGINS / folder / f"{stem}.py"
    assert package == PLUGINS.name
    assert file.is_file(), f"registry.toml names {table['path']}"
    tree = ast.parse(file.read_text(encoding="utf-8"))
    assert class_name in {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    mirrors = list((ROOT / "tests" / "plugins" / folder).glob(f"test_{stem}*.py"))
    assert mirrors, f"{kind} '{name}' has no test file tests/plugins/{folder}/test_{stem}.py"


def test_every_plugin_class_is_registered() -> None:
    """A class that a person might look for must be reachable by a name: no plugin file without an entry."""
    registered = {table["path"].partition(":")[0] for _, _, table in ENTRIES}
    kinds = {kind.capitalize() for kind in REGISTRY}
    unregistered = []
    for file in sources(PLUGINS):
        module = ".".join((PLUGINS.name, *file.relative_to(PLUGINS).with_suffix("").parts))
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            extends = {ast.unparse(base).partition("[")[0] for base in getattr(node, "bases", [])}
            if isinstance(node, ast.ClassDef) and extends & kinds and module not in registered:
                unregistered.append(f"{module}:{node.name}")
    assert unregistered == []


@pytest.mark.parametrize("name", REGISTRY.get("system", {}))
def test_every_published_system_is_an_example(name: str) -> None:
    assert ROOT / REGISTRY["system"][name]["config"] in EXAMPLES


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_loads(example: Path) -> None:
    from groundstate.config import load_config

    config = load_config(example).config
    assert config.name == example.stem
    assert config.phases or any(layer.phases for layer in config.layers.values())


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_says_how_it_infers_descends_and_ascends(example: Path) -> None:
    from groundstate.config import load_config

    for layer in load_config(example).layers:
        written = layer.provenance.written
        assert written(("inference", "type"))
        assert written(("learning", "type")) or written(("learning", "rate"))
        if any(table.arguments().get("learn") for table in layer.config.energy.values()):
            assert written(("learning", "ascent_rate"))


# -- what is shipped --------------------------------------------------------------------------------


def test_the_wheel_holds_the_registry_and_the_examples(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="needs hatchling to build the wheel offline: install the [test] extra")
    copy = tmp_path / "checkout"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "registry.toml"):
        shutil.copy(ROOT / name, copy)
    for name in ("core", "plugins", "examples"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")],
        cwd=copy,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {f"groundstate/{file.relative_to(CORE).as_posix()}" for file in sources(CORE)}
    wanted |= {f"groundstate_plugins/{file.relative_to(PLUGINS).as_posix()}" for file in sources(PLUGINS)}
    wanted |= {f"groundstate_plugins/examples/{file.name}" for file in EXAMPLES}
    wanted |= {"groundstate_plugins/registry.toml"}
    assert wanted - names == set()
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "docs"))]


def requirements(*lists: list[str]) -> set[str]:
    return {normal(re.split(r"[\s<>=!~;\[]", one, maxsplit=1)[0]) for asked in lists for one in asked}


def normal(distribution: str) -> str:
    """A distribution's name as registries compare it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def test_what_is_imported_is_required() -> None:
    """Nothing may come in only because a requirement requires it today."""
    required = requirements(PROJECT["dependencies"]) | {"pydantic-core"}  # pydantic pins it and documents its errors
    extras = {
        CORE / "sweep" / "study.py": requirements(PROJECT["optional-dependencies"]["sweep"]),
        **dict.fromkeys(
            sources(PLUGINS / "backends" / "native"), requirements(PROJECT["optional-dependencies"]["native"])
        ),
    }
    distributions = packages_distributions()
    own = {"groundstate", "groundstate_plugins", *sys.stdlib_module_names}
    loaded_by_pytest = CORE / "testing" / "pytest_plugin.py"
    missing = {
        f"{file.relative_to(ROOT)}:{line} imports {module}"
        for file in (*sources(CORE), *sources(PLUGINS))
        for module, line in imported(ast.parse(file.read_text(encoding="utf-8")))
        if (package := module.partition(".")[0]) not in (own | {"pytest"} if file == loaded_by_pytest else own)
        and not {normal(name) for name in distributions.get(package, [])} & (required | extras.get(file, set()))
    }
    assert missing == set()


def test_every_requirement_is_pinned() -> None:
    names = requirements(PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    pins = re.findall(r"^([\w.-]+)==\S+$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert names - set(pins) == set()
    assert len(pins) == len(set(pins))


def test_the_makefile_has_the_words_that_the_documentation_uses() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^(\w+):", makefile, re.MULTILINE))
    assert set(COMMANDS) <= targets
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))):
        said = re.findall(r"^[$` ]*make ([a-z]+)\b", "\n".join(code_of(page.read_text(encoding="utf-8"))), re.MULTILINE)
        assert set(said) <= targets, page.name


def code_of(text: str) -> list[str]:
    """What a page sets in code: its fenced blocks and its spans."""
    return re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL)


def test_the_ci_runs_what_a_person_runs() -> None:
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    assert re.findall(r"run: (.*)", workflow) == ["make test", "make lint"]
    own = ROOT / ".ci" / "run"
    assert os.access(own, os.X_OK)
    assert own.read_text(encoding="utf-8").splitlines()[-1] == "exec make test"


def test_the_version_is_the_same_everywhere() -> None:
    version = PROJECT["version"]
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


# -- start-up ---------------------------------------------------------------------------------------


CLI = (sys.executable, "-c", "from groundstate.cli import main; raise SystemExit(main())")


def run_cli(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [CLI[0], "-X", "importtime", *CLI[1:], *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("arguments", [("--help",), ("plugins", "list")], ids=" ".join)
def test_the_command_line_answers_without_heavy_imports(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = run_cli(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    modules = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "groundstate" in modules
    assert modules & {"torch", "mlflow", "sklearn", "numpy", "matplotlib"} == set()


def test_the_package_itself_imports_nothing_heavy(tmp_path: Path) -> None:
    code = "import sys, groundstate; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    modules = set(done.stdout.split())
    assert "groundstate" in modules
    assert modules & {"torch", "mlflow", "sklearn", "numpy", "matplotlib"} == set()


@pytest.mark.parametrize("arguments", [("--help",), ("plugins", "list")], ids=" ".join)
def test_the_command_line_answers_at_once(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """The benchmark holds the figure (0.4 s); this bound only catches an import that should not be there."""
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        done = subprocess.run([*CLI, *arguments], cwd=tmp_path, capture_output=True, timeout=60)
        seconds.append(time.perf_counter() - began)
        assert done.returncode == 0
    assert min(seconds) <= 1.0
