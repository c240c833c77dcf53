"""A sweep that can begin: read from a config with a ``[sweep]`` table, and checked before any trial starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from groundstate.config import LoadedConfig, Overrides
from groundstate.config.layers import Layer, Merged, Origin, Provenance, read_overrides
from groundstate.config.load import SWEEP, name_of, read_layers, validate
from groundstate.errors import Fault, InputError, relative
from groundstate.sweep.space import Range, Space, SpaceReader

OVER = "over"
TRIALS = 50
"""Of a sweep that does not say how many and is no grid."""


class SweepConfig(BaseModel):
    """``[sweep]``: what to vary, how to choose, and what to make small or large."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sampler: Literal["tpe", "random", "grid"] = Field("tpe", description="how values are chosen")
    trials: int | None = Field(None, ge=1, description="how many; by default all points of a grid, else 50")
    jobs: int = Field(1, ge=1, description="trials at a time; they share the processor's cores")
    metric: str | None = Field(None, description="what decides: a metric of a run; by default learning.monitor")
    mode: Literal["min", "max"] | None = Field(
        None, description="which values are better; by default as learning.monitor_mode says of it, else min"
    )
    pruner: Literal["none", "median", "hyperband"] = Field("none", description="ends trials early that fall behind")
    prune_by: str | None = Field(None, description="the metric that the pruner looks at each epoch; by default metric")
    seed: int = Field(0, ge=0, lt=2**32, description="of the choice of values; a run's own seed is in its config")
    storage: str | None = Field(
        None, description="a database's URL, for several machines at one sweep; by default a file in its folder"
    )
    over: dict[str, Any] = Field(
        default_factory=dict, description="key of the config → list of values, or {low, high, log, step, int}"
    )


class SweepTable(BaseModel):
    """The part of a config file that is a sweep's."""

    sweep: SweepConfig = Field(default_factory=SweepConfig)


@dataclass(frozen=True)
class Plan:
    """A sweep that can begin. base: the config of one corner. epochs: of the longest trial."""

    settings: SweepConfig
    space: Space
    base: LoadedConfig
    metric: str
    mode: Literal["min", "max"]
    trials: int
    epochs: int

    @property
    def name(self) -> str:
        return self.base.config.name

    @property
    def prune_by(self) -> str:
        return self.settings.prune_by or self.metric

    def record(self) -> dict[str, Any]:
        """What decides which trials there are and which is best, as plain values."""
        over = self.space.over
        return {
            "sampler": self.settings.sampler,
            "seed": self.settings.seed,
            "metric": self.metric,
            "mode": self.mode,
            "pruner": self.settings.pruner,
            "prune_by": self.prune_by,
            "over": {key: one.model_dump() if isinstance(one, Range) else one for key, one in over.items()},
        }


def read_sweep(
    source: Path | str | Mapping[str, Any],
    overrides: Overrides | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    over: Overrides | None = None,
) -> Plan:
    """Read a config with a ``[sweep]`` table and check every corner of the search as a config of its own.

    settings: keys of ``[sweep]`` on top of the file's. over: further keys to search, by their path or as
    ``key=value`` words. InputError holds what is wrong, with file and line.
    """
    layers, registry, file = read_layers(source, overrides)
    if file is not None and SWEEP in layers[-2].values and "name" not in layers[-2].values:
        # The name that it inherits is that of the config which it varies.
        layers[-2].values["name"] = name_of(file)
    merged = Merged({}, Provenance({}, Origin("", Path.cwd())))
    for layer in layers:
        if SWEEP in layer.values:
            merged.add(Layer(layer.name, {SWEEP: layer.values.pop(SWEEP)}, layer.folder, layer.lines), {})
    merged.add(Layer("command line", {SWEEP: dict(settings or {})}, Path.cwd()), {})
    searched = read_overrides(over or ())
    merged.add(Layer(searched.name, {SWEEP: {OVER: searched.values}}, searched.folder), {})
    table = validate(SweepTable, merged, registry).sweep
    reader = SpaceReader(merged.provenance)
    found = {key: (one, place) for key, one, place in reader.read(table.over, (SWEEP, OVER))}
    faults = reader.faults
    if not found and not faults:
        where = relative(file.absolute()) if file is not None else ""
        faults.append(Fault("nothing to search: name keys in [sweep.over], or with --over KEY=[…]", where=where))
    for key, (one, place) in found.items():
        if table.sampler == "grid" and isinstance(one, Range) and not one.finite:
            faults.append(Fault("a grid needs a list of values, or a range with a step", key, place.where))
    if faults:
        raise InputError(faults)
    over_keys = {key: one for key, (one, _) in found.items()}
    places = {key: place for key, (_, place) in found.items()}
    return _plan(table, Space(over_keys, places, layers, registry, file))


def _plan(settings: SweepConfig, space: Space) -> Plan:
    configs: list[LoadedConfig] = []
    faults = {str(fault): fault for fault in space.strangers()}
    if faults:
        raise InputError(faults.values())
    for corner in space.corners():
        try:
            configs.append(space.config(corner))
        except InputError as error:
            faults |= {str(fault): fault for fault in error.faults}
    if faults:
        raise InputError(faults.values())
    learning = configs[0].layers[-1].config.learning
    metric = settings.metric or learning.monitor
    if metric is None:
        message = 'name what decides, such as "validation/energy"; learning.monitor says nothing either'
        raise InputError(Fault(message, f"{SWEEP}.metric"))
    points = len(space.grid()) if settings.sampler == "grid" else None
    trials = settings.trials or points or TRIALS
    return Plan(
        settings,
        space,
        configs[0],
        metric=metric,
        mode=settings.mode or (learning.monitor_mode if metric == learning.monitor else "min"),
        trials=trials if points is None else min(trials, points),
        epochs=max(
            sum(phase.epochs for layer in one.layers for phase in layer.config.phases.values()) for one in configs
        ),
    )
