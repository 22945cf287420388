"""Norms and projections: cuBLAS for many tokens, a Triton product that streams weights for one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from ...weights import Fp8
from .launch import await_previous, launch, start_next

FP8_MAX = 448.0  # largest number of float8_e4m3fn
RESERVED = 1024  # bytes of shared memory that CUDA takes for each program
NORM_WARP = 256  # values of a row for each warp of its norm
# Outputs that keep a GPU busy at once, and inputs that are worth a program of their own.
OUTPUTS = 2**21
SHARE = 1376
MANY_INPUTS = 8192  # from which larger tiles pay
MOST_STAGES = 6  # tiles of inputs that are on their way at once


@dataclass
class Unsummed:
    """A residual stream [.., N] with `parts` [P, tokens, N] and a bias that belong to it.

    The norm that reads it next adds them on its way, which saves a kernel.
    """

    stream: Tensor
    parts: Tensor | None
    bias: Tensor | None

    def sum(self) -> Tensor:
        if self.parts is not None:
            _add(self.stream, self.parts, self.bias)
            self.parts = None
        return self.stream


def rms_norm(
    x: Tensor | Unsummed, weight: Tensor, eps: float, shift: Tensor | None = None
) -> Tensor:
    """See `plain.rms_norm`; of x + shift."""
    return normed(x, weight, eps, shift, fp8=False)


def norm_linear(
    x: Tensor | Unsummed,
    norm: Tensor,
    eps: float,
    weight: Tensor | Fp8,
    bias: Tensor | None = None,
    shift: Tensor | None = None,
) -> Tensor:
    """See `plain.norm_linear`; of x + shift."""
    if isinstance(x, Tensor) and is_one(x):
        x = x.contiguous() if shift is None else x + shift
        return product(x, weight, bias, norm=norm, eps=eps, dtype=norm.dtype)
    return project(normed(x, norm, eps, shift, in_8_bits(weight)), weight, bias, norm.dtype)


def in_8_bits(weight: Tensor | Fp8) -> bool:
    """Whether a product of many tokens with it is made in 8 bits."""
    return isinstance(weight, Fp8) and weight.wide is None


def project(
    x: Tensor | Fp8, weight: Tensor | Fp8, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """Many tokens x [.., K] @ weight.T + bias by the library; in 8 bits where x is."""
    if isinstance(x, Tensor):
        return F.linear(x, weight.wide if isinstance(weight, Fp8) else weight, bias)
    y = torch._scaled_mm(
        x.values.view(-1, x.values.shape[-1]),
        weight.values.T,
        x.scale[:, None],
        weight.scale[None],
        bias=bias,
        out_dtype=dtype,
        use_fast_accum=True,
    )
    return y.view(*x.values.shape[:-1], -1)


def linear_add(
    x: Tensor | Fp8, weight: Tensor | Fp8, bias: Tensor | None, residual: Tensor | Unsummed
) -> Tensor | Unsummed:
    """See `plain.linear_add`; adds to `residual` in place, or leaves that to the next norm."""
    residual = settled(residual)
    if isinstance(x, Fp8):
        return _add_fp8(residual, x, weight, bias)
    if is_one(x):
        return product(x, weight, bias, residual=residual)
    if isinstance(weight, Fp8):
        weight = weight.wide
    if bias is not None:
        return _add(residual, F.linear(x, weight).view(1, -1, len(weight)), bias)
    total, x = residual.view(-1, residual.shape[-1]), x.reshape(-1, x.shape[-1])
    if total.dtype == x.dtype:
        total.addmm_(x, weight.T)
    else:
        torch.addmm(total, x, weight.T, out_dtype=total.dtype, out=total)
    return residual


def settled(x: Tensor | Unsummed) -> Tensor:
    """See `plain.settled`."""
    return x.sum() if isinstance(x, Unsummed) else x


def scores(hidden: Tensor, head: Tensor) -> Tensor:
    """See `plain.scores`."""
    if hidden.numel() == hidden.shape[-1]:
        return product(hidden, head, dtype=torch.float32)
    return F.linear(hidden, head).float()


def quantise_weight(weight: Tensor, keep: bool = False) -> Fp8:
    """A matrix in fp8, each row scaled to use the whole range; `keep` it as it was as well."""
    scale = weight.float().abs().amax(1).clamp(min=1e-12) / FP8_MAX
    values = (weight.float() / scale[:, None]).to(torch.float8_e4m3fn)
    return Fp8(values, scale, weight if keep else None)


def is_one(x: Tensor) -> bool:
    return x.numel() == x.shape[-1]


def warps_for(block: int) -> int:
    return min(8, max(1, block // 512))


def normed(
    x: Tensor | Unsummed,
    weight: Tensor,
    eps: float,
    shift: Tensor | None,
    fp8: bool,
    reach: Tensor | None = None,
) -> Tensor | Fp8:
    """RMS norm of x + shift, in the weight's type or in 8 bits; an Unsummed is summed by it.

    `reach` [tokens], if given, becomes 1 / FP8_MAX of 1 + the square of each row's length.
    """
    if isinstance(x, Tensor):
        x = Unsummed(x.contiguous(), None, None)
    stream, width = x.stream, x.stream.shape[-1]
    rows, block = stream.numel() // width, triton.next_power_of_2(width)
    warps = min(8, max(1, block // NORM_WARP))
    out = torch.empty_like(stream, dtype=torch.float8_e4m3fn if fp8 else weight.dtype)
    scales = stream.new_empty(rows, dtype=torch.float32) if fp8 else None
    launch(
        _rms_norm, (rows,),
        stream, x.parts, x.bias, shift, weight, out, scales, reach, width, eps,
        0 if x.parts is None else len(x.parts), block, num_warps=warps,
    )  # fmt: skip
    x.parts = None
    return Fp8(out, scales) if fp8 else out


def _add(residual: Tensor, parts: Tensor, bias: Tensor | None) -> Tensor:
    """Residual [.., N] + the sum of parts [P, tokens, N] + bias, in place."""
    count, tokens, width = parts.shape
    block = min(1024, triton.next_power_of_2(width))
    launch(
        _add_parts, (tokens, triton.cdiv(width, block)),
        residual, parts, bias, width, count, block, num_warps=max(1, block // 256),
    )  # fmt: skip
    return residual


def _add_fp8(residual: Tensor, x: Fp8, weight: Fp8, bias: Tensor | None) -> Unsummed:
    """Residual [.., N] + x [.., K] @ weight.T + bias.

    Where there are too few tiles to keep a GPU busy, each is made in shares of the inputs, which
    are added up in a fixed order.
    """
    rows, width = weight.values.shape
    values = x.values.view(-1, width)
    tokens = len(values)
    block_m, block_n, block_k = (128, 64, 128) if tokens > 64 else (64, 128, 128)
    if width >= MANY_INPUTS and tokens > block_m:
        block_m *= 2
    tiles = triton.cdiv(rows, block_n), triton.cdiv(tokens, block_m)
    outputs = tiles[0] * block_n * tiles[1] * block_m
    shares = max(1, min(triton.cdiv(OUTPUTS, outputs), width // SHARE))
    parts = values.new_empty(shares, tokens, rows, dtype=torch.bfloat16)
    grid = tiles[0], shares, tiles[1]
    launch(
        _fp8_part, grid,
        TensorDescriptor.from_tensor(values, [block_m, block_k]),
        TensorDescriptor.from_tensor(weight.values, [block_n, block_k]),
        x.scale, weight.scale, parts, tokens, rows, width,
        triton.cdiv(width, shares * block_k) * block_k, block_m, block_n, block_k,
        num_warps=max(4, block_m // 32),
        num_stages=_stages(math.prod(grid), (block_m + block_n) * block_k, values.device),
    )  # fmt: skip
    return Unsummed(residual, parts, bias)


def _stages(programs: int, tile: int, device: torch.device) -> int:
    """How many tiles of so many bytes a program may hold for all programs to run at once."""
    properties = torch.cuda.get_device_properties(device)
    neighbours = triton.cdiv(programs, properties.multi_processor_count)
    room = properties.shared_memory_per_multiprocessor // neighbours - RESERVED
    return max(2, min(MOST_STAGES, room // tile))


def product(
    x: Tensor,
    weight: Tensor | Fp8,
    bias: Tensor | None = None,
    norm: Tensor | None = None,
    eps: float = 0.0,
    residual: Tensor | None = None,
    swiglu: bool = False,
    inner_scale: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """A projection of one vector x [..., K], with what stands around it in the same kernel."""
    matrix = weight.values if isinstance(weight, Fp8) else weight
    scale = weight.scale if isinstance(weight, Fp8) else None
    rows, width = matrix.shape
    rows = rows // 2 if swiglu else rows
    out = residual
    if out is None:
        out = torch.empty(*x.shape[:-1], rows, dtype=dtype or x.dtype, device=x.device)
    # Outputs and inputs that a program takes at once, and its warps: the best on an H200.
    block_n, block_k, warps = (8, 512, 2) if norm is not None else (4, 2048, 4)
    block_n, block_k = block_n // (1 + swiglu), min(block_k, triton.next_power_of_2(width))
    launch(
        _vector_product, (triton.cdiv(rows, block_n),),
        x, matrix, scale, bias, norm, residual, inner_scale, out, rows, width, eps, swiglu,
        block_n, block_k, num_warps=warps,
    )  # fmt: skip
    return out


@triton.jit
def _rms_norm(
    x, parts, bias, shift, weight, out, scales, reach, width, eps, PARTS: tl.constexpr,
    BLOCK: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """The norm of a row of x + shift, in 8 bits where there are `scales`; first, x += parts."""
    await_previous(EARLY)
    row, rows, i = tl.program_id(0).to(tl.int64), tl.num_programs(0), tl.arange(0, BLOCK)
    inside = i < width
    value = tl.load(x + row * width + i, mask=inside, other=0).to(tl.float32)
    if PARTS:
        value = _plus_parts(value, parts, bias, row, rows, width, i, inside, PARTS)
        tl.store(x + row * width + i, value.to(x.dtype.element_ty), mask=inside)
    if shift is not None:
        value += tl.load(shift + i, mask=inside, other=0).to(tl.float32)
    weighted = value * tl.load(weight + i, mask=inside, other=0).to(tl.float32)
    start_next(EARLY)
    # In one go, as each reduction makes all warps wait.
    squares, weighted_squares, most = tl.reduce(
        (value * value, weighted * weighted, tl.abs(weighted)), 0, _sums_and_most
    )
    factor = tl.rsqrt(squares / width + eps)
    if reach is not None:
        tl.store(reach + row, (1 + weighted_squares * factor * factor) / 448.0)
    if scales is not None:
        most = tl.maximum(most * factor, 1e-12)
        tl.store(scales + row, most / 448.0)
        factor *= 448.0 / most
    tl.store(out + row * width + i, (weighted * factor).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _sums_and_most(a, b, c, d, e, f):
    return a + d, b + e, tl.maximum(c, f)


@triton.jit
def _fp8_part(
    x, weight, x_scale, scale, parts, tokens, rows, width, share, BLOCK_M: tl.constexpr,
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
    y *= tl.load(scale + n, mask=n < rows, other=0)
    place = parts + (part * tokens + m[:, None]) * rows + n
    tl.store(place, y.to(parts.dtype.element_ty), mask=(m < tokens)[:, None] & (n < rows))


@triton.jit
def _add_parts(
    residual, parts, bias, width, PARTS: tl.constexpr, BLOCK: tl.constexpr, EARLY: tl.constexpr
):
    """Residual + all parts + bias (which may be None), in place."""
    await_previous(EARLY)
    row, rows = tl.program_id(0).to(tl.int64), tl.num_programs(0)
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = i < width
    y = tl.load(residual + row * width + i, mask=inside, other=0).to(tl.float32)
    y = _plus_parts(y, parts, bias, row, rows, width, i, inside, PARTS)
    start_next(EARLY)
    tl.store(residual + row * width + i, y.to(residual.dtype.element_ty), mask=inside)


@triton.jit
def _plus_parts(y, parts, bias, row, rows, width, i, inside, PARTS: tl.constexpr):
    for part in tl.static_range(PARTS):
        y += tl.load(parts + (part * rows + row) * width + i, mask=inside, other=0).to(tl.float32)
    if bias is not None:
        y += tl.load(bias + i, mask=inside, other=0).to(tl.float32)
    return y


@triton.jit
def _vector_product(
    x, weight, scale, bias, norm, residual, inner_scale, out, rows, width, eps,
    SWIGLU: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """BLOCK_N outputs of weight @ x, where x may be normed first (its scale is a common factor).

    With SWIGLU, row n is the gate's and row `rows` + n the up row of output n.
    """
    await_previous(EARLY)
    start_next(EARLY)
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = n < rows
    line = weight + n.to(tl.int64)[:, None] * width
    sums = tl.zeros((BLOCK_N, BLOCK_K), tl.float32)
    up_sums = tl.zeros((BLOCK_N, BLOCK_K), tl.float32)
    squares = tl.zeros((BLOCK_K,), tl.float32)
    for at in range(0, width, BLOCK_K):
        k = at + tl.arange(0, BLOCK_K)
        mask = inside[:, None] & (k < width)[None, :]
        w = tl.load(line + k[None, :], mask=mask, other=0.0, eviction_policy='evict_first')
        if SWIGLU:
            place = line + rows.to(tl.int64) * width + k[None, :]
            u = tl.load(place, mask=mask, other=0.0, eviction_policy='evict_first')
        value = tl.load(x + k, mask=k < width, other=0).to(tl.float32)
        if norm is not None:
            squares += value * value
            value *= tl.load(norm + k, mask=k < width, other=0).to(tl.float32)
        sums += w.to(tl.float32) * value[None, :]
        if SWIGLU:
            up_sums += u.to(tl.float32) * value[None, :]
    factor = 1.0
    if norm is not None:
        factor = tl.rsqrt(tl.sum(squares, 0) / width + eps)
    y = finish(tl.sum(sums, 1) * factor, n, inside, scale, bias)
    if SWIGLU:
        up = finish(tl.sum(up_sums, 1) * factor, n + rows, inside, scale, bias)
        y = y * tl.sigmoid(y) * up
        if inner_scale is not None:
            y *= tl.load(inner_scale + n, mask=inside, other=0)
    if residual is not None:
        y += tl.load(residual + n, mask=inside, other=0).to(tl.float32)
    tl.store(out + n, y.to(out.dtype.element_ty), mask=inside)


@triton.jit
def finish(y, n, inside, scale, bias):
    """Outputs n, the last axis of y, with what their weights' rows have beside them."""
    if scale is not None:
        y *= tl.load(scale + n, mask=inside, other=0)
    if bias is not None:
        y += tl.load(bias + n, mask=inside, other=0).to(tl.float32)
    return y
