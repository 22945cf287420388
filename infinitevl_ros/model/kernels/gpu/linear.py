"""Norms and projections: cuBLAS for many tokens, a Triton product that streams weights for one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from ...weights import Fp8
from .fp8 import finish, fp8_linear, fp8_shares, in_8_bits
from .launch import await_previous, launch, start_next

NORM_WARP = 256  # values of a row for each warp of its norm


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


def project(
    x: Tensor | Fp8, weight: Tensor | Fp8, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """Many tokens x [.., K] @ weight.T + bias by the library; in 8 bits where x is."""
    if isinstance(x, Tensor):
        return F.linear(x, weight.wide if isinstance(weight, Fp8) else weight, bias)
    return fp8_linear(x, weight, bias, dtype)


def linear_add(
    x: Tensor | Fp8, weight: Tensor | Fp8, bias: Tensor | None, residual: Tensor | Unsummed
) -> Tensor | Unsummed:
    """See `plain.linear_add`; adds to `residual` in place, or leaves that to the next norm."""
    residual = settled(residual)
    if isinstance(x, Fp8):
        return Unsummed(residual, fp8_shares(x, weight), bias)
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
