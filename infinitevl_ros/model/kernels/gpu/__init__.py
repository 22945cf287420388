"""Triton kernels for NVIDIA GPUs, with the interface of `plain`."""

from .attention import sliding_attention
from .delta import gated_delta_net
from .fp8 import quantise_weight
from .linear import linear_add, norm_linear, rms_norm, scores, settled
from .mlp import norm_swiglu
from .segments import segment_attention

__all__ = [
    'gated_delta_net',
    'linear_add',
    'norm_linear',
    'norm_swiglu',
    'quantise_weight',
    'rms_norm',
    'scores',
    'segment_attention',
    'settled',
    'sliding_attention',
]
