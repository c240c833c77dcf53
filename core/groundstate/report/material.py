"""What the sections of a report are made from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from groundstate.history import read_history
from groundstate.model import Model
from groundstate.report import words
from groundstate.report.observe import Observed, observe
from groundstate.report.timeline import Timeline

if TYPE_CHECKING:
    from groundstate.run import Run


@dataclass(frozen=True)
class Material:
    """A run, and what several sections need of it, each computed when it is first asked for."""

    run: Run

    @property
    def model(self) -> Model:
        return self.run.model

    @cached_property
    def observed(self) -> Observed:
        """The model on held-out samples."""
        return observe(self.model, self.run.splits, self.run.config.seed)

    @cached_property
    def timeline(self) -> Timeline:
        """The recorded metrics."""
        return Timeline.of(list(read_history(self.run.history.path)))

    @cached_property
    def metrics(self) -> dict[str, float]:
        """The final metrics, or those of the last epoch where the run did not come to its end."""
        final: dict[str, float] = self.run.record["metrics"]
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
