"""PyTorch on the processor."""

from __future__ import annotations

import os

import torch
from pydantic import Field
from torch import nn

from groundstate.components import Availability, Backend
from groundstate.errors import Fault, InputError


class Cpu(Backend):
    """Runs on the processor, with as many threads as asked."""

    class Config(Backend.Config):
        threads: int | None = Field(
            None, ge=1, description="threads of one operation, at most the machine's cores; PyTorch's choice by default"
        )

    @classmethod
    def available(cls) -> Availability:
        return Availability(True, f"{cores()} cores, PyTorch {torch.__version__} uses {torch.get_num_threads()}")

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def prepare(self, module: nn.Module) -> nn.Module:
        """Set the number of threads, of the whole process, and the module's precision."""
        threads = self.config.threads
        if threads is not None:
            if threads > cores():
                raise InputError(
                    Fault(
                        f"{threads} threads are more than the {cores()} cores this process may use, "
                        f"which slows every step; set at most {cores()}",
                        key="backend.threads",
                    )
                )
            torch.set_num_threads(threads)
        return super().prepare(module)


def cores() -> int:
    """The processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
