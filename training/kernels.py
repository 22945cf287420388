"""The operators of training: those of kernels.plain and the parts of the delta rule, compiled.

A namespace of this kind stands in for the module that Weights.kernels otherwise is.
"""

from __future__ import annotations

from functools import lru_cache
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor

from infinitevl_ros.model.config import ModelConfig
from infinitevl_ros.model.kernels import plain
from infinitevl_ros.model.weights import GatedDeltaNet

from .delta import read_chunks, solve_chunks


def delta_inputs(
    projected: Tensor, counts: Tensor, history: Tensor, mixer: GatedDeltaNet, config: ModelConfig
) -> tuple[Tensor, ...]:
    """What the delta rule takes of projected tokens [B, T, ...]: q, k, v, g, beta; and the gate.

    `counts` [T, 1] is 0 for padding; `history` as in plain.short_conv.
    """
    heads, splits = config.num_linear_heads, config.linear_splits
    mixed, gate, a, b = projected.split((sum(splits[:3]), *splits[3:]), -1)
    convolved = plain.short_conv(mixed * counts, history, mixer.conv)
    q, k, v = (part.unflatten(-1, (heads, -1)) for part in convolved.split(splits[:3], -1))
    g = -mixer.a_log.exp() * F.softplus(a.float() + mixer.dt_bias)
    return q, k, v, g * counts, b.float().sigmoid() * counts, gate.unflatten(-1, (heads, -1))


@lru_cache
def operators(compiled: bool) -> SimpleNamespace:
    """All operators; compiled ones take a minute once, for all sizes."""
    names = 'rms_norm', 'gated_rms_norm', 'norm_linear', 'norm_swiglu', 'linear_add', 'rotate'
    found = {name: getattr(plain, name) for name in (*names, 'segment_attention')}
    found |= {f.__name__: f for f in (delta_inputs, solve_chunks, read_chunks)}
    if compiled:
        torch._dynamo.config.recompile_limit = 64
        found = {name: torch.compile(f, dynamic=True) for name, f in found.items()}
    return SimpleNamespace(**found, settled=plain.settled)
