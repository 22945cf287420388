"""A checkpoint for a run, with the settings that infinitevl_node would choose."""

from __future__ import annotations

from pathlib import Path

import torch

from ..engine import StreamingEngine
from ..model.checkpoint import Progress, quietly

DTYPES = ('auto', 'float32', 'bfloat16', 'fp8')
# Bytes of weights below which more threads do not help.
SMALL_NETWORK = 100_000_000


def load_engine(
    folder: Path, device: str = 'cpu', dtype: str = 'auto', progress: Progress = quietly
) -> StreamingEngine:
    """The engine of a checkpoint folder; see StreamingEngine.from_checkpoint for what it raises.

    `device` auto takes a GPU when there is one, `dtype` is one of DTYPES. A small network runs on
    one thread of the CPU, this process's other work in torch with it: sums so come out the same,
    bit for bit, on machines of any number of cores.
    """
    if device == 'auto':
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
    kind = None if dtype in ('auto', 'fp8') else getattr(torch, dtype)
    engine = StreamingEngine.from_checkpoint(
        folder, device, kind, fp8=dtype == 'fp8', progress=progress
    )
    weights = sum(tensor.nbytes for tensor in engine.weights.tensors())
    if engine.weights.device.type == 'cpu' and weights < SMALL_NETWORK:
        torch.set_num_threads(1)
    return engine
