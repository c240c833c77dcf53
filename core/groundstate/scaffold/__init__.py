"""``plugins new``: the smallest working plugin of a kind, with its test and the line that names it."""

from __future__ import annotations

import importlib.util
import keyword
import re
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import jinja2

from groundstate.errors import InputError, nearest, relative
from groundstate.files import write_text
from groundstate.registry import KINDS, REGISTRY_FILE, TERM_KINDS, Registry

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
SUMMARIES: Mapping[str, str] = {
    "encoder": "A rectified linear encoder",
    "decoder": "A dictionary of bounded columns",
    "transform": "Each input divided by its norm",
    "reconstruction": "A squared error that forgives outliers",
    "regulariser": "Σ log(1 + (z/s)²), sparse codes without a kink",
    "task": "Squared hinge loss of the label given the code",
    "solver": "Proximal gradient descent",
    "backend": "PyTorch on the processor, with a set number of threads",
    "data": "Points on two rings",
    "format": "Numbers in lines of text",
    "learner": "The dictionary by the method of optimal directions",
    "tracker": "A line per epoch in a text file",
    "callback": "Ends a phase when the validation energy stops falling",
}
"""What each template does; the author changes it with the class."""


@dataclass(frozen=True)
class Scaffold:
    """A plugin about to be written: its names, and its files with their texts."""

    kind: str
    name: str

    @property
    def module(self) -> str:
        return self.name.replace("-", "_")

    @property
    def cls(self) -> str:
        return "".join(part.capitalize() for part in self.name.split("-"))

    @property
    def distribution(self) -> str:
        return f"groundstate-{self.name}"

    @property
    def package(self) -> str:
        return f"groundstate_{self.module}"

    def render(self, template: str, **more: str) -> str:
        """One template's text."""
        loader = jinja2.PackageLoader("groundstate.scaffold", "templates")
        environment = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
        names = {
            "kind": self.kind,
            "name": self.name,
            "module": self.module,
            "cls": self.cls,
            "distribution": self.distribution,
            "package": self.package,
            "summary": SUMMARIES[self.kind],
            "version": version("groundstate"),
        }
        return environment.get_template(template).render(names | more)

    def files(self) -> dict[str, str]:
        """The plugin beside a config: its module, its test, its entry in the registry.toml."""
        return {
            f"{self.module}.py": self.render(f"kinds/{self.kind}.py.j2"),
            f"test_{self.module}.py": self.render("test.py.j2"),
            REGISTRY_FILE: self.render("registry.toml.j2"),
        }

    def package_files(self) -> dict[str, str]:
        """The plugin as a distribution of its own, in a folder of its name."""
        source, top = f"{self.distribution}/src/{self.package}", self.distribution
        return {
            f"{top}/pyproject.toml": self.render("package/pyproject.toml.j2"),
            f"{top}/README.md": self.render("package/README.md.j2"),
            f"{top}/.github/workflows/ci.yml": self.render("package/ci.yml.j2"),
            f"{source}/__init__.py": self.render("package/init.py.j2"),
            f"{source}/{self.module}.py": self.render(f"kinds/{self.kind}.py.j2"),
            f"{source}/{REGISTRY_FILE}": self.render("registry.toml.j2", module=f"{self.package}.{self.module}"),
            f"{top}/tests/test_{self.module}.py": self.render("package/test.py.j2"),
        }


def new_plugin(kind: str, name: str, folder: Path, *, package: bool = False) -> list[Path]:
    """Write a working plugin into ``folder`` and give its files; InputError, and nothing written, where it cannot be.

    kind: as in a registry.toml. name: lower-case words joined by hyphens. package: as a distribution of its own
    that pip installs, in ``folder/groundstate-<name>``.
    """
    if kind not in KINDS:
        raise InputError(f"'{kind}' is not a kind of plugin; {nearest(kind, KINDS)}")
    _require_name(kind, name, folder)
    made = Scaffold(kind, name)
    files = {folder / path: text for path, text in (made.package_files() if package else made.files()).items()}
    taken = folder / made.distribution if package else None
    registry = folder / REGISTRY_FILE
    for path in files:
        if path.exists() and path != registry:
            raise InputError(f"{relative((taken or path).absolute())} is there already; choose another name or folder")
    if not package:
        files[registry] = _added(registry, files[registry], kind, name)
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    return list(files)


def _require_name(kind: str, name: str, folder: Path) -> None:
    if NAME.fullmatch(name) is None or keyword.iskeyword(name):
        raise InputError(f"'{name}' cannot name a plugin: lower-case words joined by hyphens can, e.g. 'smooth-l1'")
    module = name.replace("-", "_")
    if module in sys.stdlib_module_names or _installed(module):
        raise InputError(f"'{name}' cannot name a plugin: its file {module}.py would hide the module '{module}'")
    kinds = TERM_KINDS if kind in TERM_KINDS else (kind,)
    for entry in Registry.discover(folder).entries(*kinds):
        if entry.name == name:
            raise InputError(f"the name '{name}' is taken by {entry} of {entry.source}; choose another")


def _installed(module: str) -> bool:
    """Whether a module of this name is installed, not just a file in the working directory."""
    found = importlib.util.find_spec(module)
    if found is None:
        return False
    return found.origin is None or Path(found.origin).parent != Path.cwd()


def _added(registry: Path, text: str, kind: str, name: str) -> str:
    """The registry.toml with one more entry at its end."""
    if not registry.is_file():
        return text
    before = registry.read_text(encoding="utf-8")
    try:
        tables = tomllib.loads(before)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{relative(registry.absolute())} cannot be read: {error}; mend it first") from error
    if name in tables.get(kind, {}):
        raise InputError(f"{relative(registry.absolute())} names a {kind} '{name}' already; choose another name")
    return f"{before.rstrip()}\n\n{text}" if before.strip() else text
