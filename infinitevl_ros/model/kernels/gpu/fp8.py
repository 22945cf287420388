"""Products in 8 bits, of many tokens and with a scale for each token and each row of weights."""

from __future__ import annotations

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from ...weights import Fp8
from .launch import await_previous, launch, start_next

FP8_MAX = 448.0  # largest number of float8_e4m3fn
# Outputs that keep a GPU busy at once, and inputs that are worth a program of their own.
OUTPUTS = 2**21
SHARE = 1376
MANY_INPUTS = 8192  # from which larger tiles pay
BLOCK_K = 128  # inputs of a tile
STAGES, MOST_STAGES = 3, 6  # tiles of inputs that are on their way at once
RESERVED = 1024  # bytes of shared memory that CUDA takes for each program


def quantise_weight(weight: Tensor, keep: bool = False) -> Fp8:
    """A matrix in fp8, each row scaled to use the whole range; `keep` it as it was as well."""
    scale = weight.float().abs().amax(1).clamp(min=1e-12) / FP8_MAX
    values = (weight.float() / scale[:, None]).to(torch.float8_e4m3fn)
    return Fp8(values, scale, weight if keep else None)


def in_8_bits(weight: Tensor | Fp8) -> bool:
    """Whether a product of many tokens with it is made in 8 bits."""
    return isinstance(weight, Fp8) and weight.wide is None


def fp8_linear(x: Fp8, weight: Fp8, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Tokens x [.., K] @ weight.T + bias: by the library, unless our tiles just fill the GPU."""
    rows, width = weight.values.shape
    values = x.values.view(-1, width)
    tile = _tile_of_one_wave(len(values), rows, values.device)
    if tile is not None:
        y = values.new_empty(1, len(values), rows, dtype=dtype)
        _multiply(x, weight, bias, y, tile, STAGES)
    else:
        scales = x.scale[:, None], weight.scale[None]
        y = torch._scaled_mm(
            values, weight.values.T, *scales, bias=bias, out_dtype=dtype, use_fast_accum=True
        )
    return y.view(*x.values.shape[:-1], rows)


def fp8_shares(x: Fp8, weight: Fp8) -> Tensor:
    """What adds up to tokens x [.., K] @ weight.T, [shares, tokens, N].

    Where there are too few tiles to keep a GPU busy, each is made in shares of the inputs.
    """
    rows, width = weight.values.shape
    tokens = x.scale.numel()
    block_m, block_n = (128, 64) if tokens > 64 else (64, 128)
    if width >= MANY_INPUTS and tokens > block_m:
        block_m *= 2
    tiles = triton.cdiv(tokens, block_m) * triton.cdiv(rows, block_n)
    shares = max(1, min(triton.cdiv(OUTPUTS, tiles * block_m * block_n), width // SHARE))
    parts = x.values.new_empty(shares, tokens, rows, dtype=torch.bfloat16)
    room = _room(tiles * shares, x.values.device) // _bytes(block_m, block_n)
    _multiply(x, weight, None, parts, (block_m, block_n), max(2, min(MOST_STAGES, room)))
    return parts


@functools.cache
def _tile_of_one_wave(tokens: int, rows: int, device: torch.device) -> tuple[int, int] | None:
    """The tile of which as many as there are run at once and leave little of the GPU idle."""
    properties = torch.cuda.get_device_properties(device)
    if properties.major < 9 or tokens <= 64:
        return None
    for block_m, block_n in ((128, 128), (128, 64)):
        programs = triton.cdiv(tokens, block_m) * triton.cdiv(rows, block_n)
        each = STAGES * _bytes(block_m, block_n) + RESERVED
        places = properties.multi_processor_count * (
            properties.shared_memory_per_multiprocessor // each
        )
        if 0.9 * places <= programs <= places:
            return block_m, block_n
    return None


def _bytes(block_m: int, block_n: int) -> int:
    """Of the inputs of a tile that are on their way together."""
    return (block_m + block_n) * BLOCK_K


def _room(programs: int, device: torch.device) -> int:
    """Bytes of shared memory that each of so many programs may take for all to run at once."""
    properties = torch.cuda.get_device_properties(device)
    neighbours = triton.cdiv(programs, properties.multi_processor_count)
    return properties.shared_memory_per_multiprocessor // neighbours - RESERVED


def _multiply(
    x: Fp8, weight: Fp8, bias: Tensor | None, out: Tensor, tile: tuple[int, int], stages: int
) -> None:
    """Into out [shares, tokens, N]."""
    shares, tokens, rows = out.shape
    (block_m, block_n), width = tile, weight.values.shape[1]
    launch(
        _fp8_product, (triton.cdiv(rows, block_n), shares, triton.cdiv(tokens, block_m)),
        TensorDescriptor.from_tensor(x.values.view(-1, width), [block_m, BLOCK_K]),
        TensorDescriptor.from_tensor(weight.values, [block_n, BLOCK_K]),
        x.scale, weight.scale, bias, out, tokens, rows, width,
        triton.cdiv(width, shares * BLOCK_K) * BLOCK_K, block_m, block_n, BLOCK_K,
        num_warps=max(4, block_m // 32), num_stages=stages,
    )  # fmt: skip


@triton.jit
def _fp8_product(
    x, weight, x_scale, scale, bias, out, tokens, rows, width, share, BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """A tile of x @ weight.T over a share of the inputs."""
    await_previous(EARLY)
    n0, part, m0 = tl.program_id(0) * BLOCK_N, tl.program_id(1), tl.program_id(2) * BLOCK_M
    y = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    first = part * share
    for k in range(first, tl.minimum(first + share, width), BLOCK_K):
        y = tl.dot(x.load([m0, k]), weight.load([n0, k]).T, y)
    start_next(EARLY)
    m, n = m0 + tl.arange(0, BLOCK_M), n0 + tl.arange(0, BLOCK_N)
    y *= tl.load(x_scale + m, mask=m < tokens, other=0)[:, None]
    y = finish(y, n, n < rows, scale, bias)
    place = out + (part * tokens + m[:, None]) * rows + n
    tl.store(place, y.to(out.dtype.element_ty), mask=(m < tokens)[:, None] & (n < rows))


@triton.jit
def finish(y, n, inside, scale, bias):
    """Outputs n, the last axis of y, with what their weights' rows have beside them."""
    if scale is not None:
        y *= tl.load(scale + n, mask=inside, other=0)
    if bias is not None:
        y += tl.load(bias + n, mask=inside, other=0).to(tl.float32)
    return y
