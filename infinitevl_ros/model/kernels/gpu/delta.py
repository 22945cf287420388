"""Gated DeltaNet in Triton: the recurrence over a chunk at a time (a token: `delta_step`).

The algebra is that of `plain.delta_rule`. One kernel prepares every chunk by itself (gates, decays
and the inverse of its triangular system), a second walks through the chunks with the state in
registers.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...config import ModelConfig
from ...state import Turn
from ...weights import Fp8, GatedDeltaNet
from .delta_step import VALUES, silu, softplus, step
from .fp8 import in_8_bits
from .launch import await_previous, launch, start_next

CHUNK = 32  # tokens solved for at once


def gated_delta_net(
    projected: Tensor,
    mixer: GatedDeltaNet,
    conv: Tensor,
    recurrent: Tensor,
    turn: Turn,
    config: ModelConfig,
) -> Tensor | Fp8:
    """See `plain.gated_delta_net`; in 8 bits where `mixer.out` takes many tokens so."""
    batch, tokens, width = projected.shape
    heads, key, value = config.num_linear_heads, config.linear_head_dim, config.linear_value_dim
    o = projected.new_empty(batch, tokens, heads, value, dtype=torch.float32)
    run = step if tokens == 1 else _chunks
    run(projected, mixer, conv, recurrent, turn, config, o)
    fp8, scales = batch * tokens > 1 and in_8_bits(mixer.out), None
    out = projected.new_empty(
        batch, tokens, heads * value, dtype=torch.float8_e4m3fn if fp8 else None
    )
    group = 4 if tokens > 1 else 1
    if fp8:  # a scale for the whole token
        scales, group = o.new_empty(batch * tokens), triton.next_power_of_2(heads)
    gates = projected[..., heads * (2 * key + value) :]
    launch(
        _gated_norm, (batch * tokens, triton.cdiv(heads, group)),
        o, gates, mixer.norm, out, scales, width, config.norm_eps, heads, value, group,
        num_warps=min(8, group),
    )  # fmt: skip
    return Fp8(out, scales) if fp8 else out


def _chunks(
    projected: Tensor,
    mixer: GatedDeltaNet,
    conv: Tensor,
    recurrent: Tensor,
    turn: Turn,
    config: ModelConfig,
    o: Tensor,
) -> None:
    batch, tokens, width = projected.shape
    heads, key, value = config.num_linear_heads, config.linear_head_dim, config.linear_value_dim
    channels = heads * (2 * key + value)
    precision = 'ieee' if projected.dtype == torch.float32 else 'tf32'
    convolved = projected.new_empty(batch, tokens, channels)
    launch(
        _short_conv, (channels // key, triton.cdiv(tokens, CHUNK), batch),
        projected, conv, mixer.conv, convolved, turn.rows, turn.start, turn.lengths, tokens,
        width, channels, conv.stride(0), heads, key, config.conv_size, CHUNK, num_warps=4,
    )  # fmt: skip
    chunks = triton.cdiv(tokens, CHUNK)
    solved, attended = torch.empty(
        2, batch, heads, chunks, CHUNK, CHUNK, dtype=torch.float32, device=o.device
    )
    decay = o.new_empty(batch, heads, chunks, CHUNK)
    launch(
        _prepare_chunk, (chunks, heads, batch),
        convolved, projected, mixer.a_log, mixer.dt_bias, turn.lengths, solved, attended, decay,
        tokens, width, channels, heads, key, value, CHUNK // 2, precision, num_warps=2,
    )  # fmt: skip
    columns = min(VALUES, value)
    launch(
        _scan_chunks, (value // columns, heads, batch),
        convolved, solved, attended, decay, recurrent, o, turn.rows, tokens, channels,
        recurrent.stride(0), heads, key, value, CHUNK, columns, precision,
        num_warps=4, num_stages=2,
    )  # fmt: skip


@triton.jit
def _short_conv(
    x, history, weight, out, rows, start, lengths, tokens, width, channels, history_row,
    HEADS: tl.constexpr, KEY: tl.constexpr, TAPS: tl.constexpr, BLOCK: tl.constexpr,
    EARLY: tl.constexpr,
):  # fmt: skip
    """SiLU of the causal convolution; q and k of unit length, q times KEY ** -0.5.

    A program takes KEY channels, so a whole head of q or k, for BLOCK tokens. The first block's
    program also renews the history, whose only reader it is.
    """
    await_previous(EARLY)
    head, block, b = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    c = head * KEY + tl.arange(0, KEY)
    t = block * BLOCK + tl.arange(0, BLOCK)
    history += tl.load(rows + b) * history_row
    x += b.to(tl.int64) * tokens * width
    first = tl.load(start + b)
    y = tl.zeros((BLOCK, KEY), tl.float32)
    for i in tl.static_range(TAPS):
        s = t - (TAPS - 1) + i
        w = tl.load(weight + c * TAPS + i).to(tl.float32)
        new = (s >= 0) & (s < tokens)
        value = tl.load(x + s[:, None] * width + c, mask=new[:, None], other=0)
        if block == 0:
            slot = (first + s + TAPS) % TAPS
            value += tl.load(
                history + slot[:, None] * channels + c, mask=(s < 0)[:, None], other=0
            )
        y += value.to(tl.float32) * w
    start_next(EARLY)
    y = silu(y)
    if head < 2 * HEADS:
        y *= tl.rsqrt(tl.sum(y * y, 1) + 1e-6)[:, None]
        if head < HEADS:
            y *= tl.rsqrt(KEY * 1.0)
    out += b.to(tl.int64) * tokens * channels
    out += t[:, None] * channels + c
    tl.store(out, y.to(out.dtype.element_ty), mask=(t < tokens)[:, None])
    if block == 0:
        tl.debug_barrier()  # every thread has read the history
        length = tl.load(lengths + b)
        for i in tl.static_range(TAPS):
            newest = length - TAPS + i
            kept = tl.load(x + newest * width + c, mask=newest >= 0, other=0)
            place = history + (first + newest + TAPS) % TAPS * channels + c
            tl.store(place, kept, mask=newest >= 0)


@triton.jit
def _prepare_chunk(
    qkv, projected, a_log, dt_bias, lengths, solved, attended, decay, tokens, width, channels,
    HEADS: tl.constexpr, KEY: tl.constexpr, VALUE: tl.constexpr, HALF: tl.constexpr,
    PRECISION: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """What a chunk of 2 HALF tokens needs before the state is known.

    `solved` is (I + A)^-1 diag(beta) with A_ij = beta_i D_ij (k_i . k_j) below the diagonal, where
    D_ij is the decay from token j to i; `attended` is D_ij (q_i . k_j); `decay` the log of the
    decay from the chunk's start to each token. Padding decays nothing and has beta 0.

    The inverse of a lower triangular matrix from those of its diagonal blocks:
    [[P, 0], [R, S]]^-1 = [[P^-1, 0], [-S^-1 R P^-1, S^-1]].
    """
    await_previous(EARLY)
    chunk, head, b = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    i, d = tl.arange(0, HALF), tl.arange(0, KEY)
    count = tl.minimum(tl.load(lengths + b), tokens)
    qkv += b.to(tl.int64) * tokens * channels + head * KEY
    gates = projected + b.to(tl.int64) * tokens * width
    gates += HEADS * (2 * KEY + 2 * VALUE) + head
    rate, shift = -tl.exp(tl.load(a_log + head)), tl.load(dt_bias + head)
    first, second = chunk * 2 * HALF + i, chunk * 2 * HALF + HALF + i
    q1, k1 = _load_qk(qkv, first, d, tokens, channels, HEADS, KEY)
    q2, k2 = _load_qk(qkv, second, d, tokens, channels, HEADS, KEY)
    total1, beta1 = _load_gates(gates, first, count, width, rate, shift, HEADS)
    total2, beta2 = _load_gates(gates, second, count, width, rate, shift, HEADS)
    total2 += tl.sum(tl.where(i == HALF - 1, total1, 0.0), 0)

    lower = i[:, None] >= i[None, :]
    ratio1, ratio2 = _ratio(total1, total1, lower), _ratio(total2, total2, lower)
    across = tl.exp(total2[:, None] - total1[None, :])
    t1, t2 = tl.trans(k1), tl.trans(k2)
    inverse1 = _inverse(beta1[:, None] * ratio1 * tl.dot(k1, t1, input_precision=PRECISION), HALF)
    inverse2 = _inverse(beta2[:, None] * ratio2 * tl.dot(k2, t2, input_precision=PRECISION), HALF)
    below = beta2[:, None] * across * tl.dot(k2, t1, input_precision=PRECISION)
    below = tl.dot(inverse2, below, input_precision='ieee')
    below = -tl.dot(below, inverse1, input_precision='ieee')

    start_next(EARLY)
    place = (b * HEADS + head) * tl.num_programs(0) + chunk
    size: tl.constexpr = 2 * HALF
    square = place * size * size + i[:, None] * size + i[None, :]
    zero = tl.zeros((HALF, HALF), tl.float32)
    tl.store(solved + square, inverse1 * beta1[None, :])
    tl.store(solved + square + HALF, zero)
    tl.store(solved + square + HALF * size, below * beta1[None, :])
    tl.store(solved + square + HALF * size + HALF, inverse2 * beta2[None, :])
    tl.store(attended + square, ratio1 * tl.dot(q1, t1, input_precision=PRECISION))
    tl.store(attended + square + HALF, zero)
    tl.store(attended + square + HALF * size, across * tl.dot(q2, t1, input_precision=PRECISION))
    tl.store(
        attended + square + HALF * size + HALF,
        ratio2 * tl.dot(q2, t2, input_precision=PRECISION),
    )
    tl.store(decay + place * size + i, total1)
    tl.store(decay + place * size + HALF + i, total2)


@triton.jit
def _load_qk(qkv, t, d, tokens, channels, HEADS: tl.constexpr, KEY: tl.constexpr):
    place = qkv + t[:, None] * channels + d
    inside = (t < tokens)[:, None]
    # In their own type: a product of bfloat16 numbers is exact in float32.
    q = tl.load(place, mask=inside, other=0)
    return q, tl.load(place + HEADS * KEY, mask=inside, other=0)


@triton.jit
def _load_gates(gates, t, count, width, rate, shift, HEADS: tl.constexpr):
    """Sum of the log decays up to each token, and beta."""
    counts = t < count
    a = tl.load(gates + t * width, mask=counts, other=0).to(tl.float32)
    b = tl.load(gates + t * width + HEADS, mask=counts, other=0).to(tl.float32)
    g = tl.where(counts, rate * softplus(a + shift), 0.0)
    return tl.cumsum(g, 0), tl.where(counts, tl.sigmoid(b), 0.0)


@triton.jit
def _ratio(later, earlier, lower):
    """Decay from an earlier token to a later one, 0 the other way round."""
    between = tl.where(lower, later[:, None] - earlier[None, :], 0.0)
    return tl.where(lower, tl.exp(between), 0.0)


@triton.jit
def _inverse(system, SIZE: tl.constexpr):
    """(I + the part of `system` below its diagonal)^-1 by forward elimination."""
    i = tl.arange(0, SIZE)
    lower = tl.where(i[:, None] > i[None, :], system, 0.0)
    inverse = tl.where(i[:, None] == i[None, :], 1.0, 0.0)
    for r in tl.static_range(SIZE - 1):
        # Row r is done: take it out of those below.
        row = tl.sum(tl.where((i == r)[:, None], inverse, 0.0), 0)
        factor = tl.sum(tl.where((i == r)[None, :], lower, 0.0), 1)
        inverse -= factor[:, None] * row[None, :]
    return inverse


@triton.jit
def _scan_chunks(
    qkv, solved, attended, decay, recurrent, out, rows, tokens, channels, recurrent_row,
    HEADS: tl.constexpr, KEY: tl.constexpr, VALUE: tl.constexpr, CHUNK: tl.constexpr,
    COLUMNS: tl.constexpr, PRECISION: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Chunk after chunk for some value columns of a head, which do not mix with the others.

    All is transposed: the state [COLUMNS, KEY] is then on the left of the products that read it,
    where it need not leave its registers.
    """
    await_previous(EARLY)
    column, head, b = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    i, d = tl.arange(0, CHUNK), tl.arange(0, KEY)
    v = column * COLUMNS + tl.arange(0, COLUMNS)[:, None]
    place = recurrent + tl.load(rows + b) * recurrent_row
    place += (head * KEY + d) * VALUE + v
    state = tl.load(place)
    qkv += b.to(tl.int64) * tokens * channels
    out += b.to(tl.int64) * tokens * HEADS * VALUE
    chunks = tl.cdiv(tokens, CHUNK)
    values = qkv + 2 * HEADS * KEY + head * VALUE + v
    for chunk in range(0, chunks):
        t = chunk * CHUNK + i
        inside = t < tokens
        n = (b * HEADS + head) * chunks + chunk
        # First what no product waits for: it is not loaded ahead of the chunk's turn.
        value = tl.load(values + t * channels, mask=inside[None, :], other=0).to(tl.float32)
        total = tl.load(decay + n * CHUNK + i)
        last = tl.load(decay + n * CHUNK + CHUNK - 1)
        token = qkv + t[:, None] * channels
        q = tl.load(token + head * KEY + d, mask=inside[:, None], other=0)
        k = tl.load(token + (HEADS + head) * KEY + d, mask=inside[:, None], other=0)
        square = (n * CHUNK + i[:, None]) * CHUNK + i[None, :]
        carried = tl.exp(total)
        wanted = value - carried * _dot(state, k.T, PRECISION)
        change = tl.dot(wanted, tl.load(solved + square).T, input_precision=PRECISION)
        o = carried * _dot(state, q.T, PRECISION)
        o += tl.dot(change, tl.load(attended + square).T, input_precision=PRECISION)
        tl.store(out + (t * HEADS + head) * VALUE + v, o, mask=inside[None, :])
        change *= tl.exp(last - total)
        state = tl.exp(last) * state + _dot(change, k, PRECISION)
    start_next(EARLY)
    tl.store(place, state)


@triton.jit
def _dot(a, b, PRECISION: tl.constexpr):
    """A @ b for float32 a: with bfloat16 b, as two products that keep 16 bits of a."""
    if b.dtype == tl.bfloat16:
        high = a.to(tl.bfloat16)
        low = (a - high.to(tl.float32)).to(tl.bfloat16)
        return tl.dot(low, b, tl.dot(high, b))
    else:
        return tl.dot(a, b, input_precision=PRECISION)


@triton.jit
def _gated_norm(
    x, gates, weight, out, scales, width, eps, HEADS: tl.constexpr, VALUE: tl.constexpr,
    GROUP: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """rms_norm(x) * SiLU(gate) of some heads of one token; in 8 bits where there are `scales`."""
    await_previous(EARLY)
    token, head = tl.program_id(0).to(tl.int64), tl.program_id(1) * GROUP + tl.arange(0, GROUP)
    place = head[:, None] * VALUE + tl.arange(0, VALUE)
    inside = (head < HEADS)[:, None]
    value = tl.load(x + token * HEADS * VALUE + place, mask=inside, other=0)
    gate = tl.load(gates + token * width + place, mask=inside, other=0).to(tl.float32)
    start_next(EARLY)
    value *= tl.rsqrt(tl.sum(value * value, 1) / VALUE + eps)[:, None]
    value *= tl.load(weight + tl.arange(0, VALUE)).to(tl.float32) * silu(gate)
    if scales is not None:
        scale = tl.maximum(tl.max(tl.max(tl.abs(value), 1), 0), 1e-12) / 448.0
        tl.store(scales + token, scale)
        value *= 1.0 / scale
    place += token * HEADS * VALUE
    tl.store(out + place, value.to(out.dtype.element_ty), mask=inside)
