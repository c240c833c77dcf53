"""Checks of every plugin, whatever its kind."""

from __future__ import annotations

import tomllib
from typing import Any

import tomli_w
from pydantic import BaseModel, ValidationError

from groundstate.components import KINDS, TERM_KINDS, Plugin
from groundstate.config.tables import table_model
from groundstate.config.write import to_toml
from groundstate.contract import class_faults
from groundstate.registry import Entry, Source
from groundstate.testing.results import Broken, check
from groundstate.testing.subject import Subject, make

EVERY = tuple(KINDS)
COMPONENTS = ("encoder", "decoder", *TERM_KINDS)
MODULES = (*COMPONENTS, "transform")
"""Everything that is built; of these, components have units of the code that can be selected."""


@check(*EVERY, says="the class provides what its kind asks for, with the arguments that it is given")
def contract(subject: Subject) -> None:
    faults = class_faults(subject.cls, subject.kind)
    if faults:
        raise Broken("; ".join(faults), shown=subject.cls.__qualname__, advice="change the class as the message says")


@check(*EVERY, says="the constructor takes the fields of Config, and refuses others")
def constructor(subject: Subject) -> None:
    plugin = make(subject)
    if not isinstance(plugin.config, subject.cls.Config):
        raise Broken(
            f"its config is a {type(plugin.config).__name__}", advice="call super().__init__(**fields) and keep config"
        )
    try:
        subject.make(a_field_that_no_plugin_has=1)
    except ValidationError:
        return
    except TypeError as error:
        raise Broken(
            f"an unknown field raises TypeError ({error})", advice="take **fields and give them to super().__init__"
        ) from error
    raise Broken(
        "a field that Config does not have is taken without a word",
        shown=f"{subject.cls.__name__}(a_field_that_no_plugin_has=1)",
        advice='let Config extend the base\'s Config, which forbids extra fields (extra="forbid")',
    )


@check(*EVERY, says="each field of Config says what it means")
def fields_described(subject: Subject) -> None:
    silent = [name for name, info in subject.cls.Config.model_fields.items() if not info.description]
    if silent:
        raise Broken(
            f"{', '.join(silent)}: no description",
            shown=f"{subject.cls.__name__}.Config",
            advice=f'{silent[0]}: … = Field(…, description="what it is, in which unit, and its range")',
        )


@check(*EVERY, says="Config → TOML → Config gives an equal one, through the schema that a run uses")
def config_round_trip(subject: Subject) -> None:
    config: BaseModel = make(subject).config
    text = tomli_w.dumps(to_toml(config))
    again = _read(subject, text)
    differing = [
        f"{name}: {getattr(config, name)!r} became {again[name]!r}"
        for name in type(config).model_fields
        if getattr(config, name) != again[name]
    ]
    if differing:
        raise Broken(
            "; ".join(differing),
            shown=f"the TOML {text.strip()!r}",
            advice="a validator must leave a value that it made as it is: keep what was written, and convert on use",
        )
    subject.cls.Config.model_json_schema()


def _read(subject: Subject, text: str) -> dict[str, Any]:
    """The constructor's arguments that a config file of this text gives, and the config they lead to."""
    cls: type[Plugin] = subject.cls
    entry = Entry(subject.kind, subject.name, f"{cls.__module__}:{cls.__qualname__}", "", Source())
    try:
        table = table_model(entry, cls).model_validate({"type": subject.name, **tomllib.loads(text)})
        remade: BaseModel = cls(**table.arguments()).config
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        raise Broken(
            f"what it writes it does not read: {'.'.join(map(str, detail['loc']))}: {detail['msg']}",
            shown=f"the TOML {text.strip()!r}",
            advice="use types that TOML can hold, and validators that accept what they give",
        ) from error
    return {name: getattr(remade, name) for name in type(remade).model_fields}
