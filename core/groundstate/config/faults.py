"""What is wrong in a config, as sentences with file and line: from pydantic's errors, and across tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from torch import nn

from groundstate.components import Term, needs
from groundstate.config.fields import place
from groundstate.config.layers import Provenance
from groundstate.config.locate import KeyPath
from groundstate.config.models import DEFAULT_KINDS, LAYER_KEYS, REQUIRED, RunConfig
from groundstate.config.tables import PLUGIN_FAULT, Slot
from groundstate.errors import Fault, InputError, PluginError, nearest
from groundstate.registry import TERM_KINDS, Registry

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")
"""Names of terms, phases and callbacks: they stand in parameters' and metrics' names."""

FROM_DECODER = ("decoded", "decode")


def validation_faults(
    error: ValidationError,
    model: type[BaseModel],
    values: Mapping[str, Any],
    provenance: Provenance,
    registry: Registry,
) -> list[Fault]:
    """pydantic's errors in our words, each at its file and line; one per key."""
    messages: dict[KeyPath, list[str]] = {}
    for detail in error.errors(include_url=False):
        path = _key_path(detail["loc"], values, detail["type"])
        found = place(model, values, path, registry)
        about = (found.info.description or "") if found.info is not None else ""
        match detail["type"]:
            case "extra_forbidden":
                message = f"unknown key; {nearest(str(path[-1]), found.known)}"
            case "missing":
                message = f"is required: {about}" if about else "is required"
            case kind if kind == PLUGIN_FAULT:
                message = detail["msg"]
            case _:
                message = _sentence(detail["input"], detail["msg"], about)
        messages.setdefault(path, []).append(message)
    return [provenance.fault(path, _joined(several)) for path, several in messages.items()]


def _key_path(loc: tuple[int | str, ...], values: Any, kind: str) -> KeyPath:
    """pydantic's location without what names alternatives of a union or validators."""
    path: KeyPath = ()
    for number, key in enumerate(loc):
        last = number == len(loc) - 1
        if (isinstance(values, Mapping) and key in values) or (
            isinstance(values, list) and isinstance(key, int) and key < len(values)
        ):
            path, values = (*path, key), values[key]  # type: ignore[index]
        elif last and (kind in ("missing", "extra_forbidden") or key == "type"):
            path = (*path, key)
        elif not path and number == 0:
            path = (key,)  # a default of the registry that no file wrote
    return path


def _sentence(value: Any, message: str, about: str) -> str:
    message = message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    message = re.sub(r"^Input should (be )?", "must be " if "should be" in message else "must ", message)
    shown = f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else repr(value)
    shown = shown if len(shown) <= 60 else f"{shown[:57]}…"
    what = message[0].lower() + message[1:] if message[:2] != message[:2].upper() else message
    if isinstance(value, Mapping):
        return what  # of a whole table: what a plugin says of its options together
    return f"is {shown}; {what}" + (f" ({about})" if about else "")


def _joined(messages: list[str]) -> str:
    """Messages of one key; those of a union's alternatives share value and description."""
    if len(messages) == 1:
        return messages[0]
    heads = {message.partition("; ")[0] for message in messages}
    if len(heads) > 1:
        return "; ".join(messages)
    (head,) = heads
    tails = [message.partition("; ")[2] for message in messages]
    return f"{head}; " + ", or ".join([*(tail.partition(" (")[0] for tail in tails[:-1]), tails[-1]])


# -- across tables ----------------------------------------------------------------------------------


def cross_faults(values: Mapping[str, Any], provenance: Provenance, registry: Registry) -> list[Fault]:
    """What no single table can tell, for a run or any other table with model, energy and phases.

    Works on unvalidated values, so that these faults come together with those of single keys.
    """
    faults: list[Fault] = []
    for key, what in (("callbacks", "callback"), ("layers", "layer")):
        tables = values.get(key)
        if isinstance(tables, dict):
            faults += _name_faults(key, tables, what, provenance)
    layers = values.get("layers")
    if not isinstance(layers, dict) or not layers:
        phases = values.get("phases")
        if isinstance(phases, dict) and not phases:
            faults.append(provenance.fault(("phases",), "has no phases; add [phases.<name>] with epochs"))
        return faults + _layer_faults(values, provenance, registry)
    for name, layer in layers.items():
        if isinstance(layer, dict):
            faults += _layer_faults(layer, provenance.inside("layers", name), registry)
    for key in LAYER_KEYS:
        if key in values:
            message = "stands beside [layers]; in a stack each layer has its own: put it into [layers.<name>]"
            faults.append(provenance.fault((key,), message))
    return faults


def required_faults(values: Mapping[str, Any], provenance: Provenance, registry: Registry) -> Iterator[Fault]:
    """What a run must say where it has no layers."""
    if values.get("layers"):
        return
    for key in REQUIRED:
        default = DEFAULT_KINDS.get(key)
        if key not in values and not (default and registry.defaults(default)):
            about = RunConfig.model_fields[key].description
            yield provenance.fault((key,), f"is required: {about}")


def _layer_faults(values: Mapping[str, Any], provenance: Provenance, registry: Registry) -> list[Fault]:
    """Of one layer, or of a run that is one."""
    energy, phases = values.get("energy"), values.get("phases")
    faults: list[Fault] = []
    for key, tables, what in (("energy", energy, "term"), ("phases", phases, "phase")):
        if isinstance(tables, dict):
            faults += _name_faults(key, tables, what, provenance)
    if isinstance(energy, dict):
        if not energy:
            faults.append(provenance.fault(("energy",), "has no terms; add [energy.<name>] with a type"))
        faults += _need_faults(values, energy, provenance, registry)
        if isinstance(phases, dict):
            for name, phase in phases.items():
                if isinstance(phase, dict):
                    faults += _phase_faults(("phases", name), phase, energy, provenance)
    return faults


def _name_faults(key: str, tables: Mapping[str, Any], what: str, provenance: Provenance) -> Iterator[Fault]:
    for name, value in tables.items():
        if not isinstance(value, dict):
            if value is not None:
                yield provenance.fault((key, name), f"must be a table: each {what} has its own, [{key}.<name>]")
        elif NAME.fullmatch(name) is None:
            yield provenance.fault((key, name), f"names of a {what} have letters, digits, '_' and '-' only")
        elif key == "energy" and hasattr(nn.ModuleDict(), name):
            yield provenance.fault(
                (key, name), f"'{name}' cannot name a term: it is an attribute of the container of terms; rename it"
            )


def _need_faults(
    values: Mapping[str, Any], energy: Mapping[str, Any], provenance: Provenance, registry: Registry
) -> Iterator[Fault]:
    """Terms that ask for what the model's tables do not make."""
    model = values.get("model")
    model = model if isinstance(model, dict) else {}
    for name, table in energy.items():
        plugin = _term_class(table, registry)
        if plugin is None:
            continue
        wants = needs(plugin.energy)
        asked = [need for need in FROM_DECODER if need in wants]
        if asked and model.get("decoder") is None:
            yield provenance.fault(
                ("energy", name), f"the term asks for '{asked[0]}', but there is no decoder; add [model.decoder]"
            )
        if "prediction" in wants and model.get("encoder") is None:
            yield provenance.fault(
                ("energy", name), "the term asks for 'prediction', but there is no encoder; add [model.encoder]"
            )


def _term_class(table: Any, registry: Registry) -> type[Term] | None:
    try:
        model = Slot(TERM_KINDS).model(table, registry)
    except (InputError, PluginError):
        return None  # the validation of that table reports it
    return model.plugin if model is not None and issubclass(model.plugin, Term) else None


def _phase_faults(
    path: KeyPath, phase: Mapping[str, Any], energy: Mapping[str, Any], provenance: Provenance
) -> Iterator[Fault]:
    terms, weights = phase.get("terms"), phase.get("weights")
    acting = terms if isinstance(terms, list) else list(energy)
    for number, name in enumerate(terms if isinstance(terms, list) else ()):
        if isinstance(name, str) and name not in energy:
            yield provenance.fault((*path, "terms", number), _no_term(name, energy))
    if isinstance(terms, list) and not terms:
        yield provenance.fault((*path, "terms"), "names no term; leave it out for all of them")
    for name in weights if isinstance(weights, dict) else ():
        if name not in energy:
            yield provenance.fault((*path, "weights", name), _no_term(name, energy))
        elif name not in acting:
            yield provenance.fault(
                (*path, "weights", name), f"'{name}' does not act in this phase; add it to its terms"
            )


def _no_term(name: str, energy: Iterable[str]) -> str:
    return f"there is no energy term '{name}'; {nearest(name, energy)}"
