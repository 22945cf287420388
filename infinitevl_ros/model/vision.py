"""The vision tower (Qwen2.5-VL's): pixels to image tokens, its windows in one batch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .config import VisionConfig
from .weights import Weights

ROPE_THETA = 10000.0
NORM_EPS = 1e-6
# What CLIP, and so the tower, was trained with.
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)


def resize(frame: Tensor, size: tuple[int, int]) -> Tensor:
    """Bicubic, antialiased resize of an RGB frame, uint8 [H, W, 3] to uint8 [size, 3].

    Rows first, then columns, rounded to whole values in between, as Pillow does it.
    """
    if tuple(frame.shape[:2]) == tuple(size):
        return frame
    planes = frame.permute(2, 0, 1)[None].float()
    for shape in ((frame.shape[0], size[1]), size):
        planes = F.interpolate(planes, shape, mode='bicubic', antialias=True)
        planes = planes.round_().clamp_(0, 255)
    return planes[0].to(torch.uint8).permute(1, 2, 0)


def patchify(frame: Tensor, config: VisionConfig, dtype: torch.dtype) -> Tensor:
    """Normalised patches [patches, patch values] of an RGB uint8 frame [H, W, 3].

    H and W are multiples of a merged patch. Patches come in blocks that are merged to one token,
    each flattened as (channel, time, y, x); the frame fills all temporal slots.
    """
    m, p = config.spatial_merge_size, config.patch_size
    mean, std = pixel_statistics(frame.device)
    pixels = (frame.float() / 255 - mean) / std
    rows, columns = frame.shape[0] // (m * p), frame.shape[1] // (m * p)
    blocks = pixels.reshape(rows, m, p, columns, m, p, config.in_channels)
    blocks = blocks.permute(0, 3, 1, 4, 6, 2, 5).flatten(0, 3)
    patches = blocks[:, :, None].expand(-1, -1, config.temporal_patch_size, -1, -1)
    return patches.flatten(1).to(dtype)


@lru_cache
def pixel_statistics(device: torch.device) -> Tensor:
    """Mean and deviation [2, 3], made once: a copy to the device has no place in a CUDA graph."""
    return torch.tensor((PIXEL_MEAN, PIXEL_STD), device=device)


@dataclass(frozen=True)
class Layout:
    """How the patches of one grid are laid out in windows of equal length (S slots in all).

    order [S] patch of each slot; slot_of [N] slot of each patch; cos, sin [1, S, head_dim];
    valid [windows, window length], or None when no window is padded.
    """

    order: Tensor
    slot_of: Tensor
    cos: Tensor
    sin: Tensor
    window: int
    valid: Tensor | None


@lru_cache(maxsize=8)
def layout(config: VisionConfig, grid: tuple[int, int], device: torch.device) -> Layout:
    """The layout of a grid of patches (rows, columns)."""
    merge = config.spatial_merge_size
    side = config.window_size // merge // config.patch_size
    rows, columns = grid[0] // merge, grid[1] // merge
    token = torch.arange(rows * columns).view(rows, columns)
    # Pad to whole windows with -1, then cut: [windows, tokens of a window].
    token = F.pad(token, (0, -columns % side, 0, -rows % side), value=-1)
    token = token.unflatten(1, (-1, side)).unflatten(0, (-1, side))
    token = token.transpose(1, 2).flatten(2).flatten(0, 1)
    unit = merge * merge
    patch = (token[..., None] * unit + torch.arange(unit)).flatten(1)
    valid = (token >= 0).repeat_interleave(unit, 1)
    order = patch.clamp(min=0).flatten()
    slot_of = torch.empty(grid[0] * grid[1], dtype=torch.long)
    slot_of[order[valid.flatten()]] = valid.flatten().nonzero()[:, 0]

    index = torch.arange(grid[0] * grid[1])
    block, inner = index // unit, index % unit
    row = block // columns * merge + inner // merge
    column = block % columns * merge + inner % merge
    quarter = config.head_dim // 4
    frequency = ROPE_THETA ** -(torch.arange(quarter).float() / quarter)
    angle = torch.cat((row[:, None] * frequency, column[:, None] * frequency), 1)
    angle = torch.cat((angle, angle), 1)[order][None].to(device)
    return Layout(
        order.to(device),
        slot_of.to(device),
        angle.cos(),
        angle.sin(),
        valid.shape[1],
        None if valid.all() else valid.to(device),
    )


def encode(weights: Weights, patches: Tensor, grid: tuple[int, int]) -> Tensor:
    """Image tokens [F, N / merge^2, D] of F frames of patches [F, N, patch values] on `grid`."""
    plan = layout(weights.config.vision, grid, patches.device)
    x = embed(weights, patches, plan)
    return merge(weights, run_blocks(weights, x, plan), plan)


def embed(weights: Weights, patches: Tensor, plan: Layout) -> Tensor:
    """The residual stream [F, S, width], float32, that the blocks add to."""
    return F.linear(patches, weights.vision.patch)[:, plan.order].float()


def run_blocks(weights: Weights, x: Tensor, plan: Layout, part: slice = slice(None)) -> Tensor:
    """The residual stream after those blocks, as `linear_add` leaves it; gives `x` up."""
    config, kernels = weights.config.vision, weights.kernels
    for i, block in list(enumerate(weights.vision.blocks))[part]:
        mixer, mlp = block.mixer, block.mlp
        qkv = kernels.norm_linear(x, block.norm1, NORM_EPS, mixer.qkv, mixer.qkv_bias)
        windowed = i not in config.fullatt_block_indexes
        length = plan.window if windowed else qkv.shape[1]
        valid = None if plan.valid is None else plan.valid.view(-1, length)
        o = kernels.segment_attention(qkv, (plan.cos, plan.sin), config.num_heads, length, valid)
        x = kernels.linear_add(o, mixer.out, mixer.out_bias, x)
        inner = kernels.norm_swiglu(x, block.norm2, NORM_EPS, mlp)
        x = kernels.linear_add(inner, mlp.down, mlp.down_bias, x)
    return x


def merge(weights: Weights, x: Tensor, plan: Layout) -> Tensor:
    """Image tokens of the residual stream after the last block."""
    vision, unit = weights.vision, weights.config.vision.spatial_merge_size**2
    x = weights.kernels.rms_norm(x, vision.merger_norm, NORM_EPS)[:, plan.slot_of]
    x = x.unflatten(1, (-1, unit)).flatten(2)
    x = F.gelu(F.linear(x, vision.merger_in, vision.merger_in_bias))
    return F.linear(x, vision.merger_out, vision.merger_out_bias)
