"""The operators the network is built from, behind one interface; `plain` is the reference."""

from .plain import (
    delta_rule,
    gated_rms_norm,
    ring_attention,
    rms_norm,
    rotate,
    short_conv,
)

__all__ = [
    'delta_rule',
    'gated_rms_norm',
    'ring_attention',
    'rms_norm',
    'rotate',
    'short_conv',
]
