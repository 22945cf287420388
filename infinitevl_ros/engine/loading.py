"""A checkpoint as the node and the commands load it: what `auto` means, and how many threads."""

from __future__ import annotations

from pathlib import Path

import torch

from ..model.checkpoint import Progress, quietly
from .engine import StreamingEngine
from .options import Options

DTYPES = ('auto', 'float32', 'bfloat16', 'fp8')
# Bytes of weights below which more threads gain nothing on a CPU: between two frames they fall
# asleep, and to wake them costs as much as they do (two cores, 4 M parameters: a frame of a 20 Hz
# camera takes 40 ms with two threads, 19 ms with one).
SMALL_NETWORK = 100_000_000


def chosen_device(name: str) -> str:
    """`name`, or for auto a GPU when there is one."""
    if name != 'auto':
        return name
    return 'cuda' if torch.cuda.is_available() else 'cpu'


def load_engine(
    folder: str | Path,
    device: str = 'cpu',
    dtype: str = 'auto',
    progress: Progress = quietly,
    frame_size: tuple[int, int] | None = None,
    options: Options | None = None,
) -> StreamingEngine:
    """The engine of a checkpoint folder; see StreamingEngine.from_checkpoint for what it raises.

    `device` may be auto, `dtype` is one of DTYPES. A small network runs on one thread of the CPU,
    this process's other work in torch with it: sums so come out the same, bit for bit, on machines
    of any number of cores.
    """
    engine = StreamingEngine.from_checkpoint(
        folder,
        chosen_device(device),
        None if dtype in ('auto', 'fp8') else getattr(torch, dtype),
        frame_size,
        options,
        dtype == 'fp8',
        progress,
    )
    if engine.weights.device.type == 'cpu' and engine.weight_bytes < SMALL_NETWORK:
        torch.set_num_threads(1)
    return engine
