"""What a plugin's class must provide, checked once when it is imported."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from groundstate.components import KINDS, Callback, Encoder, Format, Learner, Plugin, Term
from groundstate.errors import nearest
from groundstate.hooks import PROJECT, RunSpec

HOOKS = {name: method for name, method in vars(RunSpec).items() if not name.startswith("_")}

POSITIONAL = {
    "decoder": {"forward": 1, "code_shape": 1},
    "task": {"predict": 1, "probabilities": 1},
    "encoder": {"code_shape": 1, "iterates": 1},
    "transform": {"forward": 1, "output_shape": 1},
    "solver": {"init": 2, "step": 2, "refuses": 1},
    "backend": {"available": 0, "prepare": 1, "kernel": 1, "shard": 1, "reduce": 1, "share": 1, "stop": 1},
    "data": {"load": 1, "describe": 0},
    "format": {"open": 1, "create": 3},
    "learner": {"build": 1, "update": 4, "state": 0, "load_state": 1, "select": 1},
}
"""How many arguments the core gives to a kind's methods, beside self."""

FORWARD = {"encoder": "x", "decoder": "z", "transform": "x"}
"""The kinds that are called, and what with."""

BY_NAME = ("energy", "gradient", "metrics", "prox")
"""A term's methods that ask for what they need by the names of their parameters."""


def class_faults(cls: object, kind: str) -> list[str]:
    """Every way in which a class does not keep the contract of its kind, one sentence each."""
    base = KINDS[kind]
    if not inspect.isclass(cls):
        return [f"must be a class that extends groundstate.{base.__name__}, not {cls!r}"]
    if not issubclass(cls, base):
        other = f", but it is a {cls.kind}" if issubclass(cls, Plugin) and hasattr(cls, "kind") else ""
        return [f"is named as a {kind} and must extend groundstate.{base.__name__}{other}"]
    faults = list(_config_faults(cls, base))
    abstract = [name for name, _ in inspect.getmembers(cls, lambda part: getattr(part, "__isabstractmethod__", False))]
    if abstract:
        faults.append(f"does not implement {', '.join(abstract)}")
    for name, count in POSITIONAL.get(kind, {}).items():
        faults += _arity_faults(cls, name, count)
    if issubclass(cls, Term):
        faults += _term_faults(cls)
    if kind in FORWARD and cls.forward is nn.Module.forward:  # type: ignore[attr-defined]
        faults.append(f"does not implement forward({FORWARD[kind]})")
    elif issubclass(cls, Encoder):
        faults += _encoder_faults(cls)
    if kind == "backend" and not isinstance(inspect.getattr_static(cls, "available"), classmethod):
        faults.append("available must be a classmethod: it is asked before anything is made")
    if kind == "learner" and cls.build is not Learner.build and cls.update is Learner.update:  # type: ignore[attr-defined]
        faults.append("build may take parameters, so it must implement update(batch, code, weights, generator)")
    if issubclass(cls, Format):
        faults += _format_faults(cls)
    if issubclass(cls, Callback):
        faults += _callback_faults(cls)
    return faults


def _config_faults(cls: type[Plugin], base: type[Plugin]) -> Iterator[str]:
    config = cls.Config
    if not (inspect.isclass(config) and issubclass(config, base.Config)):
        yield f"its Config must extend {base.__name__}.Config"
    elif "type" in config.model_fields:
        yield "its Config may not have a field 'type': that key names the plugin"


def _parameters(cls: type, name: str) -> list[inspect.Parameter] | None:
    """The parameters of a method, without self or cls; None where it is no function of the class."""
    raw = inspect.getattr_static(cls, name, None)
    function = raw.__func__ if isinstance(raw, classmethod) else raw
    if not inspect.isfunction(function):
        return None
    return list(inspect.signature(function).parameters.values())[1:]


def _arity_faults(cls: type, name: str, count: int) -> Iterator[str]:
    parameters = _parameters(cls, name)
    if parameters is None or getattr(getattr(cls, name), "__isabstractmethod__", False):
        return
    try:
        inspect.Signature(parameters).bind(*range(count))
    except TypeError:
        shape = ", ".join(str(parameter) for parameter in parameters)
        yield f"{name}({shape}) must take {count} argument{'' if count == 1 else 's'} beside self"


def _encoder_faults(cls: type[Encoder]) -> Iterator[str]:
    parameters = _parameters(cls, "forward") or []
    required = [parameter.name for parameter in parameters[1:] if parameter.default is parameter.empty]
    beyond = [name for name in required if name != "generator"]
    if not parameters or beyond:
        yield f"forward must take x, and may ask for generator{_beyond(beyond)}"


def _beyond(names: list[str]) -> str:
    return f"; not for {', '.join(names)}" if names else ""


def _term_faults(cls: type[Term]) -> Iterator[str]:
    if getattr(cls, "energy", None) is None:
        yield "does not implement energy; its parameters name what it needs, e.g. energy(self, z)"
        return
    for name in BY_NAME:
        method: Callable[..., Any] | None = getattr(cls, name, None)
        if method is not None:
            yield from _by_name_faults(cls, name)
    if cls.prox is not None:
        given = {parameter.name for parameter in _parameters(cls, "prox") or ()}
        allowed = {"v", "step", "z", "memory", "tolerance"}
        if not {"v", "step"} <= given or not given <= allowed:
            yield f"prox must take v and step, and may ask for z, memory, tolerance{_beyond(sorted(given - allowed))}"
    if cls.dual_norm is not None:
        yield from _arity_faults(cls, "dual_norm", 1)


def _by_name_faults(cls: type[Term], name: str) -> Iterator[str]:
    parameters = _parameters(cls, name)
    if parameters is None:
        yield f"{name} must be a method"
        return
    raw = next(iter(inspect.signature(inspect.getattr_static(cls, name)).parameters), None)
    if raw != "self":
        yield f"the first parameter of {name} must be self"
    nameless = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY)
    for parameter in parameters:
        if parameter.kind in nameless:
            yield f"{name} asks for '{parameter}', but what it needs is read off its parameters' names: name them"


def _format_faults(cls: type[Format]) -> Iterator[str]:
    if cls.open is None and cls.create is None:
        yield "implements neither open nor create; it must read or write files"
    wrong = [suffix for suffix in cls.suffixes if not suffix.startswith(".") or suffix != suffix.lower()]
    if not cls.suffixes or wrong:
        yield "suffixes must name the endings of its files, lower-case with the dot, e.g. ('.npy',)"


def _callback_faults(cls: type[Callback]) -> Iterator[str]:
    for name, method in inspect.getmembers(cls, inspect.isfunction):
        marked = hasattr(method, f"{PROJECT}_impl")
        if marked and name not in HOOKS:
            yield f"{name} is marked as a hook, but there is no such hook; {nearest(name, HOOKS)}"
        elif name in HOOKS and not marked:
            yield f"{name} is a hook's name without @hookimpl, so it would never be called; mark it"
        elif marked:
            there = {parameter.name for parameter in inspect.signature(HOOKS[name]).parameters.values()}
            beyond = sorted({parameter.name for parameter in _parameters(cls, name) or ()} - there)
            if beyond:
                yield f"{name} asks for {', '.join(beyond)}; the hook gives {', '.join(sorted(there - {'self'}))}"
