"""Weights as the GPU kernels want them."""

from __future__ import annotations

from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor

from ...weights import Block, Fp8, GatedDeltaNet, Mlp, Weights
from .. import gpu

# Tensor cores take rows in pieces of this many values; odd widths are several times slower.
WIDTH = 128


def prepare(weights: Weights, fp8: bool) -> Weights:
    """The same network for the GPU kernels, its projections in 8 bits if asked for."""
    blocks, layers = weights.vision.blocks, weights.layers
    blocks = [replace(block, mlp=_widen(block.mlp, not fp8)) for block in blocks]
    if fp8:
        blocks, layers = [_quantise(b) for b in blocks], [_quantise(b) for b in layers]
    vision = replace(weights.vision, blocks=blocks)
    return replace(weights, vision=vision, layers=layers, kernels=gpu)


def _widen(mlp: Mlp, bias_inside: bool) -> Mlp:
    """Rows and columns up to a multiple of WIDTH, which change nothing.

    With `bias_inside` the first of them is always 1 in between, so that its column of `down` can
    be the bias: a product that adds to the residual has no other place for one.
    """
    more = -mlp.down.shape[1] % WIDTH
    if not more:
        return mlp
    width = mlp.down.shape[1]
    gate_up = _pad_halves(mlp.gate_up, more)
    gate_up_bias, down = _pad_halves(mlp.gate_up_bias, more), F.pad(mlp.down, (0, more))
    if not bias_inside:
        return replace(mlp, gate_up=gate_up, gate_up_bias=gate_up_bias, down=down)
    # SiLU(16) / 16 is 1 to within float32's rounding.
    gate_up_bias[width], gate_up_bias[2 * width + more] = 16, 1 / 16
    down[:, width] = mlp.down_bias
    return Mlp(gate_up, down, gate_up_bias)


def _pad_halves(x: Tensor, more: int) -> Tensor:
    halves = x.unflatten(0, (2, -1))
    return F.pad(halves, (0, 0) * (x.ndim - 1) + (0, more)).flatten(0, 1)


def _quantise(block: Block) -> Block:
    mixer, mlp = block.mixer, block.mlp
    if isinstance(mixer, GatedDeltaNet):
        mixer = replace(mixer, proj=_to_fp8(mixer.proj), out=_to_fp8(mixer.out))
    else:
        mixer = replace(mixer, qkv=_to_fp8(mixer.qkv), out=_to_fp8(mixer.out))
    mlp = replace(mlp, gate_up=_to_fp8(mlp.gate_up), down=_to_fp8(mlp.down))
    return replace(block, mixer=mixer, mlp=mlp)


def _to_fp8(weight: Tensor) -> Tensor | Fp8:
    # What the 8-bit matrix product can take.
    fits = all(side % 16 == 0 for side in weight.shape)
    return gpu.quantise_weight(weight) if fits else weight
