"""Encode any number of inputs in constant memory: to one file, or to a folder of shards that a kill cannot tear."""

from __future__ import annotations

import errno
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from groundstate.components import Format
from groundstate.data import Batch
from groundstate.errors import InputError, RunError, relative
from groundstate.files import replacing, require_writable, write_json
from groundstate.formats import Formats, Inputs
from groundstate.model import Model
from groundstate.overlap import Behind, made_ahead
from groundstate.processes import Processes, processes_of
from groundstate.stack import Layer, Stack

MANIFEST = "_manifest.json"  # readers of a folder as one data set pass over names that begin so
SHARD_BYTES = 1 << 26  # of dense codes in one shard
Progress = Callable[[int, int], None]

SAID = {
    "model": "the model is another one, or has been trained since",
    "inputs": "the inputs are other ones, or have changed since",
}
"""What a manifest that does not fit means, where naming the two values tells a person nothing."""


@dataclass(frozen=True)
class Encoded:
    """What was written: ``shards`` files in or at ``output`` with codes of shape (samples, *code_shape).

    kept: codes that were there from an interrupted run before. seconds: of this run.
    """

    output: Path
    shape: tuple[int, ...]
    shards: int
    kept: int
    seconds: float


@dataclass(frozen=True)
class Shard:
    """One file of codes: those of inputs first … first + samples − 1."""

    file: str
    first: int
    samples: int


def encode(
    model: Model | Stack,
    inputs: Sequence[Path],
    output: Path,
    *,
    formats: Formats | None = None,
    batch_size: int = 1000,
    shard_rows: int | None = None,
    progress: Progress | None = None,
) -> Encoded:
    """Write the codes of all inputs, in order; memory does not grow with their number.

    inputs: files, folders or patterns (see ``formats.Inputs``). output: a file, by its suffix, or a folder of
    shards. A file appears when it is whole. A folder is gone on with when it is asked for again with the same
    model and inputs; its manifest, written whole after each shard, says what it holds. batch_size: inputs that are
    solved together. shard_rows: codes per shard, by default 64 MiB of dense ones. progress(done, samples) is called
    after each batch. Where the model's backend has several processes, each makes a shard at a time and the first keeps
    the manifest. Raises InputError before anything is written; RunError on a full disk.
    """
    stack = model if isinstance(model, Stack) else Stack([Layer(model)])
    backend = stack.top.model.backend
    processes = Processes() if backend is None else processes_of(backend)
    with processes.stopping_together():
        return _encode(stack, inputs, output, formats or Formats(), batch_size, shard_rows, progress, processes)


def _encode(
    stack: Stack,
    inputs: Sequence[Path],
    output: Path,
    formats: Formats,
    batch_size: int,
    shard_rows: int | None,
    progress: Progress | None,
    processes: Processes,
) -> Encoded:
    began = time.monotonic()
    source = Inputs(inputs, formats, stack.shapes.input_shape)
    try:
        job = _Job(stack, source, formats.writer(output), batch_size, progress, processes)
        rows = shard_rows if shard_rows is not None else max(1, SHARD_BYTES // (job.code_values * job.dtype.itemsize))
        folder = output.is_dir() or not formats.writes(output)
        kept = shards = 0
        with _disk_faults(output, resumable=folder):
            if folder:
                kept, shards = _into_folder(job, output, rows)
            else:
                _into_file(job, output, rows)
                shards = 1
    finally:
        source.close()
    return Encoded(output, (len(source), *stack.shapes.code_shape), shards, kept, time.monotonic() - began)


def _into_file(job: _Job, output: Path, rows: int) -> None:
    if job.processes.number > 1:
        raise InputError(f"{relative(output)}: several processes make a folder of shards each its own; give a folder")
    if not output.absolute().parent.is_dir():
        raise InputError(f"the folder {relative(output.absolute().parent)} does not exist")
    if len(job.inputs) > rows and not job.format.streams:
        raise InputError(
            f"{relative(output)}: one file of this format is made in memory, and {len(job.inputs):,} codes are too "
            "many; give a folder, which gets a file for each part of them"
        )
    job.write([Shard(output.name, 0, len(job.inputs))], output.absolute().parent, 0, lambda whole: None)


def _into_folder(job: _Job, folder: Path, rows: int) -> tuple[int, int]:
    """Codes that were there already, and the number of shards in all."""
    require_writable(folder, "--output")
    starts = range(0, len(job.inputs), rows)
    digits = max(5, len(str(len(starts) - 1)))
    suffix = job.format.suffixes[0]
    shards = [
        Shard(f"codes-{number:0{digits}}{suffix}", first, min(rows, len(job.inputs) - first))
        for number, first in enumerate(starts)
    ]
    manifest = job.manifest() | {"shard_rows": rows}
    # the first process alone reads the folder: it may look another way from another machine
    done = job.processes.share(_there(folder, manifest) if job.processes.first else {})
    kept = sum(shard.samples for shard in shards if shard.file in done)
    left = [shard for shard in shards if shard.file not in done]

    def record(written: Mapping[Shard, int]) -> None:
        for shard, size in written.items():
            done[shard.file] = {"file": shard.file, "first": shard.first, "samples": shard.samples, "bytes": size}
        listed = [done[one.file] for one in shards if one.file in done]
        if job.processes.first:
            complete = len(listed) == len(shards)
            write_json(folder / MANIFEST, manifest | {"complete": complete, "shards": listed})

    if left:
        if job.processes.first:
            for torn in folder.glob(".*.tmp"):  # what a kill left of an unfinished shard
                torn.unlink()
        record({})
        job.processes.share(None)  # nobody writes a shard before that
        job.write(left, folder, kept, record)
    return kept, len(shards)


def _there(folder: Path, manifest: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The shards that the folder's manifest names, by file. InputError where they are of something else."""
    path = folder / MANIFEST
    where = relative(folder.absolute())
    if not path.is_file():
        if any(not entry.name.startswith(".") for entry in folder.iterdir()):
            raise InputError(f"the folder {where} holds other files; give a new or an empty one")
        return {}
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        shards = {shard["file"]: shard for shard in before["shards"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{relative(path.absolute())} is no manifest of encode; give another folder") from error
    other = [key for key in manifest if before.get(key) != manifest[key]]
    if other:
        key = other[0]
        why = SAID.get(key, f"{key.replace('_', ' ')} was {_plain(before.get(key))} and is {_plain(manifest[key])}")
        raise InputError(f"{where} holds codes that these cannot be added to: {why}; give another folder, or remove it")
    return {
        name: shard
        for name, shard in shards.items()
        if (folder / name).is_file() and (folder / name).stat().st_size == shard["bytes"]
    }


def _plain(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


@dataclass(frozen=True)
class _Job:
    """What is encoded, how it is written, and in which blocks."""

    model: Stack
    inputs: Inputs
    format: Format
    batch_size: int
    progress: Progress | None
    processes: Processes

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float64 if self.model.dtype == torch.float64 else np.float32)

    @property
    def code_values(self) -> int:
        return int(np.prod(self.model.shapes.code_shape))

    def manifest(self) -> dict[str, Any]:
        """What has to be the same for shards to stand beside each other."""
        return {
            "model": model_digest(self.model),
            "inputs": self.inputs.digest,
            "samples": len(self.inputs),
            "format": type(self.format).__name__,
            "options": self.format.config.model_dump(mode="json"),
            "code_shape": list(self.model.shapes.code_shape),
            "dtype": self.dtype.name,
        }

    def write(
        self, shards: Sequence[Shard], folder: Path, done: int, written: Callable[[Mapping[Shard, int]], None]
    ) -> None:
        """Each process a shard at a time; ``written`` is told of those that are whole, with their bytes.

        done: inputs whose codes are there already.
        """
        several = self.processes.number
        for turn in (shards[first : first + several] for first in range(0, len(shards), several)):
            sizes = torch.zeros(len(turn), dtype=torch.int64)
            for number, shard in enumerate(turn):
                if number == self.processes.rank:
                    self._write_shard(shard, folder, done)
                    sizes[number] = (folder / shard.file).stat().st_size
            self.processes.reduce([sizes])
            done += sum(shard.samples for shard in turn)
            if several > 1 and self.progress is not None:
                self.progress(done, len(self.inputs))
            written(dict(zip(turn, sizes.tolist(), strict=True)))

    def _write_shard(self, shard: Shard, folder: Path, done: int) -> None:
        """Read, solve and write at the same time."""
        assert self.format.create is not None
        with (
            replacing(folder / shard.file) as temporary,
            closing(
                self.format.create(temporary, (shard.samples, *self.model.shapes.code_shape), self.dtype)
            ) as writer,
            Behind() as behind,
        ):
            for first, x in made_ahead(self._blocks(shard)):
                behind(writer.append, self._codes(x, first))
                done += len(x)
                if self.progress is not None:
                    self.progress(done, len(self.inputs))

    def _blocks(self, shard: Shard) -> Iterator[tuple[int, Tensor]]:
        """Blocks end with their shard, so that a shard's numbers are the same whenever it is made."""
        end = shard.first + shard.samples
        for first in range(shard.first, end, self.batch_size):
            yield first, self.inputs.read(first, min(first + self.batch_size, end), self.dtype)

    def _codes(self, x: Tensor, first: int) -> np.ndarray[Any, Any]:
        # Seeded by the block's place: an encoder that draws noise gives the same codes after an interruption.
        generator = torch.Generator(self.model.device).manual_seed(first)
        batch = Batch({"x": x}).to(self.model.device, self.model.dtype)
        with torch.no_grad():
            code: Tensor = self.model(batch.x, generator)
        return code.cpu().numpy()


def model_digest(model: Stack) -> str:
    """SHA-256 of what determines a model's codes: its parts' configs and every number in them."""
    found = hashlib.sha256(f"{model.shapes}{model.dtype}".encode())
    for layer in model:
        found.update(layer.features.encode())
        for part in (*layer.components.values(), layer.model.solver):
            found.update(f"{type(part).__qualname__}{part.config!r}".encode())
    for name, value in model.state_dict().items():
        found.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        found.update(value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


@contextmanager
def _disk_faults(output: Path, *, resumable: bool) -> Iterator[None]:
    """A full disk in one sentence that says what is kept."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
            raise
        kept = "the finished shards are kept and the same command goes on" if resumable else "nothing was kept"
        raise RunError(f"{relative(output.absolute())} cannot be written: {error.strerror}; {kept}") from error
