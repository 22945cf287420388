"""Attention in Triton within segments of a sequence: the vision tower's windows and frames."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import await_previous, launch, start_next

SHORT = 64  # slots of a segment that a program of `_short_segment` holds
# Queries of a program of `_long_segment`, and keys it looks at at once.
LONG, LONG_FLOAT32 = (64, 128), (32, 32)


def segment_attention(
    qkv: Tensor, rope: tuple[Tensor, Tensor], heads: int, length: int, valid: Tensor | None
) -> Tensor:
    """See `plain.segment_attention`; `qkv` may be rotated in place."""
    frames, slots, width = qkv.shape
    head = width // (3 * heads)
    half_block = max(16, triton.next_power_of_2(head // 2))
    precision = 'ieee' if qkv.dtype == torch.float32 else 'tf32'
    out = qkv.new_empty(frames, slots, heads * head)
    # What it holds fits the registers where tensor cores read shared memory: Hopper, Blackwell
    # of data centres, Thor.
    if length <= SHORT and 9 <= torch.cuda.get_device_capability(qkv.device)[0] <= 11:
        launch(
            _short_segment, (frames * slots // length, heads),
            qkv, *rope, valid, out, slots, head**-0.5, heads, head, length,
            max(16, triton.next_power_of_2(length)), half_block,
            max(16, triton.next_power_of_2(head)), precision, num_warps=4,
        )  # fmt: skip
        return out
    launch(
        _rotate, (frames * slots,),
        qkv, *rope, slots, heads, head // 2, triton.next_power_of_2(2 * heads), half_block,
        num_warps=2,
    )  # fmt: skip
    first = max(16, triton.next_power_of_2(head + 1) // 2)
    rest = max(16, triton.next_power_of_2(head - first)) if head > first else 0
    block, keys = LONG_FLOAT32 if qkv.dtype == torch.float32 else LONG
    keys = min(keys, max(16, triton.next_power_of_2(length)))
    launch(
        _long_segment, (triton.cdiv(length, block), heads, frames * slots // length),
        qkv, valid, out, slots, length, head**-0.5, heads, head, block, keys, first, rest,
        precision, num_warps=4, num_stages=2,
    )  # fmt: skip
    return out


@triton.jit
def _short_segment(
    qkv, cos, sin, valid, out, slots, scale, HEADS: tl.constexpr, WIDTH: tl.constexpr,
    LENGTH: tl.constexpr, SLOTS: tl.constexpr, HALF: tl.constexpr, FULL: tl.constexpr,
    PRECISION: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """One head of one segment, rotated as it is loaded."""
    await_previous(EARLY)
    segment, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    half: tl.constexpr = WIDTH // 2
    i, d, e = tl.arange(0, SLOTS), tl.arange(0, HALF), tl.arange(0, FULL)
    token = segment * LENGTH + i[:, None]
    inside = (i < LENGTH)[:, None]
    start = qkv + (token * 3 * HEADS + head) * WIDTH
    angle = token % slots * WIDTH + d
    c = tl.load(cos + angle, mask=inside & (d < half), other=0)
    s = tl.load(sin + angle, mask=inside & (d < half), other=0)
    q1, q2 = _rotated(start + d, c, s, inside & (d < half), half)
    k1, k2 = _rotated(start + HEADS * WIDTH + d, c, s, inside & (d < half), half)
    v = tl.load(start + 2 * HEADS * WIDTH + e, mask=inside & (e < WIDTH), other=0)
    start_next(EARLY)
    scores = tl.dot(q1, k1.T, input_precision=PRECISION)
    scores = tl.dot(q2, k2.T, scores, input_precision=PRECISION)
    seen = i < LENGTH
    if valid is not None:
        seen &= tl.load(valid + segment % (slots // LENGTH) * LENGTH + i, mask=seen, other=0) != 0
    scores = tl.where(seen[None, :], scores * scale * 1.4426950408889634, -float('inf'))
    chance = tl.exp2(scores - tl.max(scores, 1)[:, None])
    o = tl.dot(chance.to(v.dtype), v, input_precision=PRECISION) / tl.sum(chance, 1)[:, None]
    tl.store(out + (token * HEADS + head) * WIDTH + e, o.to(v.dtype), mask=inside & (e < WIDTH))


@triton.jit
def _long_segment(
    qkv, valid, out, slots, length, scale, HEADS: tl.constexpr, WIDTH: tl.constexpr,
    BLOCK: tl.constexpr, KEYS: tl.constexpr, FIRST: tl.constexpr, REST: tl.constexpr,
    PRECISION: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """A block of queries of one head of a segment, rotated already.

    A width that is no power of two goes in two pieces, FIRST and REST (which may be 0).
    """
    await_previous(EARLY)
    block, head, segment = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    i = (block * BLOCK + tl.arange(0, BLOCK))[:, None]
    start = qkv + segment * length * 3 * HEADS * WIDTH + head * WIDTH
    q1, q2 = _pieces(start, i, length, HEADS, WIDTH, FIRST, REST)
    most = tl.full((BLOCK,), -float('inf'), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    o1 = tl.zeros((BLOCK, FIRST), tl.float32)
    o2 = tl.zeros((BLOCK, max(REST, 1)), tl.float32)
    scale *= 1.4426950408889634  # powers of 2 instead of e
    for at in range(0, length, KEYS):
        p = at + tl.arange(0, KEYS)
        k1, k2 = _pieces(start + HEADS * WIDTH, p[:, None], length, HEADS, WIDTH, FIRST, REST)
        s = tl.dot(q1, k1.T, input_precision=PRECISION)
        if REST:
            s = tl.dot(q2, k2.T, s, input_precision=PRECISION)
        seen = p < length
        if valid is not None:
            place = valid + segment % (slots // length) * length + p
            seen &= tl.load(place, mask=seen, other=0) != 0
        if valid is not None or at + KEYS > length:
            s = tl.where(seen[None, :], s, -float('inf'))
        higher = tl.maximum(most, tl.max(s, 1) * scale)
        # A query that has seen nothing yet must not subtract infinities.
        base = tl.where(higher == -float('inf'), 0.0, higher)
        chance = tl.exp2(s * scale - base[:, None])
        shrink = tl.exp2(most - base)
        total = total * shrink + tl.sum(chance, 1)
        v1, v2 = _pieces(start + 2 * HEADS * WIDTH, p[:, None], length, HEADS, WIDTH, FIRST, REST)
        chance = chance.to(v1.dtype)
        o1 = tl.dot(chance, v1, o1 * shrink[:, None], input_precision=PRECISION)
        if REST:
            o2 = tl.dot(chance, v2, o2 * shrink[:, None], input_precision=PRECISION)
        most = higher
    start_next(EARLY)
    place = out + ((segment * length + i) * HEADS + head) * WIDTH
    d, e = tl.arange(0, FIRST), FIRST + tl.arange(0, max(REST, 1))
    o1, o2 = o1 / total[:, None], o2 / total[:, None]
    tl.store(place + d, o1.to(out.dtype.element_ty), mask=(i < length) & (d < WIDTH))
    if REST:
        tl.store(place + e, o2.to(out.dtype.element_ty), mask=(i < length) & (e < WIDTH))


@triton.jit
def _pieces(
    start, i, length, HEADS: tl.constexpr, WIDTH: tl.constexpr, FIRST: tl.constexpr,
    REST: tl.constexpr,
):  # fmt: skip
    """The first and the other values of head vectors i [.., 1] of a segment."""
    d, e = tl.arange(0, FIRST), FIRST + tl.arange(0, max(REST, 1))
    row, inside = start + i * 3 * HEADS * WIDTH, i < length
    first = tl.load(row + d, mask=inside & (d < WIDTH), other=0)
    return first, tl.load(row + e, mask=inside & (e < WIDTH), other=0) if REST else first


@triton.jit
def _rotated(place, c, s, inside, half):
    """Both halves of rows of head vectors after the rotary embedding."""
    first, second = (
        tl.load(place, mask=inside, other=0),
        tl.load(place + half, mask=inside, other=0),
    )
    a1, a2 = first.to(tl.float32), second.to(tl.float32)
    return (a1 * c - a2 * s).to(first.dtype), (a2 * c + a1 * s).to(second.dtype)


@triton.jit
def _rotate(
    qkv, cos, sin, slots, heads: tl.constexpr, half: tl.constexpr, HEADS: tl.constexpr,
    HALF: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Rotary embedding of all q and k heads of one slot, in place."""
    await_previous(EARLY)
    token = tl.program_id(0).to(tl.int64)
    h, d = tl.arange(0, HEADS), tl.arange(0, HALF)
    c = tl.load(cos + token % slots * 2 * half + d, mask=d < half, other=0)
    s = tl.load(sin + token % slots * 2 * half + d, mask=d < half, other=0)
    start_next(EARLY)
    inside = (h < 2 * heads)[:, None] & (d < half)
    place = qkv + token * 6 * heads * half + h[:, None] * 2 * half + d
    first, second = _rotated(place, c, s, inside, half)
    tl.store(place, first, mask=inside)
    tl.store(place + half, second, mask=inside)
