"""Several processes on one model, started by torchrun: over cores, GPUs and machines."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Literal, TypeVar

import torch
import torch.distributed as dist
from pydantic import Field
from torch import Tensor, nn

from groundstate.components import Availability, Backend
from groundstate.errors import Fault, InputError, OthersStopped

T = TypeVar("T")

REASON = "groundstate/reason"
"""The store's key for what a process says when it stops the others."""


class Torchrun(Backend):
    """Data-parallel: each process has its rows of a batch, and gradients and sums are added up over all of them.

    ``torchrun`` starts the processes and tells each its number through environment variables. Started without it,
    a process is alone and this is the ``cpu`` or ``cuda`` backend.
    """

    class Config(Backend.Config):
        device: Literal["cpu", "cuda"] = Field("cpu", description="one processor core or more, or one GPU, per process")
        threads: int = Field(1, ge=1, description="threads of one operation in each process")
        timeout: float = Field(600, gt=0, description="seconds that a process waits for the others")

    @classmethod
    def available(cls) -> Availability:
        if not dist.is_available():
            return Availability(False, f"PyTorch {torch.__version__} is built without torch.distributed")
        alone = "a process alone: torchrun has not started it"
        return Availability(True, f"process {_number('RANK', 0)} of {_world()}" if _world() > 1 else alone)

    @property
    def device(self) -> torch.device:
        if self.config.device == "cpu":
            return torch.device("cpu")
        return torch.device("cuda", _number("LOCAL_RANK", 0))

    def prepare(self, module: nn.Module) -> nn.Module:
        """Set the threads of this process, and move the module to its device."""
        torch.set_num_threads(self.config.threads)
        if self.config.device == "cuda":
            count = torch.cuda.device_count()
            if self.device.index >= count:
                there = f"process {self.device.index} of this machine has no GPU: it has {count}"
                raise InputError(Fault(f"{there}; start at most {count} processes here", key="backend.device"))
            torch.cuda.set_device(self.device)
        return super().prepare(module)

    # -- several processes --------------------------------------------------------------------------

    @property
    def rank(self) -> int:
        return _number("RANK", 0)

    @property
    def world(self) -> int:
        return _world()

    @property
    def launch(self) -> str | None:
        """torchrun's ``--rdzv-id``; without one its process, which is this one's parent and outlives a restart."""
        name = os.environ.get("TORCHELASTIC_RUN_ID")
        if name in (None, "none"):
            return None if name is None else f"{os.environ.get('MASTER_ADDR', '')}-{os.getppid()}-{_began()}"
        return name

    def reduce(self, tensors: Sequence[Tensor]) -> None:
        """One message for all tensors of a kind."""
        if self.world == 1 or not tensors:
            return
        kinds: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
        for tensor in tensors:
            kinds.setdefault((tensor.dtype, tensor.device), []).append(tensor)
        with self._together():
            for members in kinds.values():
                flat = torch.cat([member.detach().flatten() for member in members])
                dist.all_reduce(flat)
                parts = flat.split([member.numel() for member in members])
                for member, part in zip(members, parts, strict=True):
                    member.detach().copy_(part.view_as(member))

    def share(self, value: T) -> T:
        if self.world == 1:
            return value
        box = [value if self.rank == 0 else None]
        with self._together():
            dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        shared: T = box[0]  # type: ignore[assignment]
        return shared

    def stop(self, reason: str) -> None:
        """Leave the reason where the others find it, and the group, so that they look for it."""
        if self.world > 1 and dist.is_initialized():
            store = _joined[0]
            if reason and not store.check([REASON]):
                store.set(REASON, reason if self.rank == 0 else f"process {self.rank} of {self.world}: {reason}")
            dist.destroy_process_group()
            _joined.clear()

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Join the group at the first message; a message that does not come says that another process stopped."""
        try:
            if not _joined:
                _joined.append(_join(self.config.timeout))
            yield
        except (RuntimeError, ValueError) as error:
            raise OthersStopped(self._reason(), str(error).partition("\n")[0]) from error

    def _reason(self) -> str:
        try:
            # it is left before the connection breaks
            return _joined[0].get(REASON).decode() if _joined and _joined[0].check([REASON]) else ""
        except RuntimeError:
            return ""


_joined: list[dist.Store] = []
"""The store of this process's group, once it has joined."""


def _join(timeout: float) -> dist.Store:
    """Meet the others where torchrun says, and give the store that all of them reach."""
    limit = timedelta(seconds=timeout)
    store, rank, world = next(iter(dist.rendezvous("env://", timeout=limit)))
    store.set_timeout(limit)
    store = dist.PrefixStore(_meeting(store, rank, world, timeout), store)
    kinds = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(kinds, store=store, rank=rank, world_size=world, timeout=limit)
    return store


def _meeting(store: dist.Store, rank: int, world: int, timeout: float) -> str:
    """A name that these processes alone know, under which they leave each other messages in the store.

    torchrun keeps one store over all restarts, where a process that is started again would find the addresses of the
    dead. No variable tells the restarts apart: the count of them goes up only on the machine whose process failed. So
    each process asks under a name of its own until the first one answers; what others asked before does not matter.
    """
    if rank > 0:
        own = uuid.uuid4().hex
        store.set(f"groundstate/asked/{rank}", own)
        meeting = store.get(f"groundstate/answered/{own}").decode()
        store.set(f"{meeting}/{rank}", "")
        return meeting
    meeting = f"groundstate/{uuid.uuid4().hex}"
    asking = [f"groundstate/asked/{other}" for other in range(1, world)]
    deadline = time.monotonic() + timeout
    while not store.check([f"{meeting}/{other}" for other in range(1, world)]):
        if time.monotonic() > deadline:
            raise RuntimeError(f"the {world} processes did not meet within {timeout:g} seconds")
        for key in asking:
            if store.check([key]):
                store.set(f"groundstate/answered/{store.get(key).decode()}", meeting)
        time.sleep(0.01)
    return meeting


def _number(name: str, otherwise: int) -> int:
    return int(os.environ.get(name, otherwise))


def _world() -> int:
    return _number("WORLD_SIZE", 1)


def _began() -> str:
    """When the parent process began, in the system's clock ticks; '' where the system does not tell."""
    try:
        stat = Path(f"/proc/{os.getppid()}/stat").read_text(encoding="ascii")
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]
