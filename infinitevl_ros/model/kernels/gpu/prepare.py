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

    Attention's outputs, and its inputs in the decoder, gain nothing from 8 bits with many tokens:
    there they stay as they are. The decoder's have an 8-bit copy for one token.
    """
    # cuBLASLt would count the tiles of large products in its workspace and clear the counter
    # before each: 4 microseconds of nothing in a CUDA graph. Without a workspace they are shared
    # out beforehand, and take as long. PyTorch reads this at its first such product.
    os.environ.setdefault('CUBLASLT_WORKSPACE_SIZE', '0')
    blocks = [_widen(block, fp8) for block in weights.vision.blocks]
    layers = weights.layers
    if fp8:
        blocks = [_quantise(block, decoder=False) for block in blocks]
        layers = [_quantise(block, decoder=True) for block in layers]
    vision = replace(weights.vision, blocks=blocks)
    return replace(weights, vision=vision, layers=layers, kernels=gpu)


def _widen(block: Block, fp8: bool) -> Block:
    """The MLP's rows and columns up to a multiple of WIDTH, which change nothing.

    The first of them is always 1 in between, so that its column of `down` can be a bias: the
    library's product that adds to the residual has no other place for one. The mixer's goes there
    too. In 8 bits the product is ours, and takes a bias.
    """
    mlp, out_bias = block.mlp, block.mixer.out_bias
    width = mlp.down.shape[1]
    more = -width % WIDTH
    if not more:
        return block
    gate_up = _pad_halves(mlp.gate_up, more)
    gate_up_bias, down = _pad_halves(mlp.gate_up_bias, more), F.pad(mlp.down, (0, more))
    bias = mlp.down_bias + out_bias
    if not fp8:
        # SiLU(16) / 16 is 1 to within float32's rounding.
        gate_up_bias[width], gate_up_bias[2 * width + more] = 16, 1 / 16
        down[:, width], bias = bias, None
    mlp = Mlp(gate_up, down, gate_up_bias, bias, shift=out_bias)
    return replace(block, mixer=replace(block.mixer, out_bias=None), mlp=mlp)


def _pad_halves(x: Tensor, more: int) -> Tensor:
    halves = x.unflatten(0, (2, -1))
    return F.pad(halves, (0, 0) * (x.ndim - 1) + (0, more)).flatten(0, 1)


def _quantise(block: Block, decoder: bool) -> Block:
    """All projections in 8 bits, but those of attention's outputs in the vision tower."""
    mixer, mlp = block.mixer, block.mlp
    if isinstance(mixer, GatedDeltaNet):
        mixer = replace(mixer, proj=_to_fp8(mixer.proj), out=_to_fp8(mixer.out))
    elif decoder:
        mixer = replace(mixer, qkv=_to_fp8(mixer.qkv, True), out=_to_fp8(mixer.out, True))
    else:
        mixer = replace(mixer, qkv=_to_fp8(mixer.qkv))
    return replace(block, mixer=mixer, mlp=quantise_mlp(mlp))


def quantise_mlp(mlp: Mlp) -> Mlp:
    """Both projections in 8 bits, and the inner values as `mlp.norm_swiglu` says."""
    if not (_fits(mlp.gate_up) and _fits(mlp.down)):
        return mlp
    squares = mlp.gate_up.float().square().sum(1)
    if mlp.gate_up_bias is not None:
        squares += mlp.gate_up_bias.float().square()
    most = squares.sqrt().unflatten(0, (2, -1)).prod(0).clamp(min=1e-12)
    down = gpu.quantise_weight(mlp.down.float() * most)
    return replace(mlp, gate_up=gpu.quantise_weight(mlp.gate_up), down=down, inner_scale=1 / most)


def _fits(weight: Tensor) -> bool:
    """Whether the 8-bit matrix product can take it."""
    return all(side % 16 == 0 for side in weight.shape)


def _to_fp8(weight: Tensor, keep: bool = False) -> Tensor | Fp8:
    return gpu.quantise_weight(weight, keep) if _fits(weight) else weight
