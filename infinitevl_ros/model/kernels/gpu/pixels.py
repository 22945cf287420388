"""Camera frames of any size to normalised patches, in two Triton kernels.

The size of a frame and the taps of the resize are tensors, so that one CUDA graph serves every
resolution. Like `vision.resize`: bicubic with antialiasing, width first, then height, each pass
rounded to whole values.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from ...config import VisionConfig
from ...vision import pixel_statistics
from .launch import await_previous, launch, start_next

# Largest camera frame: both ways round, so that a camera on its side fits too.
LONGEST_SIDE = 1920
MOST_PIXELS = 1920 * 1080


def most_taps(size: int) -> int:
    """Input pixels that at most weigh in one of `size` output pixels."""
    return 2 * math.ceil(2 * max(1.0, LONGEST_SIDE / size)) + 1


def size_of(height: int, width: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """A frame's height and width, and how many taps its resize to `size` has on either axis."""
    scales = (max(1.0, side / to) for side, to in zip((height, width), size, strict=True))
    return height, width, *(2 * math.ceil(2 * scale) + 1 for scale in scales)


@functools.lru_cache(maxsize=64)
def taps(source: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """How `size` output pixels are made of `source` input pixels along one axis.

    Returns the first input pixel of each, int64 [size], and the weights, float32 [size,
    most_taps(size)], zero where fewer pixels weigh in. (Keys' cubic with a = -0.5, widened when
    shrinking.)
    """
    scale = source / size
    width = max(scale, 1.0)
    center = (np.arange(size) + 0.5) * scale
    first = np.maximum((center - 2 * width + 0.5).astype(np.int64), 0)
    end = np.minimum((center + 2 * width + 0.5).astype(np.int64), source)
    index = first[:, None] + np.arange(most_taps(size))
    x = np.abs((index - center[:, None] + 0.5) / width)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    weight = np.where(x < 1, near, np.where(x < 2, far, 0.0)) * (index < end[:, None])
    return first, (weight / weight.sum(1, keepdims=True)).astype(np.float32)


def patches(
    frames: Tensor,
    sizes: Tensor,
    starts: tuple[Tensor, Tensor],
    weights: tuple[Tensor, Tensor],
    size: tuple[int, int],
    config: VisionConfig,
    dtype: torch.dtype,
) -> Tensor:
    """Patches [F, N, patch values] as vision.patchify gives them, of frames of `size`.

    `frames` [F, G, bytes] hold RGB frames, G to fill the temporal slots of a patch in turn (the
    last one fills what is left); `sizes` [F, G, 4] what `size_of` gives; `starts` and `weights`
    what `taps` gives for height and width, [F, G, side] and [F, G, side, taps].
    """
    count, grids = frames.shape[:2]
    height, width = size
    rows = frames.new_empty(count * grids, LONGEST_SIDE, width * 3)
    side = config.patch_size
    launch(
        _resize_width, (LONGEST_SIDE, triton.cdiv(width, 128), count * grids),
        frames, sizes, starts[1], weights[1], rows, frames.shape[2], width,
        weights[1].shape[-1], LONGEST_SIDE, 128, num_warps=4,
    )  # fmt: skip
    patch_count = (height // side) * (width // side)
    out = torch.empty(count, patch_count, config.patch_values, dtype=dtype, device=frames.device)
    launch(
        _resize_height, (height, triton.cdiv(3 * width, 256), count * config.temporal_patch_size),
        rows, sizes, starts[0], weights[0], pixel_statistics(frames.device), out, height, width,
        weights[0].shape[-1], grids,
        LONGEST_SIDE, side, config.spatial_merge_size, config.temporal_patch_size,
        256, num_warps=4,
    )  # fmt: skip
    return out


@triton.jit
def _resize_width(
    frames, sizes, starts, weights, rows, frame_bytes, width, taps, LONGEST: tl.constexpr,
    BLOCK: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """One row of one frame to `width` pixels."""
    await_previous(EARLY)
    y, block, f = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    height, source = tl.load(sizes + 4 * f), tl.load(sizes + 4 * f + 1)
    used = tl.load(sizes + 4 * f + 3)
    if y < height:
        x = block * BLOCK + tl.arange(0, BLOCK)
        inside = x < width
        line = frames + f.to(tl.int64) * frame_bytes + y * source * 3
        start = tl.load(starts + f * width + x, mask=inside, other=0)
        red = tl.zeros((BLOCK,), tl.float32)
        green, blue = red, red
        for i in range(used):
            w = tl.load(weights + (f * width + x) * taps + i, mask=inside, other=0)
            p, there = line + (start + i) * 3, inside & (start + i < source)
            red += w * tl.load(p, mask=there, other=0).to(tl.float32)
            green += w * tl.load(p + 1, mask=there, other=0).to(tl.float32)
            blue += w * tl.load(p + 2, mask=there, other=0).to(tl.float32)
        out = rows + ((f * LONGEST + y) * width + x) * 3
        tl.store(out, _whole(red).to(tl.uint8), mask=inside)
        tl.store(out + 1, _whole(green).to(tl.uint8), mask=inside)
        tl.store(out + 2, _whole(blue).to(tl.uint8), mask=inside)


@triton.jit
def _resize_height(
    rows, sizes, starts, weights, statistics, out, height, width, taps, grids,
    LONGEST: tl.constexpr, SIDE: tl.constexpr, MERGE: tl.constexpr, SLOTS: tl.constexpr,
    BLOCK: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """One output row of one temporal slot: the other axis, then each value to its patch."""
    await_previous(EARLY)
    y, block, slot = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    frame, time = slot // SLOTS, slot % SLOTS
    f = frame * grids + tl.minimum(time, grids - 1)
    value = block * BLOCK + tl.arange(0, BLOCK)  # of a row, three to a pixel
    inside = value < 3 * width
    start, used = tl.load(starts + f * height + y), tl.load(sizes + 4 * f + 2)
    total = tl.zeros((BLOCK,), tl.float32)
    for i in range(used):
        w = tl.load(weights + (f * height + y) * taps + i)
        line = rows + (f * LONGEST + tl.minimum(start + i, LONGEST - 1)) * width * 3
        # What lies beyond the frame was never written, but is a byte that weighs nothing.
        total += w * tl.load(line + value, mask=inside, other=0).to(tl.float32)
    start_next(EARLY)
    x, c = value // 3, value % 3
    mean, deviation = tl.load(statistics + c), tl.load(statistics + 3 + c)
    normed = (_whole(total) / 255.0 - mean) / deviation
    # Merged blocks row by row, patches within a block row by row, (channel, time, y, x) within.
    unit: tl.constexpr = SIDE * MERGE
    patch = (y // unit * (width // unit) + x // unit) * MERGE * MERGE
    patch += y % unit // SIDE * MERGE + x % unit // SIDE
    place = out + (frame * (height // SIDE) * (width // SIDE) + patch) * 3 * SLOTS * SIDE * SIDE
    place += ((c * SLOTS + time) * SIDE + y % SIDE) * SIDE + x % SIDE
    tl.store(place, normed.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _whole(x):
    """The nearest whole number from 0 to 255, halves to even: exact for |x| under 2 ** 22."""
    return tl.minimum(tl.maximum((x + 12582912.0) - 12582912.0, 0.0), 255.0)
