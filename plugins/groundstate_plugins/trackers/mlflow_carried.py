"""What a logged model takes along so that it loads elsewhere: pinned requirements, and code that no index has.

A distribution that came from an index is a requirement by its version. One installed from a checkout (an editable one,
a folder, a repository: PEP 610 tells) goes along as code, with its metadata, by which its plugins are found there.
Local plugins beside a config go along with the model.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import tomllib
from collections.abc import Iterable, Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution, version
from pathlib import Path

import tomli_w

OWN = "groundstate"
_IGNORED = shutil.ignore_patterns("__pycache__", "*.pyc")


def requirements(distributions: Iterable[str]) -> list[str]:
    """What a fresh environment needs besides the carried code, pinned to the versions in use.

    distributions: those whose plugins the model uses; groundstate is always one of them.
    """
    pinned: dict[str, str] = {}
    for name in dict.fromkeys((OWN, *distributions)):
        if not from_index(name):
            pinned |= {needed: _pin(needed) for needed in _direct_requirements(name) if needed != OWN}
        else:
            pinned[name] = _pin(name)
    return [pin for pin in pinned.values() if pin]


def from_index(name: str) -> bool:
    """Whether the distribution was installed from a package index, so that its version names its code."""
    return distribution(name).read_text("direct_url.json") is None


def _direct_requirements(name: str) -> list[str]:
    lines = [line for line in distribution(name).requires or () if "extra ==" not in line]
    return [re.split(r"[\s<>=!~;\[(]", line, maxsplit=1)[0] for line in lines]


def _pin(name: str) -> str:
    try:
        # "2.6.0+cpu" is a build of 2.6.0 that package indexes do not know by that name.
        return f"{name}=={version(name).partition('+')[0]}"
    except PackageNotFoundError:
        return ""  # not for this platform


def carry_code(distributions: Iterable[str], folder: Path) -> list[str]:
    """Copy the code of those distributions that no index has into ``folder``. Returns the paths of what is there."""
    folder.mkdir()
    for name in dict.fromkeys((OWN, *distributions)):
        if not from_index(name):
            _copy_distribution(distribution(name), folder)
    return sorted(str(path) for path in folder.iterdir())


def _copy_distribution(found: Distribution, folder: Path) -> None:
    for module in sorted({point.module.partition(".")[0] for point in found.entry_points}):
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:
            continue
        source = Path(spec.origin)
        if spec.submodule_search_locations:
            shutil.copytree(source.parent, folder / module, ignore=_IGNORED)
        else:
            shutil.copy(source, folder)
    checkout = Path(__file__).resolve().parents[3] / "registry.toml"
    if found.name == OWN and checkout.is_file():  # where a wheel has it
        shutil.copy(checkout, folder / "groundstate_plugins")
    metadata = folder / f"{found.name.replace('-', '_')}-{found.version}.dist-info"
    metadata.mkdir()
    for name in ("METADATA", "entry_points.txt", "direct_url.json"):
        (metadata / name).write_text(found.read_text(name) or "", encoding="utf-8")


def carry_model(model: Path, config: Path, target: Path) -> dict[str, str]:
    """Copy a saved model and its run's config into ``target``, with the local plugins that they name.

    Returns the paths by name: ``model``, a folder, and ``config``, a file that stands beside it.
    """
    shutil.copytree(model, target / "model")
    shutil.copy(config, target / "config.toml")
    configs = {target / "model" / "config.toml": "", target / "config.toml": "model/"}
    tables = {file: tomllib.loads(file.read_text(encoding="utf-8")) for file in configs}
    registries = sorted({name for table in tables.values() for name in table.get("plugins", ())})
    places = {name: f"plugins/{number}/registry.toml" for number, name in enumerate(registries)}
    for name, place in places.items():
        _copy_local(Path(name), (target / "model" / place).parent)
    for file, before in configs.items():
        if tables[file].get("plugins"):
            tables[file]["plugins"] = [f"{before}{places[name]}" for name in tables[file]["plugins"]]
            file.write_text(tomli_w.dumps(tables[file]), encoding="utf-8")
    return {"model": str(target / "model"), "config": str(target / "config.toml")}


def _copy_local(registry: Path, target: Path) -> None:
    target.mkdir(parents=True)
    shutil.copy(registry, target / "registry.toml")
    for module in _modules(tomllib.loads(registry.read_text(encoding="utf-8"))):
        source = registry.parent / module
        if source.is_dir():
            shutil.copytree(source, target / module, ignore=_IGNORED)
        elif source.with_suffix(".py").is_file():
            shutil.copy(source.with_suffix(".py"), target)


def _modules(tables: dict[str, object]) -> Sequence[str]:
    """The first part of every path that a registry.toml names."""
    paths = (
        entry["path"]
        for plugins in tables.values()
        if isinstance(plugins, dict)
        for entry in plugins.values()
        if isinstance(entry, dict) and isinstance(entry.get("path"), str)
    )
    return sorted({path.partition(":")[0].partition(".")[0] for path in paths})
