"""Local plugins as someone looked at them: the SHA-256 of each file, in ``plugins.lock``; ``--locked`` insists on it.

A registry.toml beside a config executes code of that folder. What is installed is trusted by whoever installed it
and is not pinned here.
"""

from __future__ import annotations

import hashlib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import tomli_w

from groundstate.errors import InputError, PluginError, relative
from groundstate.files import write_text
from groundstate.registry import REGISTRY_FILE, Registry

LOCK_FILE = "plugins.lock"
VARIABLE = "GROUNDSTATE_LOCKED"
"""Set to anything but '' or '0', it says the same as ``--locked``, to child processes too."""

HEADER = "# Written by `groundstate plugins pin`: local plugins as they were when someone looked at them.\n\n"


@dataclass(frozen=True)
class Pinned:
    """What ``pin`` wrote. files: what is pinned, missing: modules that a registry names and that are no files."""

    lock: Path
    files: tuple[Path, ...]
    missing: tuple[str, ...]


def locked() -> bool:
    """Whether local plugins must be pinned."""
    return os.environ.get(VARIABLE, "") not in ("", "0")


def lock(wanted: bool = True) -> None:
    """Insist on pins from here on, in this process and its children."""
    if wanted:
        os.environ[VARIABLE] = "1"


def pin(folder: Path) -> Pinned:
    """Write the digests of the folder's registry.toml and of every file that it names into ``plugins.lock``."""
    from groundstate.loading import local_file

    file = (folder / REGISTRY_FILE).resolve()
    if not file.is_file():
        raise InputError(f"{relative(folder.absolute())} holds no {REGISTRY_FILE}: there are no local plugins to pin")
    registry = Registry()
    registry.add_file(file)
    if registry.problems:
        raise InputError("; ".join(str(problem) for problem in registry.problems))
    found, missing = [file], []
    for entry in registry.entries():
        module = entry.path.partition(":")[0]
        named = local_file(entry, module)
        if named is None:
            missing.append(f"{entry} ({module})")
        elif named not in found:
            found.append(named)
    digests = {one.relative_to(file.parent).as_posix(): digest(one.read_bytes()) for one in found}
    target = file.with_name(LOCK_FILE)
    write_text(target, HEADER + tomli_w.dumps({"version": 1, "sha256": digests}))
    return Pinned(target, tuple(found), tuple(missing))


def digest(content: bytes) -> str:
    """SHA-256, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def require_pinned(registry: Path, file: Path, content: bytes) -> None:
    """PluginError unless the registry.toml beside which a plugin stands, and its file, are as they were pinned.

    content: the bytes that are about to be executed.
    """
    if Path(__file__).parent in registry.parents:
        return  # groundstate's own
    pins = _pins(registry.with_name(LOCK_FILE))
    for one, now in ((registry, registry.read_bytes()), (file, content)):
        before = pins.get(one.relative_to(registry.parent).as_posix())
        if before == digest(now):
            continue
        what = "is not pinned" if before is None else "was changed since it was pinned"
        raise PluginError(
            f"{relative(one)} {what}, and --locked refuses it: look at it, then run groundstate plugins pin "
            f"in {relative(registry.parent)}"
        )


def _pins(file: Path) -> Mapping[str, str]:
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PluginError(
            f"{relative(file)} cannot be read: {error}; write it anew with groundstate plugins pin"
        ) from error
    pins = tables.get("sha256")
    if tables.get("version") != 1 or not isinstance(pins, dict):
        raise PluginError(f"{relative(file)} is of another version; write it anew with groundstate plugins pin")
    return pins
