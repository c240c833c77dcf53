"""Which plugins there are: read from registry.toml files and entry points, imported only when used.

Nothing here imports torch, MLflow or pydantic, so that ``groundstate --help`` and ``plugins list`` answer at once.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pluggy import PluginManager

from groundstate.errors import Fault, InputError, PluginError, nearest, relative
from groundstate.hooks import PROJECT, RegisterSpec

if TYPE_CHECKING:
    from groundstate.components import Plugin

API_VERSION = 1
"""The plugin contract that this version speaks; an entry with another ``api`` is listed as broken."""

REGISTRY_FILE = "registry.toml"
TERM_KINDS = ("reconstruction", "regulariser", "task")
KINDS = (
    "encoder",
    "decoder",
    "transform",
    *TERM_KINDS,
    "solver",
    "backend",
    "data",
    "format",
    "learner",
    "tracker",
    "callback",
)
"""The keys of ``components.KINDS``, known here without importing torch."""

SYSTEM = "system"


@dataclass(frozen=True)
class Source:
    """Where a plugin was named: the built-in registry, a local file, or an installed distribution.

    distribution, version: of the installed package, None for a local file. file: the registry.toml, where
    there is one.
    """

    distribution: str | None = None
    version: str | None = None
    file: Path | None = None

    @property
    def kind(self) -> str:
        """``built-in``, ``local`` or ``distribution``."""
        if self.distribution is None:
            return "local"
        return "built-in" if self.distribution == PROJECT else "distribution"

    def __str__(self) -> str:
        if self.distribution is None:
            return relative(self.file) if self.file is not None else "this session"
        named = f"{self.distribution} {self.version}".strip()
        return f"{named} (built in)" if self.kind == "built-in" else named


@dataclass(frozen=True)
class Entry:
    """One plugin, or one published system, as a registry names it.

    path: ``package.module:Class``; of a system, its config file. default: used where a config does not say.
    broken: why it cannot be used, or None.
    """

    kind: str
    name: str
    path: str
    summary: str
    source: Source
    default: bool = False
    broken: str | None = None

    def __str__(self) -> str:
        return f"{self.kind} '{self.name}'"


@dataclass(frozen=True)
class Problem:
    """A source that could not be read, or a part of one."""

    source: Source
    reason: str

    def __str__(self) -> str:
        return f"{self.source}: {self.reason}"


class Registry:
    """All plugins that can be named, those that cannot be used among them (each with the reason)."""

    def __init__(self) -> None:
        self._found: list[Entry] = []
        self._settled: list[Entry] | None = None
        self._disabled: dict[str, Source] = {}
        self._preferred: dict[str, tuple[str, Source]] = {}
        self.problems: list[Problem] = []
        self.places: list[str] = []
        self.files: set[Path] = set()

    @classmethod
    def discover(cls, folder: Path | None = None) -> Registry:
        """Everything installed, and what a registry.toml in ``folder`` names (local plugins)."""
        registry = cls()
        for point in _entry_points():
            registry._add_entry_point(point)
        if folder is not None:
            registry.add_folder(folder)
        return registry

    def add_folder(self, folder: Path) -> None:
        """Add the local plugins that a registry.toml in this folder names, if there is one."""
        file = folder.absolute() / REGISTRY_FILE
        if file.is_file():
            self.add_file(file)
        elif (place := f"{relative(file)} (there is none)") not in self.places:
            self.places.append(place)

    def add_file(self, file: Path) -> None:
        """Add the local plugins of this registry.toml; a file that was read before is not read again."""
        # Also skips the built-in registry, which stands beside any config in the root of a checkout.
        if file.resolve() not in self.files:
            source = Source(file=file.resolve())
            self.places.append(str(source))
            Register(self, source).toml(file)

    def _add_entry_point(self, point: EntryPoint) -> None:
        distribution = point.dist
        source = Source(
            distribution.name if distribution else point.module, distribution.version if distribution else ""
        )
        self.places.append(str(source))
        # A manager each, so that one distribution that fails stops no other.
        manager = PluginManager(PROJECT)
        manager.add_hookspecs(RegisterSpec)
        try:
            manager.register(point.load(), point.name)
            manager.hook.groundstate_register(register=Register(self, source))
        except Exception as error:
            reason = f"entry point '{point.name}' failed: {type(error).__name__}: {error}"
            self.problems.append(Problem(source, reason))

    def add(self, entry: Entry) -> None:
        """Add an entry; a name that is taken makes the name unusable and says where both stand."""
        self._found.append(entry)
        self._settled = None

    def disable(self, what: str, source: Source) -> None:
        """Let no config use a plugin, ``<kind>.<name>``, or any plugin of a distribution. source: who says so."""
        self._disabled[what] = source
        self._settled = None

    def prefer(self, what: str, of: str, source: Source) -> None:
        """Where ``<kind>.<name>`` is taken twice, take that of a distribution, or the ``built-in`` or ``local`` one."""
        self._preferred[what] = (of, source)
        self._settled = None

    def _all(self) -> list[Entry]:
        """Every entry, with the reason why it cannot be used, where it cannot."""
        if self._settled is None:
            self._settled = self._without_clashes([self._enabled(entry) for entry in self._found])
        return self._settled

    def _enabled(self, entry: Entry) -> Entry:
        for what in (f"{entry.kind}.{entry.name}", entry.source.distribution):
            if what in self._disabled:
                return replace(entry, broken=f"it is disabled in {self._disabled[what]}")
        return entry

    def _without_clashes(self, entries: list[Entry]) -> list[Entry]:
        named: dict[tuple[str, str], list[Entry]] = {}
        for entry in entries:
            if entry.broken is None:
                space = TERM_KINDS[0] if entry.kind in TERM_KINDS else entry.kind
                named.setdefault((space, entry.name), []).append(entry)
        settled: dict[int, Entry] = {}
        for rivals in named.values():
            if len(rivals) > 1:
                settled |= {id(entry): replace(entry, broken=why) for entry, why in self._losers(rivals)}
        return [settled.get(id(entry), entry) for entry in entries]

    def _losers(self, rivals: list[Entry]) -> Iterator[tuple[Entry, str]]:
        """Those of one name that cannot be used, all of them unless one is preferred."""
        chosen = [entry for entry in rivals if self._prefers(entry)]
        if len(chosen) == 1:
            _, source = self._preferred[f"{chosen[0].kind}.{chosen[0].name}"]
            yield from (
                (entry, f"{source} prefers that of {chosen[0].source}") for entry in rivals if entry is not chosen[0]
            )
            return
        sources = " and ".join(f"{entry} in {entry.source}" for entry in rivals)
        reason = f"the name '{rivals[0].name}' is taken twice: {sources}; rename one, or choose one with [prefer]"
        yield from ((entry, reason) for entry in rivals)

    def _prefers(self, entry: Entry) -> bool:
        of, _ = self._preferred.get(f"{entry.kind}.{entry.name}", ("", None))
        return of in (entry.source.distribution, entry.source.kind)

    # -- looking up ---------------------------------------------------------------------------------

    def entries(self, *kinds: str) -> Iterator[Entry]:
        """The plugins of these kinds (default: of all), broken ones too, by kind and name."""
        for kind in kinds or KINDS:
            yield from sorted((entry for entry in self._all() if entry.kind == kind), key=lambda entry: entry.name)

    def systems(self) -> list[Entry]:
        """The published systems, by name."""
        return list(self.entries(SYSTEM))

    def get(self, kind: str | Iterable[str], name: str) -> Entry:
        """The entry of this name in one kind, or in any of several. InputError where it is unknown or broken."""
        kinds = (kind,) if isinstance(kind, str) else tuple(kind)
        for candidate in kinds:
            found = [entry for entry in self._all() if (entry.kind, entry.name) == (candidate, name)]
            usable = [entry for entry in found if entry.broken is None]
            if usable:
                return usable[0]
            if found:
                raise InputError(f"{found[0]} cannot be used: {found[0].broken}")
        raise InputError(self._unknown(kinds, name))

    def _unknown(self, kinds: tuple[str, ...], name: str) -> str:
        asked = kinds[0] if len(kinds) == 1 else "energy term" if set(kinds) == set(TERM_KINDS) else "plugin"
        known = [entry.name for entry in self.entries(*kinds)]
        elsewhere = [entry.kind for entry in self._all() if entry.name == name]
        hint = f"'{name}' is a {elsewhere[0]}" if elsewhere else nearest(name, known)
        looked = "; ".join(self.places) or "nowhere"
        failed = "".join(f"; not readable: {problem}" for problem in self.problems)
        return f"there is no {asked} '{name}'; {hint} (looked in: {looked}{failed})"

    def defaults(self, kind: str) -> list[Entry]:
        """The usable plugins of a kind that act where a config does not say."""
        return [entry for entry in self.entries(kind) if entry.default and entry.broken is None]

    def default(self, kind: str) -> Entry | None:
        """The plugin of a kind that a config gets where it does not say; InputError where several claim it."""
        found = self.defaults(kind)
        if len(found) > 1:
            claims = " and ".join(f"'{entry.name}' in {entry.source}" for entry in found)
            raise InputError(f"several plugins want to be the default {kind}: {claims}; choose one by its type")
        return found[0] if found else None

    def load(self, entry: Entry) -> type[Plugin]:
        """Import a plugin's class and check what it provides; PluginError names its file and line."""
        from groundstate.loading import load_class

        if entry.broken is not None:
            raise PluginError(f"{entry} cannot be used: {entry.broken}")
        return load_class(entry)

    def find(self, cls: type) -> Entry | None:
        """The usable entry that names this class, or None; imports nothing."""
        from groundstate.loading import names_class

        usable = (entry for entry in self.entries() if entry.broken is None)
        return next((entry for entry in usable if names_class(entry, cls)), None)


class Register:
    """What ``groundstate_register`` is given: names plugins for one source."""

    def __init__(self, registry: Registry, source: Source) -> None:
        self._registry = registry
        self.source = source

    def __call__(
        self, kind: str, name: str, path: str, summary: str, default: bool = False, *, api: int = API_VERSION
    ) -> None:
        """Name one plugin; path is ``package.module:Class``."""
        if kind not in KINDS:
            self._problem(f"'{kind}' is not a kind of plugin; {nearest(kind, (*KINDS, SYSTEM))}")
            return
        broken = None
        if api != API_VERSION:
            broken = f"it speaks version {api} of the plugin contract, this groundstate version {API_VERSION}"
        elif len(parts := path.split(":")) != 2 or not all(parts):
            broken = f"its path '{path}' is not of the form package.module:Class"
        self._registry.add(Entry(kind, name, path, summary, self.source, default, broken))

    def toml(self, path: Path) -> None:
        """Name everything in a registry.toml: ``[<kind>.<name>]`` tables, and ``[system.<name>]``."""
        self.source = replace(self.source, file=path.resolve())
        self._registry.files.add(path.resolve())
        try:
            tables = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            self._problem(f"{relative(path)} cannot be read: {error}")
            return
        self._rules(tables.pop("disable", []), tables.pop("prefer", {}))
        for kind, named in tables.items():
            if kind not in (*KINDS, SYSTEM):
                self._problem(f"[{kind}] is not a kind of plugin; {nearest(kind, (*KINDS, SYSTEM))}")
            elif not isinstance(named, dict):
                self._problem(f"'{kind}' holds one table per name, [{kind}.<name>]")
            else:
                for name, table in named.items():
                    self._add(kind, name, table)

    def _rules(self, disable: Any, prefer: Any) -> None:
        """What the registry.toml beside a config says of the plugins found elsewhere."""
        if (disable or prefer) and self.source.kind != "local":
            self._problem("only a registry.toml of one's own may disable or prefer plugins")
            return
        if isinstance(disable, list) and all(isinstance(what, str) for what in disable):
            for what in disable:
                self._registry.disable(what, self.source)
        else:
            self._problem("disable must be a list of '<kind>.<name>' and distributions")
        if isinstance(prefer, dict) and all(isinstance(of, str) for of in prefer.values()):
            for what, of in prefer.items():
                self._registry.prefer(what, of, self.source)
        else:
            self._problem('[prefer] must name a source for each plugin, "<kind>.<name>" = "<distribution>"')

    def _add(self, kind: str, name: str, table: Any) -> None:
        wrong = _table_fault(kind, table)
        if wrong is not None:
            self._problem(f"[{kind}.{name}] {wrong}")
        elif kind == SYSTEM:
            assert self.source.file is not None
            config = str(self.source.file.parent / table["config"])
            self._registry.add(Entry(kind, name, config, table["summary"], self.source))
        else:
            self(kind, name, **table)

    def _problem(self, reason: str) -> None:
        self._registry.problems.append(Problem(self.source, reason))


def table_fields(kind: str) -> Mapping[str, tuple[type, bool, str]]:
    """What a registry.toml says of one name: each key's type, whether it is required, and what it means."""
    if kind == SYSTEM:
        return {
            "config": (str, True, "the config file, relative to the registry.toml"),
            "summary": (str, True, "one line that says what it is"),
        }
    return {
        "path": (str, True, "package.module:Class; beside a local registry.toml, the module's file"),
        "summary": (str, True, "one line that says what it does"),
        "default": (bool, False, "used where a config does not name a plugin of this kind"),
        "api": (int, False, "the version of the plugin contract"),
    }


def _table_fault(kind: str, table: Any) -> str | None:
    if not isinstance(table, dict):
        return "must be a table"
    known = table_fields(kind)
    for key, value in table.items():
        if key not in known:
            return f"has an unknown key '{key}'; {nearest(key, known)}"
        if type(value) is not known[key][0]:
            return f"{key} must be of type {known[key][0].__name__}, not {value!r}"
    missing = [key for key, (_, required, _) in known.items() if required and key not in table]
    return f"lacks {' and '.join(missing)}" if missing else None


def _entry_points() -> list[EntryPoint]:
    """Of group ``groundstate``, the built-in one first, each once, however often its metadata is on the path."""
    found = {
        (point.dist.name if point.dist else "", point.name, point.value): point for point in entry_points(group=PROJECT)
    }
    return [found[key] for key in sorted(found, key=lambda key: (key[0] != PROJECT, key))]


def system_config(registry: Registry, reference: str) -> Path:
    """The config file of a published system, from ``groundstate:<name>``. InputError where it is unknown."""
    name = reference.partition(":")[2]
    entry = registry.get(SYSTEM, name)
    path = Path(entry.path)
    if not path.is_file():
        raise InputError(Fault(f"{entry} of {entry.source} names {path}, which does not exist"))
    return path
