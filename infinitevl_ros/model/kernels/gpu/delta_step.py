"""Gated DeltaNet in Triton: a single token."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ...config import ModelConfig
from ...state import Turn
from ...weights import GatedDeltaNet
from .launch import await_previous, launch, start_next

VALUES = 32  # columns of a state that one program holds


def step(
    projected: Tensor,
    mixer: GatedDeltaNet,
    conv: Tensor,
    recurrent: Tensor,
    turn: Turn,
    config: ModelConfig,
    o: Tensor,
) -> None:
    """`delta.gated_delta_net` of one token up to its norm, into o [B, 1, heads, value width]."""
    batch, _, width = projected.shape
    heads, key, value = config.num_linear_heads, config.linear_head_dim, config.linear_value_dim
    columns = min(VALUES, value)
    launch(
        _delta_step, (value // columns, heads, batch),
        projected, conv, mixer.conv, recurrent, o, mixer.a_log, mixer.dt_bias, turn.rows,
        turn.start, width, conv.stride(0), recurrent.stride(0),
        heads, key, value, config.conv_size, columns, num_warps=4,
    )  # fmt: skip


@triton.jit
def softplus(x):
    """log(1 + exp(x)) that keeps its digits where exp(x) is small."""
    e = tl.exp(tl.minimum(x, 20.0))
    one = 1.0 + e
    log1p = tl.where(one == 1.0, e, tl.log(one) * (e / tl.maximum(one - 1.0, 1e-30)))
    return tl.where(x > 20.0, x, log1p)


@triton.jit
def silu(x):
    return x * tl.sigmoid(x)


@triton.jit
def _step_conv(x, history, weight, c, first, channels, TAPS: tl.constexpr):
    """SiLU of the convolution of channels c at one token."""
    new = tl.load(x + c).to(tl.float32)
    y = new * tl.load(weight + c * TAPS + TAPS - 1).to(tl.float32)
    for i in tl.static_range(TAPS - 1):
        slot = (first + 1 + i) % TAPS
        old = tl.load(history + slot * channels + c).to(tl.float32)
        y += old * tl.load(weight + c * TAPS + i).to(tl.float32)
    return silu(y)


@triton.jit
def _delta_step(
    projected, conv, conv_weight, recurrent, out, a_log, dt_bias, rows, start, width, conv_row,
    recurrent_row, HEADS: tl.constexpr, KEY: tl.constexpr, VALUE: tl.constexpr,
    TAPS: tl.constexpr, COLUMNS: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Convolution, gates and recurrence of one token, for some value columns of a head.

    The new input goes where the one of TAPS tokens ago stood, which nobody reads any more.
    """
    await_previous(EARLY)
    start_next(EARLY)
    column, head, b = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    channels = HEADS * (2 * KEY + VALUE)
    row = tl.load(rows + b)
    first = tl.load(start + b)
    x = projected + b.to(tl.int64) * width
    history = conv + row * conv_row
    d = tl.arange(0, KEY)
    v = column * COLUMNS + tl.arange(0, COLUMNS)
    cq, ck, cv = head * KEY + d, (HEADS + head) * KEY + d, 2 * HEADS * KEY + head * VALUE + v
    q = _step_conv(x, history, conv_weight, cq, first, channels, TAPS)
    k = _step_conv(x, history, conv_weight, ck, first, channels, TAPS)
    value = _step_conv(x, history, conv_weight, cv, first, channels, TAPS)
    slot = history + first % TAPS * channels
    tl.store(slot + cv, tl.load(x + cv))
    if column == 0:
        tl.store(slot + cq, tl.load(x + cq))
        tl.store(slot + ck, tl.load(x + ck))
    q *= tl.rsqrt(tl.sum(q * q, 0) + 1e-6) * tl.rsqrt(KEY * 1.0)
    k *= tl.rsqrt(tl.sum(k * k, 0) + 1e-6)

    gates = x + HEADS * (2 * KEY + 2 * VALUE) + head
    a, b_ = tl.load(gates).to(tl.float32), tl.load(gates + HEADS).to(tl.float32)
    g = -tl.exp(tl.load(a_log + head)) * softplus(a + tl.load(dt_bias + head))
    place = recurrent + row * recurrent_row + (head * KEY + d[:, None]) * VALUE + v
    state = tl.load(place) * tl.exp(g)
    change = tl.sigmoid(b_) * (value - tl.sum(k[:, None] * state, 0))
    state += k[:, None] * change[None, :]
    tl.store(place, state)
    tl.store(out + (b * HEADS + head) * VALUE + v, tl.sum(q[:, None] * state, 0))
