"""The first half of an MLP: norm, gate and up projection, SwiGLU."""

from __future__ import annotations

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from ...weights import Fp8, Mlp
from .fp8 import finish, in_8_bits
from .launch import await_previous, launch, start_next
from .linear import Unsummed, is_one, normed, product, project, warps_for

# Tokens whose tiles keep a GPU busy in one kernel with SwiGLU; with fewer the library is faster,
# unless its outputs would still have to be rounded to 8 bits.
MANY = 512
TILE = (128, 64, 128)  # tokens, outputs and bytes of inputs that a program takes at once
STAGES = 3  # tiles of inputs that are on their way at once


def norm_swiglu(x: Tensor | Unsummed, norm: Tensor, eps: float, mlp: Mlp) -> Tensor | Fp8:
    """See `plain.norm_swiglu`; times `mlp.inner_scale`, and then in 8 bits, for `linear_add`.

    How large a token's inner values can get is known before they are: |SiLU(g) u| <= |g| |u|, each
    at most the length of the normed row (with a 1 for the bias) times that of a row of weights.
    The weights' part is in `inner_scale`, the row's is the scale that it is rounded with.
    """
    if isinstance(x, Tensor) and is_one(x):
        x = x if mlp.shift is None else x + mlp.shift
        return product(
            x, mlp.gate_up, mlp.gate_up_bias, norm=norm, eps=eps, swiglu=True,
            inner_scale=mlp.inner_scale, dtype=norm.dtype,
        )  # fmt: skip
    stream, reach = x.stream if isinstance(x, Unsummed) else x, None
    if mlp.inner_scale is not None:
        reach = stream.new_empty(stream.numel() // stream.shape[-1], dtype=torch.float32)
    values = normed(x, norm, eps, mlp.shift, in_8_bits(mlp.gate_up), reach)
    if _in_one_kernel(stream, norm.dtype, rounded=reach is not None):
        return _swiglu(values, mlp, norm.dtype, reach)
    both = project(values, mlp.gate_up, mlp.gate_up_bias, norm.dtype)
    return silu_mul(both, mlp.inner_scale, reach)


def silu_mul(
    both: Tensor, inner_scale: Tensor | None = None, reach: Tensor | None = None
) -> Tensor | Fp8:
    """SiLU of the first half of the last axis times the second half, see `norm_swiglu`."""
    width = both.shape[-1] // 2
    rows, block = both.numel() // both.shape[-1], min(2048, triton.next_power_of_2(width))
    out = _inner(both, width, both.dtype, reach)
    launch(
        _silu_mul, (rows, triton.cdiv(width, block)),
        both, out, inner_scale, reach, width, block, num_warps=warps_for(block),
    )  # fmt: skip
    return out if reach is None else Fp8(out, reach)


def _inner(x: Tensor, width: int, dtype: torch.dtype, reach: Tensor | None) -> Tensor:
    """Room for the inner values of tokens x."""
    return x.new_empty(*x.shape[:-1], width, dtype=dtype if reach is None else torch.float8_e4m3fn)


def _in_one_kernel(x: Tensor, dtype: torch.dtype, rounded: bool) -> bool:
    tokens, width = x.numel() // x.shape[-1], x.shape[-1]
    fits = width % 16 == 0 and dtype != torch.float32
    return fits and (rounded or tokens >= MANY) and _has_room(x.device)


@functools.cache
def _has_room(device: torch.device) -> bool:
    """Whether it is a GPU that copies whole tiles by itself, and what it keeps them in."""
    properties = torch.cuda.get_device_properties(device)
    tiles = (TILE[0] + 2 * TILE[1]) * TILE[2] * (STAGES + 1)
    return properties.major >= 9 and properties.shared_memory_per_block_optin >= tiles


def _swiglu(
    x: Tensor | Fp8, mlp: Mlp, dtype: torch.dtype, reach: Tensor | None = None
) -> Tensor | Fp8:
    """SwiGLU of tokens x [.., D], normed already and in 8 bits if the weights are."""
    small = isinstance(x, Fp8)
    values, weight = (x.values, mlp.gate_up.values) if small else (x, mlp.gate_up)
    scales = (x.scale, mlp.gate_up.scale) if small else (None, None)
    inner, width = len(weight) // 2, weight.shape[1]
    out = _inner(values, inner, dtype, reach)
    values = values.view(-1, width)
    block_m, block_n, block_k = TILE[0], TILE[1], TILE[2] // values.element_size()
    block_m = block_m if len(values) > block_m // 2 else block_m // 2
    blocks_m = triton.cdiv(len(values), block_m)
    # With one less a multiprocessor has room for a third program, and all may run at once.
    stages = STAGES - (block_m < len(values) < MANY)
    launch(
        _swiglu_product, (blocks_m * triton.cdiv(inner, block_n),),
        TensorDescriptor.from_tensor(values, [block_m, block_k]),
        TensorDescriptor.from_tensor(weight.view(2, inner, width), [2, block_n, block_k]),
        *scales, mlp.gate_up_bias, mlp.inner_scale, reach, out, len(values), inner, width,
        blocks_m, block_m, block_n, block_k, num_warps=4, num_stages=stages,
    )  # fmt: skip
    return out if reach is None else Fp8(out, reach)


@triton.jit
def _silu_mul(both, out, inner_scale, reach, width, BLOCK: tl.constexpr, EARLY: tl.constexpr):
    """SiLU of BLOCK values of the first half of a row times those of the second."""
    await_previous(EARLY)
    row, i = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = i < width
    gate = tl.load(both + row * 2 * width + i, mask=inside, other=0).to(tl.float32)
    up = tl.load(both + row * 2 * width + width + i, mask=inside, other=0).to(tl.float32)
    start_next(EARLY)
    y = gate * tl.sigmoid(gate) * up
    if reach is not None:
        y *= tl.load(inner_scale + i, mask=inside, other=0) * (1.0 / tl.load(reach + row))
    tl.store(out + row * width + i, y.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _swiglu_product(
    x, weight, x_scale, scale, bias, inner_scale, reach, out, tokens, inner, width, blocks_m,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """A tile of SiLU(x @ gate.T) * (x @ up.T); programs that share weights run together."""
    await_previous(EARLY)
    m0 = tl.program_id(0) % blocks_m * BLOCK_M
    n0 = tl.program_id(0) // blocks_m * BLOCK_N
    both = tl.zeros((BLOCK_M, 2 * BLOCK_N), tl.float32)
    for k in range(0, width, BLOCK_K):
        rows = weight.load([0, n0, k]).reshape(2 * BLOCK_N, BLOCK_K)
        both = tl.dot(x.load([m0, k]), rows.T, both)
    start_next(EARLY)
    m, n = m0 + tl.arange(0, BLOCK_M), n0 + tl.arange(0, BLOCK_N)
    inside = n < inner
    if x_scale is not None:
        both *= tl.load(x_scale + m, mask=m < tokens, other=0)[:, None]
    gate, up = both.reshape(BLOCK_M, 2, BLOCK_N).permute(0, 2, 1).split()
    gate = finish(gate, n, inside, scale, bias)
    up = finish(up, inner + n, inside, scale, bias)
    place = out + m.to(tl.int64)[:, None] * inner + n
    y = gate * tl.sigmoid(gate) * up
    if reach is not None:
        y *= tl.load(inner_scale + n, mask=inside, other=0)
        y *= (1.0 / tl.load(reach + m, mask=m < tokens, other=1))[:, None]
    tl.store(place, y.to(out.dtype.element_ty), mask=(m < tokens)[:, None] & inside)
