"""What a run does with other processes: take a part of each batch, and sum over all of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from groundstate.components import Backend
from groundstate.errors import GroundstateError, InputError, Interrupted, OthersStopped

T = TypeVar("T")


class Processes:
    """A backend's processes; without a backend, this one alone."""

    def __init__(self, backend: Backend | None = None) -> None:
        several = backend is not None and backend.world > 1
        self.backend = backend if several else None
        self.number, self.rank = (1, 0) if self.backend is None else (self.backend.world, self.backend.rank)
        self.first = self.rank == 0  # the one that writes, tracks and reports

    def part(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """This process's rows of a batch, and where they stand in it, both (m,).

        Where there are fewer rows than processes, one without a row of its own is given the first, which stands
        nowhere: it computes what all compute, and it does not count.
        """
        places = torch.arange(len(rows))
        if self.backend is None:
            return rows, places
        places = self.backend.shard(places)
        return rows[places] if len(places) else rows[:1], places

    def reduce(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor, in place, by its sum over the processes."""
        if self.backend is not None:
            self.backend.reduce(tensors)

    def gather(self, values: Tensor, places: Tensor, size: int) -> Tensor:
        """The whole batch's values, (size, …), from each process's own; places: where they stand."""
        if self.backend is None:
            return values
        whole = values.new_zeros(size, *values.shape[1:])
        whole[places.to(values.device)] = values[: len(places)]
        self.backend.reduce([whole])
        return whole

    def together(self, values: Tensor) -> Tensor:
        """The rows of all processes, (m, …) → (sum of all m, …): the first process's, then the second's and so on.

        That is the order of a batch's rows where ``shard`` gives consecutive ones.
        """
        if self.backend is None:
            return values
        counts = torch.zeros(self.number, dtype=torch.int64)
        counts[self.rank] = len(values)
        self.backend.reduce([counts])
        before, size = int(counts[: self.rank].sum()), int(counts.sum())
        return self.gather(values, torch.arange(before, before + len(values)), size)

    @property
    def own(self) -> tuple[int, ...]:
        """What a seed needs beside the place in the run, so that no two processes draw the same noise."""
        return () if self.first else (self.rank,)

    def share(self, value: T) -> T:
        """The first process's value."""
        return value if self.backend is None else self.backend.share(value)

    @torch.no_grad()
    def equalise(self, module: nn.Module) -> None:
        """Give every process the first one's parameters and buffers: machines differ in the last bit."""
        if self.backend is not None:
            state = [value for value in module.state_dict().values() if value.is_floating_point()]
            if not self.first:
                for value in state:
                    value.zero_()
            self.backend.reduce(state)

    @contextmanager
    def stopping_together(self) -> Iterator[None]:
        """An error in one process ends all of them; the first one alone tells it."""
        try:
            yield
        except GroundstateError as error:
            if self.backend is not None:
                if not isinstance(error, OthersStopped):
                    self.backend.stop("" if isinstance(error, Interrupted) else str(error))
                error.told = not self.first
            raise


def first_here() -> bool:
    """Whether this process speaks for those that the same launcher started on this machine.

    For what each of them finds before it meets the others, as a fault in the config. LOCAL_RANK and WORLD_SIZE are what
    launchers set.
    """
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("LOCAL_RANK", "0") == "0"


def processes_of(backend: Backend) -> Processes:
    """The processes of a backend that can be used here; InputError with its reason where it cannot."""
    found = type(backend).available()
    if not found.available:
        raise InputError(f"backend: {found.reason}")
    return Processes(backend)
