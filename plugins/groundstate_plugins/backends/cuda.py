"""PyTorch on an NVIDIA GPU."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import nn

from groundstate.components import Availability, Backend
from groundstate.errors import Fault, InputError


class Cuda(Backend):
    """Runs on one NVIDIA GPU."""

    class Config(Backend.Config):
        index: int = Field(0, ge=0, description="which GPU, from 0")

    @classmethod
    def available(cls) -> Availability:
        if torch.version.cuda is None:
            return Availability(
                False, f"PyTorch {torch.__version__} is built without CUDA; install a CUDA build from pytorch.org"
            )
        if not torch.cuda.is_available():
            return Availability(
                False, f"PyTorch is built for CUDA {torch.version.cuda}, but finds no usable GPU or driver"
            )
        device = torch.cuda.get_device_properties(0)
        return Availability(True, f"{device.name}, {device.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}")

    @property
    def device(self) -> torch.device:
        return torch.device("cuda", self.config.index)

    def prepare(self, module: nn.Module) -> nn.Module:
        """As every backend, once the GPU is found."""
        found = self.available()
        if not found.available:
            raise InputError(Fault(f"{found.reason}; or use backend 'cpu'", key="backend"))
        count = torch.cuda.device_count()
        if self.config.index >= count:
            there = f"this machine has {count}, numbered from 0"
            raise InputError(Fault(f"GPU {self.config.index} does not exist; {there}", key="backend.index"))
        return super().prepare(module)
