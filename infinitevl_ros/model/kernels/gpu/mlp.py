"""The first half of an MLP: norm, gate and up projection, SwiGLU."""

from __future__ import annotations

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from ...weights import Fp8, Mlp
from .linear import finish, is_one, norm_linear, normed, product, share_of, warps_for

# Tokens whose tiles keep a GPU busy in one kernel with SwiGLU; with fewer the library is faster.
MANY = 512
TILE = (128, 64, 128)  # tokens, outputs and bytes of inputs that a program takes at once
STAGES = 3


def norm_swiglu(x: Tensor, norm: Tensor, eps: float, mlp: Mlp) -> Tensor | Fp8:
    """See `plain.norm_swiglu`; in 8 bits where `mlp.down` takes them, for `linear_add`."""
    if is_one(x):
        x = x if mlp.shift is None else x + mlp.shift
        return product(
            x, mlp.gate_up, mlp.gate_up_bias, norm=norm, eps=eps, swiglu=True, dtype=norm.dtype
        )
    small = isinstance(mlp.gate_up, Fp8) and mlp.gate_up.wide is None
    rounded = isinstance(mlp.down, Fp8) and mlp.down.wide is None
    if not rounded and _in_one_kernel(x, norm.dtype):
        return _swiglu(normed(x, norm, eps, mlp.shift, small), mlp, norm.dtype)
    both = norm_linear(x, norm, eps, mlp.gate_up, mlp.gate_up_bias, mlp.shift)
    return silu_mul(both, rounded)


def silu_mul(both: Tensor, fp8: bool = False) -> Tensor | Fp8:
    """SiLU of the first half of the last axis times the second half.

    In 8 bits each share of a row has its own scale: [shares, rows].
    """
    width = both.shape[-1] // 2
    rows, share, scales = both.numel() // both.shape[-1], min(2048, width), None
    out = both.new_empty(*both.shape[:-1], width, dtype=torch.float8_e4m3fn if fp8 else None)
    if fp8:
        share = share_of(width)
        scales = both.new_empty(triton.cdiv(width, share), rows, dtype=torch.float32)
    block = triton.next_power_of_2(share)
    _silu_mul[(rows, triton.cdiv(width, share))](
        both, out, scales, width, share, block, num_warps=warps_for(block)
    )
    return Fp8(out, scales) if fp8 else out


def _in_one_kernel(x: Tensor, dtype: torch.dtype) -> bool:
    tokens, width = x.numel() // x.shape[-1], x.shape[-1]
    fits = width % 16 == 0 and dtype != torch.float32
    return fits and tokens >= MANY and _has_room(x.device)


@functools.cache
def _has_room(device: torch.device) -> bool:
    """Whether it is a GPU that copies whole tiles by itself, and what it keeps them in."""
    properties = torch.cuda.get_device_properties(device)
    tiles = (TILE[0] + 2 * TILE[1]) * TILE[2] * (STAGES + 1)
    return properties.major >= 9 and properties.shared_memory_per_block_optin >= tiles


def _swiglu(x: Tensor | Fp8, mlp: Mlp, dtype: torch.dtype) -> Tensor:
    """SwiGLU of many tokens x [.., D], normed already and in 8 bits if the weights are."""
    small = isinstance(x, Fp8)
    values, weight = (x.values, mlp.gate_up.values) if small else (x, mlp.gate_up)
    scales = (x.scale, mlp.gate_up.scale) if small else (None, None)
    inner, width = len(weight) // 2, weight.shape[1]
    out = torch.empty(*values.shape[:-1], inner, dtype=dtype, device=values.device)
    values = values.view(-1, width)
    block_m, block_n, block_k = TILE[0], TILE[1], TILE[2] // values.element_size()
    blocks_m = triton.cdiv(len(values), block_m)
    _swiglu_product[(blocks_m * triton.cdiv(inner, block_n),)](
        TensorDescriptor.from_tensor(values, [block_m, block_k]),
        TensorDescriptor.from_tensor(weight.view(2, inner, width), [2, block_n, block_k]),
        *scales, mlp.gate_up_bias, out, len(values), inner, width, blocks_m, block_m, block_n,
        block_k, num_warps=4, num_stages=STAGES,
    )  # fmt: skip
    return out


@triton.jit
def _silu_mul(both, out, scales, width, share, BLOCK: tl.constexpr):
    """SiLU of a share of the first half of a row times that of the second."""
    row, part, i = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.arange(0, BLOCK)
    inside = (i < share) & (part * share + i < width)
    i += part * share
    gate = tl.load(both + row * 2 * width + i, mask=inside, other=0).to(tl.float32)
    up = tl.load(both + row * 2 * width + width + i, mask=inside, other=0).to(tl.float32)
    y = gate * tl.sigmoid(gate) * up
    if scales is not None:
        scale = tl.maximum(tl.max(tl.abs(y), 0), 1e-12) / 448.0
        tl.store(scales + part * tl.num_programs(0) + row, scale)
        y /= scale
    tl.store(out + row * width + i, y.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _swiglu_product(
    x, weight, x_scale, scale, bias, out, tokens, inner, width, blocks_m, BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """A tile of SiLU(x @ gate.T) * (x @ up.T); programs that share weights run together."""
    m0 = tl.program_id(0) % blocks_m * BLOCK_M
    n0 = tl.program_id(0) // blocks_m * BLOCK_N
    both = tl.zeros((BLOCK_M, 2 * BLOCK_N), tl.float32)
    for k in range(0, width, BLOCK_K):
        rows = weight.load([0, n0, k]).reshape(2 * BLOCK_N, BLOCK_K)
        both = tl.dot(x.load([m0, k]), rows.T, both)
    m, n = m0 + tl.arange(0, BLOCK_M), n0 + tl.arange(0, BLOCK_N)
    inside = n < inner
    if x_scale is not None:
        both *= tl.load(x_scale + m, mask=m < tokens, other=0)[:, None]
    gate, up = both.reshape(BLOCK_M, 2, BLOCK_N).permute(0, 2, 1).split()
    gate = finish(gate, n, inside, scale, bias)
    up = finish(up, inner + n, inside, scale, bias)
    place = out + m.to(tl.int64)[:, None] * inner + n
    y = gate * tl.sigmoid(gate) * up
    tl.store(place, y.to(out.dtype.element_ty), mask=(m < tokens)[:, None] & inside)
