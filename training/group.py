"""Processes that train one network together, each on a GPU of its own with a share of each batch.

torchrun starts them; a process that was started without it is a group of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist

# Its functions have the group of all processes as a default. Were they made when that is there
# already (an optimizer imports them), it would outlive `leave`, and its threads Python.
import torch.distributed.nn
from torch import Tensor

from .data import Phase


@dataclass(frozen=True)
class Group:
    """Process `rank` of `size`; the first, 0, is the one that writes and decides."""

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls) -> Group:
        if not dist.is_torchelastic_launched():
            return cls()
        if torch.cuda.is_available():
            torch.cuda.set_device(int(dist.get_node_local_rank()))
        dist.init_process_group('cpu:gloo,cuda:nccl' if torch.cuda.is_available() else 'gloo')
        return cls(dist.get_rank(), dist.get_world_size())

    def leave(self) -> None:
        if dist.is_initialized():
            dist.destroy_process_group()

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def share(self, phase: Phase) -> Phase:
        """A phase with this process's part of the streams; ValueError if they do not divide."""
        if phase.streams % self.size:
            raise ValueError(f'{phase.streams} streams do not divide among {self.size} processes')
        return replace(phase, streams=phase.streams // self.size)

    def agree(self, value: bool) -> bool:
        """What the first process says; waits for all."""
        if self.size == 1:
            return value
        said = torch.tensor(value)
        dist.broadcast(said, 0)
        return bool(said)

    def add_up(self, tensors: Sequence[Tensor], divide: bool = False) -> None:
        """Replace tensors by their sums over all processes, or by their means."""
        if self.size == 1:
            return
        together = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(together)
        if divide:
            together /= self.size
        parts = together.split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))


ALONE = Group()
