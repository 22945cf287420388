"""Weights as the GPU kernels want them."""

from __future__ import annotations

import os
from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor

from ...weights import Block, Fp8, GatedDeltaNet, Mlp, Weights
from .. import gpu

# Tensor cores take rows in pieces of this many values; odd widths are several times slower.
WIDTH = 128


def prepare(weights: Weights, fp8: bool) -> Weights:
    """The same network for the GPU kernels, its projections in 8 bits if asked for.

    Products with many tokens of few outputs are slower in 8 bits, but for the decoder's `down`:
    there they stay as they are. The decoder's have an 8-bit copy for one token.
    """
    # cuBLASLt would count the tiles of large products in its workspace and clear the counter
    # before each: 4 microseconds of nothing in a CUDA graph. Without a workspace they are shared
    # out beforehand, and take as long. PyTorch reads this at its first such product.
    os.environ.setdefault('CUBLASLT_WORKSPACE_SIZE', '0')
    blocks = [_widen(block) for block in weights.vision.blocks]
    layers = weights.layers
    if fp8:
        blocks = [_quantise(block, decoder=False) for block in blocks]
        layers = [_quantise(block, decoder=True) for block in layers]
    vision = replace(weights.vision, blocks=blocks)
    return replace(weights, vision=vision, layers=layers, kernels=gpu)


def _widen(block: Block) -> Block:
    """The MLP's rows and columns up to a multiple of WIDTH, which change nothing.

    The first of them is always 1 in between, so that its column of `down` can be a bias: a product
    that adds to the residual has no other place for one. The mixer's goes there too.
    """
    mlp, out_bias = block.mlp, block.mixer.out_bias
    width = mlp.down.shape[1]
    more = -width % WIDTH
    if not more:
        return block
    gate_up = _pad_halves(mlp.gate_up, more)
    gate_up_bias, down = _pad_halves(mlp.gate_up_bias, more), F.pad(mlp.down, (0, more))
    # SiLU(16) / 16 is 1 to within float32's rounding.
    gate_up_bias[width], gate_up_bias[2 * width + more] = 16, 1 / 16
    down[:, width] = mlp.down_bias + out_bias
    mlp = Mlp(gate_up, down, gate_up_bias, shift=out_bias)
    return replace(block, mixer=replace(block.mixer, out_bias=None), mlp=mlp)


def _pad_halves(x: Tensor, more: int) -> Tensor:
    halves = x.unflatten(0, (2, -1))
    return F.pad(halves, (0, 0) * (x.ndim - 1) + (0, more)).flatten(0, 1)


def _quantise(block: Block, decoder: bool) -> Block:
    """The projections that read the residual stream in 8 bits; all of them in the decoder."""
    mixer, mlp = block.mixer, block.mlp
    if isinstance(mixer, GatedDeltaNet):
        mixer = replace(mixer, proj=_to_fp8(mixer.proj))
    else:
        mixer = replace(mixer, qkv=_to_fp8(mixer.qkv, keep=decoder))
    mlp = replace(mlp, gate_up=_to_fp8(mlp.gate_up))
    if decoder:
        mixer = replace(mixer, out=_to_fp8(mixer.out, keep=True))
        mlp = replace(mlp, down=_to_fp8(mlp.down))
    return replace(block, mixer=mixer, mlp=mlp)


def _to_fp8(weight: Tensor, keep: bool = False) -> Tensor | Fp8:
    # What the 8-bit matrix product can take.
    fits = all(side % 16 == 0 for side in weight.shape)
    return gpu.quantise_weight(weight, keep) if fits else weight
