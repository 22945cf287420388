"""The operators the network is built from, behind one interface; `plain` is the reference."""

from __future__ import annotations

import importlib.util
import logging
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from ..weights import Weights

logger = logging.getLogger(__name__)


def fastest(weights: Weights, fp8: bool = False) -> Weights:
    """The same network with the fastest operators its device has.

    With `fp8` the projections' weights and inputs are rounded to 8 bits. Raises ValueError where
    the device cannot do that. A GPU without its kernels falls back to plain torch, and the log
    says so.
    """
    reason = why_not_triton(weights)
    if reason is None:
        if fp8 and torch.cuda.get_device_capability(weights.device) < (8, 9):
            raise ValueError('fp8 needs a GPU of compute capability 8.9 (Ada, Hopper) or more')
        from .gpu.prepare import prepare

        return prepare(weights, fp8)
    if fp8:
        raise ValueError(f'fp8 is not to be had: {reason}')
    if weights.device.type == 'cuda':
        logger.warning(
            'no Triton kernels and no CUDA graphs: %s; plain torch gives the same answers, but '
            'takes about 10 times as long for a frame and 20 times for a token',
            reason,
        )
    return weights


def why_not_triton(weights: Weights) -> str | None:
    """Why plain torch must do, by device and config alone; None when the GPU's kernels can."""
    if weights.device.type != 'cuda' or torch.version.cuda is None:
        return f'device "{weights.device}" is not an NVIDIA GPU'
    if importlib.util.find_spec('triton') is None:
        return 'triton is not installed'
    if 'dtype_out' not in torch.ops.aten.addmm.overloads():
        return f'torch {torch.__version__} is older than 2.8'
    capability = torch.cuda.get_device_capability(weights.device)
    if capability < (8, 0):
        return f'the GPU has compute capability {capability[0]}.{capability[1]}, 8.0 is needed'
    c = weights.config
    widths = {
        'head_dim': c.head_dim,
        'linear_head_dim': c.linear_head_dim,
        'expand_v': c.expand_v * c.linear_head_dim,
    }
    for name, width in widths.items():
        if width < 16 or width & (width - 1):
            return f'{name} gives heads {width} wide, not a power of two from 16'
    return None
