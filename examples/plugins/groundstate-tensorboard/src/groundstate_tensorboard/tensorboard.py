"""TensorBoard as a tracker."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from groundstate import Tracker, hookimpl


class Tensorboard(Tracker):
    """Writes metrics as TensorBoard event files into the run's folder; ``tensorboard --logdir runs`` shows them."""

    class Config(Tracker.Config):
        folder: str = Field("tensorboard", description="folder of the event files, inside the run's own")
        flush_seconds: float = Field(10.0, gt=0, description="how long events may wait in memory")

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        self.writer: Any = None

    @hookimpl
    def run_started(self, run: Any) -> None:
        # Imported here: whoever only lists the plugin need not wait for it.
        from torch.utils.tensorboard import SummaryWriter

        path = run.folder / self.config.folder
        # a resumed run may have gone further before: what it then wrote is hidden
        self.writer = SummaryWriter(
            str(path), flush_secs=round(self.config.flush_seconds) or 1, purge_step=run.step or None
        )

    @hookimpl
    def step_done(self, step: int, metrics: Mapping[str, float]) -> None:
        self._write(step, metrics)

    @hookimpl
    def epoch_done(self, step: int, metrics: Mapping[str, float]) -> None:
        self._write(step, metrics)

    def _write(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)

    @hookimpl
    def run_failed(self) -> None:
        self._close()

    @hookimpl
    def run_ended(self, run: Any) -> None:
        self._write(run.step, {name: value for name, value in run.metrics.items() if name.startswith("test/")})
        self._close()

    def _close(self) -> None:
        if self.writer is not None:
            self.writer.close()
            self.writer = None
