"""One training run: data → backend → learner → hooks, with checkpoints that a kill cannot tear."""

from __future__ import annotations

import json
import logging
import math
import secrets
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np
import pluggy
import torch
from safetensors import SafetensorError
from torch import Tensor

from groundstate import provenance
from groundstate.blame import blamed, explained
from groundstate.components import Callback
from groundstate.config import LoadedConfig, assemble, config_changes, config_hash, dump_toml, load_config
from groundstate.config.tables import LearnerFields
from groundstate.data import Batch, Source
from groundstate.errors import InputError, Interrupted, OthersStopped, RunError, nearest
from groundstate.evaluate import amortisation_gap, evaluate
from groundstate.files import read_safetensors, require_writable, write_json, write_safetensors, write_text
from groundstate.history import History
from groundstate.hooks import PROJECT, RunSpec
from groundstate.learning import Learning, PhaseConfig, StepResult, check_finite
from groundstate.model import Model
from groundstate.overlap import made_ahead
from groundstate.processes import processes_of
from groundstate.stack import Layer, Stack

if TYPE_CHECKING:
    from groundstate.inference import Solution

CONFIG, RECORD, METRICS, UNCOMMITTED = "config.toml", "run.json", "metrics.jsonl", "uncommitted.diff"
CHECKPOINT, MODEL, REPORT = "checkpoint.safetensors", "model", "report.html"


ROUNDING_OF_HOST, ROUNDING_OF_CODE = ("cpu", "threads", "accelerator"), ("torch", "numpy", "groundstate")
"""What the last bits of a run depend on, beside its config and data."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Position:
    """How far a run has come: the next batch to train on. best: the monitored value so far. records: of metrics.

    phase, best, best_step: of the layer.
    """

    layer: int = 0
    phase: int = 0
    epoch: int = 0
    batch: int = 0
    step: int = 0
    seconds: float = 0.0
    best: float | None = None
    best_step: int = 0
    records: int = 0
    complete: bool = False


class Run:
    """One training run and its folder. Hooks see it; ``train`` makes and executes it.

    metrics: the last value of each metric. record: what ``run.json`` holds.
    """

    def __init__(self, loaded: LoadedConfig, folder: Path) -> None:
        self.loaded = loaded
        self.config = loaded.config
        self.folder = folder
        self.id = folder.name
        self.name: str = loaded.config.name
        self.position = Position()
        self.phase = ""
        self.metrics: dict[str, float] = {}
        self.record: dict[str, Any] = {}
        self._best: dict[str, Tensor] | None = None
        self._previous: Tensor | None = None
        self._saved = time.monotonic()
        self._began = time.monotonic()
        self._stop: str | None = None
        parts = assemble(loaded)
        self.processes = processes_of(parts.backend)
        self.history = History(folder / METRICS, kept=self.processes.first)
        self.parts = parts
        self.data = parts.data
        with blamed(self.config, "the data was loaded"):
            self.inputs = self.data.load(self.config.seed)
        self.reference = parts.reference
        self.stack = Stack((), self.inputs.train.input_shape)
        self.enter_layer()
        self.plugins = pluggy.PluginManager(PROJECT)
        self.plugins.add_hookspecs(RunSpec)
        followers: list[Callback] = [*parts.callbacks.values()]
        if parts.tracker is not None:
            followers.append(parts.tracker)
        for follower in followers:
            self.plugins.register(follower)
        # the first process alone tells the followers how the run goes; their own figures of a batch need each
        self._silent = pluggy.PluginManager(PROJECT)
        self._silent.add_hookspecs(RunSpec)
        self.hook = self.plugins.hook if self.processes.first else self._silent.hook

    @property
    def step(self) -> int:
        """Training steps done, over all phases."""
        return self.position.step

    def enter_layer(self, *, sample: bool = True) -> None:
        """Build the next layer on those that are there, and look at the data through them.

        sample: whether its components may look at the data for their start; not needed where a checkpoint follows.
        """
        self.layer = self.loaded.layers[len(self.stack)]
        parts = self.parts.layers[len(self.stack)]
        source = self.stack.source(self.inputs.train) if len(self.stack) else self.inputs.train
        rows = torch.arange(min(self.learning.sample, len(source)))
        torch.manual_seed(self.config.seed)
        with blamed(self.config, "the model was built"):
            layer = Layer.of(parts, self.parts.backend).build(
                self.stack.features_shape(self.stack.input_shape),
                classes=self.inputs.classes,
                sample=source.read(rows).x if sample and len(rows) else None,
                seed=self.config.seed,
            )
        self.stack.append(layer)
        self.model = layer.model
        self.splits = self.stack.seen_splits(self.inputs)
        self.processes.equalise(self.model)
        opened = any(phase.open for _, phase in self.phases)
        self.learner = Learning(self.model, parts.learner, self.stack if opened else None)
        self._best, self._previous = None, None
        self._check_monitor()

    @property
    def learning(self) -> LearnerFields:
        """How the layer that is trained now learns."""
        return self.layer.config.learning

    def metric(self, name: str) -> str:
        """The name under which a metric of the layer that is trained now is recorded."""
        return layered(self.layer.name, name)

    @property
    def phases(self) -> list[tuple[str, PhaseConfig]]:
        """Of the layer that is trained now."""
        return list(self.layer.config.phases.items())

    @property
    def schedule(self) -> list[tuple[str, PhaseConfig, int]]:
        """Every phase of the run, in order, by the name that it has in records, with its steps in an epoch."""
        return [
            (layered(layer.name, name), phase, self._steps_in_epoch(layer.config.learning))
            for layer in self.loaded.layers
            for name, phase in layer.config.phases.items()
        ]

    def _steps_in_epoch(self, learning: LearnerFields) -> int:
        return math.ceil(len(self.inputs.train) / learning.batch_size)

    @property
    def steps_in_epoch(self) -> int:
        """Of the layer that is trained now."""
        return self._steps_in_epoch(self.learning)

    @property
    def steps_in_all(self) -> int:
        """Steps of the whole run, for progress."""
        return sum(steps * phase.epochs for _, phase, steps in self.schedule)

    @property
    def epochs_done(self) -> int:
        """Whole epochs up to now, over all layers and phases."""
        layers = [list(layer.config.phases.values()) for layer in self.loaded.layers]
        before = [phase for layer in layers[: self.position.layer] for phase in layer]
        now = layers[self.position.layer][: self.position.phase]
        return sum(phase.epochs for phase in (*before, *now)) + self.position.epoch

    def _check_monitor(self) -> None:
        monitor = self.learning.monitor
        if monitor is None:
            return
        if self.splits.validation is None:
            raise InputError("learning.monitor needs a validation split, which this data has not")
        known = {f"validation/{name}" for name in evaluate(self.model, self.splits.validation, limit=2)}
        if monitor not in known:
            raise InputError(f"learning.monitor: no metric '{monitor}'; {nearest(monitor, known)}")

    # -- life ---------------------------------------------------------------------------------------

    def start(self, parent: Mapping[str, Any] | None = None, pruned: Mapping[str, Any] | None = None) -> None:
        """Make the folder with the config and the record; nothing was written before.

        parent: what the run is a part of, pruned: of what it is left over, for its record.
        """
        if self.processes.first:
            self.folder.mkdir(parents=True)
            write_text(self.folder / CONFIG, dump_toml(self.config))
            if (diff := provenance.uncommitted()) is not None:
                write_text(self.folder / UNCOMMITTED, diff)
        splits = self.inputs.parts()
        self.record = {
            "id": self.id,
            "name": self.name,
            "parent": dict(parent) if parent is not None else None,
            "pruned": dict(pruned) if pruned is not None else None,
            "status": "running",
            "told": False,
            "created": _now(),
            "ended": None,
            "seed": self.config.seed,
            "config_hash": config_hash(self.config),
            "command": provenance.command(),
            "launch": None if self.model.backend is None else self.model.backend.launch,
            "versions": provenance.versions(),
            "git": provenance.git_state(),
            "host": provenance.host(),
            "data": {
                "fingerprint": self.inputs.fingerprint,
                "samples": {name: len(source) for name, source in splits.items()},
                "classes": self.inputs.classes,
                "input_shape": list(self.stack.input_shape),
                "picture_shape": list(self.inputs.picture_shape) if self.inputs.picture_shape else None,
            },
            "parameters": self._parameter_shapes(),
            "metrics": {},
            "error": None,
        }
        if self.position != Position() and self.processes.first:
            self._write_checkpoint()  # before the record makes the folder a run, which could then be gone on with
        self._write_record()

    def execute(self, *, resumed: bool = False) -> None:
        """Train to the end, evaluate, save, report. Raises Interrupted or RunError with the state saved."""
        self.record |= {"status": "running", "ended": None, "error": None}
        try:
            self._write_record()
            with self._signals():
                self.hook.run_started(run=self, resumed=resumed)
                self._train()
            self._finish()
        except BaseException as error:
            self._fail(error)
            if isinstance(error, Exception) and not isinstance(error, (RunError, InputError)):
                raise RunError(f"{explained(error, self.config)}; {self._how_to_go_on()}") from error
            raise
        try:
            self.hook.run_ended(run=self)
        except Exception as error:
            raise RunError(f"{explained(error, self.config)}; the run itself is finished and saved") from error
        self.record["told"] = True
        self._write_record()

    def _train(self) -> None:
        try:
            for _ in self.steps():
                pass
        except OthersStopped as error:
            if self._stop is not None and not error.reason:
                raise self._interrupted() from error
            raise

    def _interrupted(self) -> Interrupted:
        return Interrupted(f"stopped by {self._stop} after step {self.step}; go on with --resume {self.id}")

    def _fail(self, error: BaseException) -> None:
        interrupted = isinstance(error, (Interrupted, KeyboardInterrupt))
        self.record |= {
            "status": "interrupted" if interrupted else "failed",
            "ended": _now(),
            "error": str(error) if isinstance(error, RunError | InputError) else explained(error, self.config),
        }
        for keep in (self.history.flush, lambda: self._save_what_is_whole(error), self._write_record):
            # A full disk, say, which may be the very error: each file then stays as it was.
            with suppress(OSError, SafetensorError):
                keep()
        for name, follower in self.plugins.list_name_plugin():
            others = [other for key, other in self.plugins.list_name_plugin() if key != name]
            try:
                # One at a time: a follower that fails keeps the news from no other.
                self.plugins.subset_hook_caller("run_failed", others)(run=self, error=error)
            except Exception as second:
                told = f"{type(follower).__name__} failed when it was told: {explained(second, self.config)}"
                self.record["error"] = f"{self.record['error']}; {told}"
                with suppress(OSError):
                    self._write_record()

    def _save_what_is_whole(self, error: BaseException) -> None:
        """Save the state that an unforeseen error leaves, where it is a step's end and its numbers are sound."""
        if not self.processes.first or self.learner.unsettled:
            return
        foreseen = not isinstance(error, Exception) or isinstance(error, RunError)
        left = any(isinstance(one, OthersStopped) for one in (error, error.__cause__))
        if foreseen and not left:
            return
        if all(bool(torch.isfinite(value).all()) for value in self.model.parameters()):
            self._write_checkpoint()

    def _how_to_go_on(self) -> str:
        return f"state saved up to the last checkpoint in {self.folder}; go on with --resume {self.id}"

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM end the run after the current step, with its state saved; a second one at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(number: int, frame: FrameType | None) -> None:
            if self._stop is not None:
                raise KeyboardInterrupt
            self._stop = signal.Signals(number).name

        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    # -- training -----------------------------------------------------------------------------------

    def steps(self) -> Iterator[int]:
        """Train, giving the number of each step when it is done; from the run's position to its end."""
        if self.position.complete:
            return
        last = len(self.loaded.layers) - 1
        for layer in range(self.position.layer, last + 1):
            yield from self._train_layer()
            if layer < last:
                self.learner.unsettled = True  # until the next layer has its learner
                self.settle()
                self.position = replace(self.position, layer=layer + 1, phase=0, best=None, best_step=0)
                self.enter_layer()
                self.save_checkpoint()
        self.position = replace(self.position, complete=True)
        self.save_checkpoint()

    def _train_layer(self) -> Iterator[int]:
        """The phases of the layer that is on top."""
        if self.model.solver.config.start == "previous" and self._previous is None:
            self._previous = torch.zeros(len(self.splits.train), *self.model.shapes.code_shape)
        offset = self.position.seconds
        began = time.monotonic()
        for index in range(self.position.phase, len(self.phases)):
            name, phase = self.phases[index]
            self.phase = layered(self.layer.name, name)
            self.learner.start_phase(phase)
            if (self.position.epoch, self.position.batch) == (0, 0):
                self.learner.start_average()
                self.hook.phase_started(run=self, phase=self.phase)
            for epoch in range(self.position.epoch, phase.epochs):
                yield from self._epoch(index, epoch, phase)
                reason = self._end_epoch(offset + time.monotonic() - began)
                if reason is not None:
                    break
            self.position = replace(self.position, phase=index + 1, epoch=0, batch=0)

    def settle(self) -> None:
        """Make what is kept of the layer's training its parameters: the running average, the best epoch."""
        self.learner.adopt_average()
        if self._best is not None:
            self.stack.load_state_dict(self._best)

    def _epoch(self, index: int, epoch: int, phase: PhaseConfig) -> Iterator[int]:
        config = self.learning
        source = self.inputs.train if phase.open else self.splits.train
        device, dtype, random = self.model.device, self.model.dtype, self.model.random or bool(self.learner.taken)
        place = (index, epoch) if self.position.layer == 0 else (self.position.layer, index, epoch)
        order = source.order(self._generator("order", *place, device="cpu"))
        size, batches = config.batch_size, self.steps_in_epoch
        since, logged = time.perf_counter(), self.position.step
        batch_rows = [order[first : first + size] for first in range(self.position.batch * size, len(order), size)]
        # The next batch is read while a step runs, where that takes time.
        parts = [self.processes.part(whole) for whole in batch_rows]
        reading = map(source.read, (rows for rows, _ in parts))
        stream = made_ahead(reading) if source.slow else reading
        together = zip(batch_rows, parts, stream, strict=True)
        for number, (whole, (rows, places), read) in enumerate(together, start=self.position.batch):
            batch = read.to(device, dtype)
            done = epoch + number / batches
            rate = self.learner.rate(done / phase.epochs, done)
            step = self.position.step + 1
            previous = None if self._previous is None else self._previous[rows].to(device, dtype)
            noise = self._generator("noise", step, *self.processes.own) if random else None
            share = len(places) / len(whole)
            result = self.learner.step(batch, rate=rate, generator=noise, previous=previous, share=share)
            if self._previous is not None:
                codes = self.processes.gather(result.solution.code.detach(), places, len(whole))
                self._previous[whole] = codes.cpu().to(self._previous.dtype)
            values: dict[str, float] | None = None
            if step % config.log_every == 0:
                now = time.perf_counter()
                speed = (step - logged) * size / (now - since)
                since, logged = now, step
                values = self._step_values(step, result, rate, speed, len(places))
            # The step, its codes and its figures count together: any sum above may tell that another process died.
            self.position = replace(self.position, batch=number + 1, step=step)
            self.learner.unsettled = False
            if values is not None:
                named = self._add(step, "step", values)
                self.hook.step_done(run=self, step=step, metrics=named)
            if time.monotonic() - self._saved >= config.checkpoint_seconds:
                self.save_checkpoint()
            if self._stop is not None:
                self.save_checkpoint()
                raise self._interrupted()
            yield step

    def _step_values(self, step: int, result: StepResult, rate: float, speed: float, own: int) -> dict[str, float]:
        """What the log tells of a step. own: how many of the samples are this process's."""
        check_finite(result.energies, step)
        solution = result.solution
        values = {f"energy/{name}": float(value) for name, value in result.energies.items()}
        values = {"energy": sum(values.values()), **values}
        code, iterations = solution.code.detach()[:own], solution.iterations[:own]
        sums = torch.tensor([torch.count_nonzero(code), code.numel(), iterations.sum(), own], dtype=torch.float64)
        self.processes.reduce([sums])
        active, entries, iterated, samples = sums.tolist()
        values["code/density"] = active / entries
        values["rate"] = rate
        values["samples_per_second"] = speed
        if self.model.solver.config.max_iterations:
            values["iterations"] = iterated / samples
        return values | {f"gradient/{name}": norm for name, norm in self.learner.gradient_norms().items()}

    def _end_epoch(self, seconds: float) -> str | None:
        """Evaluate and note it; why the phase ends here, where a callback says so. seconds: of training so far."""
        source = self.splits.validation
        values: dict[str, float] = {}
        with self.learner.averaged():
            if source is not None:
                values = {f"validation/{name}": value for name, value in self._evaluate(source, self.model).items()}
            self._keep_best(values)
        values |= {f"constraint/{name}": share for name, share in self.learner.constraint_activity().items()}
        named = self._add(self.step, "epoch", values)
        self.position = replace(self.position, epoch=self.position.epoch + 1, batch=0, seconds=seconds)
        self.history.flush()
        self.hook.epoch_done(run=self, step=self.step, metrics=named)
        reason: str | None = self.hook.should_stop(run=self, step=self.step, metrics=named)
        self.learner.unsettled = True  # a run that went on from here without the answer would be another
        reason = self.processes.share(reason)
        self.learner.unsettled = False
        return reason

    def _evaluate(self, source: Source, model: Model) -> dict[str, float]:
        def extra(batch: Batch, solution: Solution) -> dict[str, Tensor]:
            found = self.plugins.hook.extra_metrics(run=self, batch=batch, solution=solution)
            return {name: value for figures in found for name, value in figures.items()}

        return evaluate(model, source, seed=self.config.seed, extra=extra, processes=self.processes)

    def _keep_best(self, values: Mapping[str, float]) -> None:
        config = self.learning
        if config.monitor is None:
            return
        value, best = values[config.monitor], self.position.best
        better = best is None or (value < best if config.monitor_mode == "min" else value > best)
        if better:
            self.position = replace(self.position, best=value, best_step=self.step)
            self._best = {name: tensor.detach().clone() for name, tensor in self.stack.state_dict().items()}

    def _add(self, step: int, kind: Any, values: Mapping[str, float]) -> dict[str, float]:
        """Record metrics; in a stack each under the name of its layer. Gives them as recorded."""
        named = {self.metric(name): value for name, value in values.items()}
        self.metrics |= named
        self.history.add(step, self.phase, kind, named)
        return named

    def _generator(self, purpose: str, *position: int, device: str | None = None) -> torch.Generator:
        """Random numbers that depend on the seed and the place in the run alone, so that a resume is exact."""
        key = [self.config.seed, *purpose.encode(), *position]
        seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
        return torch.Generator(device or self.model.device).manual_seed(seed % 2**63)

    def _finish(self) -> None:
        self.settle()
        values: dict[str, float] = {}
        for depth, layer in enumerate(self.stack, start=1):
            seen = self.stack.first(depth).seen_splits(self.inputs)
            for split, source in seen.parts().items():
                if split != "train":
                    figures = self._evaluate(source, layer.model)
                    values |= {layered(layer.name, f"{split}/{name}"): value for name, value in figures.items()}
        if not self.processes.first:
            return
        if self.reference is not None:
            name, source = next(
                (name, source) for name, source in reversed(self.splits.parts().items()) if source is not None
            )
            gaps = amortisation_gap(self.model, self.reference, source, self.config.evaluation.samples)
            values |= {self.metric(f"{name}/{metric}"): value for metric, value in gaps.items()}
        for figures in self.hook.final_metrics(run=self):
            values |= figures
        values["seconds"] = self.position.seconds
        if self.learning.monitor is not None:
            values["best_step"] = self.position.best_step
        self.metrics |= values
        self.history.add(self.step, self.phase, "final", values)
        self.history.flush()
        (self.model if self.stack.plain else self.stack).save(self.folder / MODEL)
        self.record |= {"status": "finished", "ended": _now(), "metrics": values}
        self._write_record()
        if self.config.output.report:
            # a run without one needs no plotting library
            from groundstate.report import write_report

            write_report(self)

    def follow(self, followers: Sequence[object]) -> None:
        """Further objects with hooks, beside the config's callbacks and tracker."""
        for follower in followers:
            self.plugins.register(follower)

    def adopt(self, stack: Stack) -> None:
        """Take a trained stack for the run's own, e.g. to look at it."""
        self.stack = stack
        self.layer = self.loaded.layers[-1]
        self.model = stack.top.model
        self.splits = stack.seen_splits(self.inputs)

    def require_same_parameters(self) -> None:
        """Refuse a changed config whose parameters the checkpoint cannot fill."""
        before = {name: tuple(shape) for name, shape in self.record["parameters"].items()}
        after = {name: tuple(shape) for name, shape in self._parameter_shapes().items()}
        other = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        if other:
            raise InputError(
                f"{self.id} cannot go on with the changed config: {', '.join(other)} would have another shape "
                "than the checkpoint's; begin a new run"
            )

    def _parameter_shapes(self) -> dict[str, list[int]]:
        """Of all layers, whether they are entered or not."""
        stack = Stack((), self.stack.input_shape)
        found: dict[str, list[int]] = {}
        entered = list(self.stack)
        for number, loaded in enumerate(self.loaded.layers):
            if number < len(entered):
                layer = entered[number]
            else:
                layer = Layer.of(assemble(self.loaded).layers[number], None).build(
                    stack.features_shape(self.stack.input_shape), classes=self.inputs.classes
                )
            stack.append(layer)
            found |= {layered(loaded.name, name, "."): list(p.shape) for name, p in layer.model.named_parameters()}
        return found

    def note_change(self) -> None:
        """Keep the config that the run goes on with, and in the record from which step on which keys changed."""
        changes = config_changes(load_config(self.folder / CONFIG).config, self.config)
        changed = [*self.record.get("changed", ()), {"step": self.step, "keys": sorted(changes)}]
        self.record |= {"config_hash": config_hash(self.config), "changed": changed}
        if self.processes.first:
            write_text(self.folder / CONFIG, dump_toml(self.config))
        self._write_record()

    def note_machine(self) -> None:
        """Where the run goes on on what rounds differently: keep it in the record, and warn."""
        host, versions = provenance.host(), provenance.versions()
        now = {name: host[name] for name in ROUNDING_OF_HOST} | {name: versions.get(name) for name in ROUNDING_OF_CODE}
        before = {**self.record["host"], **self.record["versions"]}
        for moved in self.record.get("moved", ()):
            before |= {name: to for name, (_, to) in moved["changes"].items()}
        changes = {name: [before.get(name), value] for name, value in now.items() if before.get(name) != value}
        if changes and self.processes.first:
            said = ", ".join(f"{name} was {old} and is {new}" for name, (old, new) in changes.items())
            self.record["moved"] = [*self.record.get("moved", ()), {"step": self.step, "changes": changes}]
            logger.warning(
                "%s goes on, but no longer bit for bit as it would have uninterrupted: %s; "
                "sums are rounded in another order, all random numbers stay the same",
                self.id,
                said,
            )

    def _write_record(self) -> None:
        if self.processes.first:
            write_json(self.folder / RECORD, self.record)

    # -- checkpoints --------------------------------------------------------------------------------

    def save_checkpoint(self) -> Path:
        """Everything that a resume needs, in one file that is whole or the one before."""
        path = self.folder / CHECKPOINT
        if self.processes.first:
            self._write_checkpoint()
            self.hook.checkpoint_saved(run=self, path=path)
        return path

    def _write_checkpoint(self) -> Path:
        path = self.folder / CHECKPOINT
        tensors = self.state()
        self.history.flush()
        self.position = replace(self.position, records=self.history.count)
        write_safetensors(path, tensors, {"position": json.dumps(asdict(self.position))})
        self._saved = time.monotonic()
        return path

    def state(self) -> dict[str, Tensor]:
        """All layers' parameters and what learning keeps beside them: with the position, what a resume needs."""
        tensors = {f"model/{name}": value for name, value in self.stack.state_dict().items()}
        tensors |= {f"optimiser/{name}": value for name, value in self.learner.state().items()}
        if self._best is not None:
            tensors |= {f"best/{name}": value for name, value in self._best.items()}
        if self._previous is not None:
            tensors["previous"] = self._previous
        return tensors

    def take(self, position: Position, tensors: Mapping[str, Tensor]) -> None:
        """Stand where a run with this position and this state stood."""
        self.position = position
        while len(self.stack) <= self.position.layer:
            self.enter_layer(sample=False)
        self.stack.load_state_dict(_under(tensors, "model/"))
        self.learner.load_state(_under(tensors, "optimiser/"))
        self._best = _under(tensors, "best/") or None
        self._previous = tensors.get("previous")

    def load_checkpoint(self) -> None:
        """Go back to the last checkpoint, or to the start where there is none yet."""
        if self.processes.first:
            for name in (CONFIG, RECORD, METRICS, CHECKPOINT):
                for torn in self.folder.glob(f".{name}.*.tmp"):  # what a kill left
                    torn.unlink(missing_ok=True)
        self.restore()
        self.history.truncate(self.position.records)

    def restore(self) -> None:
        """The layers, parameters and states of the last checkpoint; nothing is written."""
        found = self.processes.share(self._read_checkpoint() if self.processes.first else None)
        if found is not None:
            self.take(*found)

    def _read_checkpoint(self) -> tuple[Position, dict[str, Tensor]] | None:
        path = self.folder / CHECKPOINT
        if not path.is_file():
            return None
        metadata, tensors = read_safetensors(path)
        return Position(**json.loads(metadata["position"])), tensors


def layered(layer: str, name: str, joint: str = "/") -> str:
    """A name with that of its layer before it; as it is where a run is one layer."""
    return f"{layer}{joint}{name}" if layer else name


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def train(
    config: LoadedConfig | Path | str | Mapping[str, Any],
    overrides: Mapping[str, Any] | list[str] | None = None,
    *,
    resume: Path | str | None = None,
    allow_changes: bool = False,
    parent: Mapping[str, Any] | None = None,
    followers: Sequence[object] = (),
) -> Run:
    """Train what a config describes and give the finished run.

    config: a TOML file, a mapping, or what ``load_config`` gave. overrides: ``{"energy.sparsity.weight": 0.1}``
    or ``["energy.sparsity.weight=0.1"]``. resume: the folder or id of a run of this config to go on with.
    allow_changes: go on although the config has changed since. parent: what the run is a part of (id, folder,
    …), kept in its record. followers: further objects with hooks, called as the config's callbacks are.
    Raises InputError before anything is written, RunError or Interrupted with the state saved.
    """
    loaded = config if isinstance(config, LoadedConfig) else load_config(config, overrides)
    backend = assemble(loaded).backend
    processes = processes_of(backend)
    with processes.stopping_together():
        launched = None if resume is not None else backend.launch
        begun = processes.share(_begun(loaded, resume, launched) if processes.first else None)
        if begun is not None:
            # a restart after the end ends once more
            over = launched is not None
            return resume_run(begun, loaded, allow_changes=allow_changes, followers=followers, over=over)
        from groundstate.check import check

        output = loaded.config.output.folder
        if processes.first:
            require_writable(output, "output.folder")
        check(loaded)
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        name = processes.share(f"{loaded.config.name}-{stamp}-{secrets.token_hex(2)}")
        run = Run(loaded, output / name)
        run.follow(followers)
        try:
            run.start(parent)
        except OSError as error:
            shutil.rmtree(run.folder, ignore_errors=True)
            raise InputError(
                f"output.folder: {run.folder} cannot be written ({error.strerror}); make room, or choose another"
            ) from error
        run.execute()
        return run


def _begun(loaded: LoadedConfig, resume: Path | str | None, launch: str | None) -> Path | None:
    """The run to go on with: the one named, or the one that this launch began before a restart."""
    if resume is not None:
        return find_run(resume, loaded)
    if launch is None:
        return None
    wanted = config_hash(loaded.config)
    for file in loaded.config.output.folder.glob(f"{loaded.config.name}-*/{RECORD}"):
        record = json.loads(file.read_text(encoding="utf-8"))
        if record.get("launch") == launch and record["config_hash"] == wanted:
            return file.parent
    return None


def resume_run(
    folder: Path,
    loaded: LoadedConfig | None = None,
    *,
    allow_changes: bool = False,
    followers: Sequence[object] = (),
    over: bool = False,
) -> Run:
    """Go on with the run in this folder from its last checkpoint, to the same parameters as uninterrupted.

    loaded: the config as it is now. Where it would give other numbers, that is an InputError which names the
    keys; with ``allow_changes`` the run goes on with it. over: let a finished run end once more.
    """
    changed = changed_config(folder, loaded, allow_changes) if loaded is not None else None
    run = open_run(folder, changed)
    with run.processes.stopping_together():
        if is_over(run.record) and not over:
            raise InputError(f"{folder.name} is finished; there is nothing to resume")
        if changed is not None:
            run.require_same_parameters()
        try:
            run.load_checkpoint()
            if changed is not None:
                run.note_change()
            run.note_machine()
        except OSError as error:
            raise InputError(f"{folder.name} cannot go on: {folder} cannot be written ({error.strerror})") from error
        run.follow(followers)
        run.execute(resumed=True)
        return run


def is_over(record: Mapping[str, Any]) -> bool:
    """Whether nothing of this run is left to do; one killed before its followers were told ends once more."""
    return record["status"] == "finished" and bool(record.get("told", True))


def changed_config(folder: Path, loaded: LoadedConfig, allow: bool) -> LoadedConfig | None:
    """The config to go on with where it is not the stored one; None where no number would change."""
    stored = load_config(folder / CONFIG).config
    if config_hash(stored) == config_hash(loaded.config):
        return None
    changes = config_changes(stored, loaded.config)
    if stored.name != loaded.config.name:
        raise InputError(
            f"{folder.name} is a run of '{stored.name}', this config is '{loaded.config.name}'; "
            "name a run of this config, or begin a new one"
        )
    if not allow:
        said = ", ".join(f"{key} was {_said(old)} and is {_said(new)}" for key, (old, new) in changes.items())
        raise InputError(
            f"{folder.name} was begun with another config: {said}; go on without the changes, "
            "with --allow-changes, or begin a new run"
        )
    return loaded


def _said(value: Any) -> str:
    return "not set" if value is None else repr(value)


def open_run(folder: Path, loaded: LoadedConfig | None = None) -> Run:
    """The run in this folder as its config describes it: data read, model built, nothing trained or written.

    loaded: instead of the stored config.
    """
    record = folder / RECORD
    if not record.is_file():
        raise InputError(f"{folder} holds no run ({RECORD} is missing)")
    run = Run(loaded if loaded is not None else load_config(folder / CONFIG), folder)
    run.record = json.loads(record.read_text(encoding="utf-8"))
    run.metrics = dict(run.record["metrics"])
    fingerprint = run.record["data"]["fingerprint"]
    if run.inputs.fingerprint != fingerprint:
        raise InputError(
            f"{folder.name} was trained on other data (its fingerprint differs); it cannot go on with this"
        )
    return run


def find_run(name: Path | str, loaded: LoadedConfig | None = None) -> Path:
    """The folder of a run: itself a folder, an id under the output folder, or ``last`` for the newest."""
    folder = Path(name)
    if (folder / RECORD).is_file():
        return folder
    output = loaded.config.output.folder if loaded is not None else Path("runs")
    runs = sorted((path.parent for path in output.glob(f"*/{RECORD}")), key=lambda path: path.stat().st_ctime)
    if str(name) == "last":
        wanted = loaded.config.name if loaded is not None else None
        ours = [run for run in runs if wanted is None or run.name.startswith(f"{wanted}-")]
        if not ours:
            raise InputError(f"there is no run to go on with in {output}")
        return ours[-1]
    found = output / str(name)
    if (found / RECORD).is_file():
        return found
    raise InputError(f"no run '{name}' in {output}; {nearest(str(name), [run.name for run in runs])}")
