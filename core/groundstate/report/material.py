"""What the sections of a report are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from groundstate.history import Record, read_history
from groundstate.model import Model
from groundstate.report import words
from groundstate.report.observe import Observed, observe
from groundstate.report.timeline import Timeline

if TYPE_CHECKING:
    from groundstate.config import LayerConfig
    from groundstate.data import Splits
    from groundstate.run import Run


@dataclass(frozen=True)
class Material:
    """One layer of a run, and what several sections need of it, each computed when it is first asked for.

    depth: the layers below it. Names of metrics and phases are as they are where a run is one layer.
    """

    run: Run
    depth: int = 0

    @property
    def name(self) -> str:
        """The layer's name; empty where the run is one layer."""
        return self.run.loaded.layers[self.depth].name

    @property
    def config(self) -> LayerConfig:
        return self.run.loaded.layers[self.depth].config

    @property
    def model(self) -> Model:
        return list(self.run.stack)[self.depth].model

    @cached_property
    def splits(self) -> Splits:
        """The data as the layer's model sees it."""
        return self.run.stack.first(self.depth + 1).seen_splits(self.run.inputs)

    @cached_property
    def observed(self) -> Observed:
        """The model on held-out samples."""
        return observe(self.model, self.splits, self.run.config.seed)

    @cached_property
    def timeline(self) -> Timeline:
        """The recorded metrics."""
        return Timeline.of([own for record in read_history(self.run.history.path) if (own := self._own(record))])

    def _own(self, record: Record) -> Record | None:
        """A record with the layer's metrics alone, by their own names; None where it is another layer's."""
        if not self.name:
            return record
        prefix = f"{self.name}/"
        values = self._own_values(record.values)
        return replace(record, phase=record.phase.removeprefix(prefix), values=values) if values else None

    def _own_values(self, values: Mapping[str, float]) -> dict[str, float]:
        prefix = f"{self.name}/" if self.name else ""
        return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}

    @cached_property
    def metrics(self) -> dict[str, float]:
        """The final metrics, or those of the last epoch where the run did not come to its end."""
        final: dict[str, float] = self._own_values(self.run.record["metrics"])
        if final:
            return final
        epochs = [record.values for record in self.timeline.records if record.kind == "epoch"]
        return dict(epochs[-1]) if epochs else {}


_TEMPLATES = Environment(
    loader=PackageLoader("groundstate.report"),
    autoescape=select_autoescape(("html.j2",)),
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=StrictUndefined,
)
_TEMPLATES.filters |= {
    "number": words.number,
    "percent": words.percent,
    "seconds": words.seconds,
    "count": words.count,
}


def render(template: str, **values: Any) -> Markup:
    """Fill ``templates/<template>.html.j2``; every value is escaped unless it is Markup."""
    return Markup(_TEMPLATES.get_template(f"{template}.html.j2").render(values))
