"""Attention in Triton: of new tokens to the ring they were written to."""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...config import ModelConfig
from ...state import Turn

KEYS = 128  # keys a program looks at at once
# Programs that keep every multiprocessor busy.
PROGRAMS = 128
MOST_SPLITS = 64
SHORT = 128  # slots of a segment that a program of `_short_segment` holds
LONG_SEGMENTS = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]


def sliding_attention(
    qkv: Tensor,
    rope: tuple[Tensor, Tensor],
    keys: Tensor,
    values: Tensor,
    turn: Turn,
    config: ModelConfig,
) -> Tensor:
    """See `plain.sliding_attention`.

    The keys of a query block are shared out among programs, whose parts are joined by their
    log-sum-exp. The query heads that share a key head go together as rows of one block.
    """
    batch, tokens, _ = qkv.shape
    heads, kv_heads, width = (
        config.num_attention_heads,
        config.num_key_value_heads,
        config.head_dim,
    )
    group = heads // kv_heads
    q = qkv.new_empty(batch, tokens, heads, width)
    _rotate_and_write[(batch * tokens, heads + 2 * kv_heads)](
        qkv, *rope, q, keys, values, turn.rows, turn.cursor, turn.lengths, tokens, turn.ring,
        keys.stride(0), heads, kv_heads, width, num_warps=1,
    )  # fmt: skip
    rows = tokens * group
    block = 128 if rows >= 1024 else 64 if rows >= 64 else 16
    blocks = triton.cdiv(rows, block)
    splits = triton.next_power_of_2(max(1, PROGRAMS // (blocks * batch * kv_heads)))
    splits = min(splits, MOST_SPLITS)
    parts = q.new_empty(batch * kv_heads, splits, rows, width, dtype=torch.float32)
    sums = parts.new_empty(batch * kv_heads, splits, rows)
    _ring_attention[(blocks, splits, batch * kv_heads)](
        q, keys, values, parts, sums, turn.rows, turn.start, turn.cursor, turn.lengths, tokens,
        turn.ring, turn.window, keys.stride(0), width**-0.5, kv_heads, group, width, block, KEYS,
        'ieee' if q.dtype == torch.float32 else 'tf32', num_warps=8 if block == 128 else 4,
        num_stages=3 if q.dtype != torch.float32 else 1,
    )  # fmt: skip
    out = q.new_empty(batch, tokens, heads * width)
    _join[(rows, batch * kv_heads)](
        parts, sums, out, tokens, kv_heads, group, width, splits, num_warps=1
    )
    return out


def segment_attention(
    qkv: Tensor, rope: tuple[Tensor, Tensor], heads: int, length: int, valid: Tensor | None
) -> Tensor:
    """See `plain.segment_attention`; `qkv` may be rotated in place."""
    frames, slots, width = qkv.shape
    head = width // (3 * heads)
    half_block = max(16, triton.next_power_of_2(head // 2))
    if length <= SHORT:
        out = qkv.new_empty(frames, slots, heads * head)
        _short_segment[(frames * slots // length, heads)](
            qkv, *rope, valid, out, slots, head**-0.5, heads, head, length,
            max(16, triton.next_power_of_2(length)), half_block,
            max(16, triton.next_power_of_2(head)),
            'ieee' if qkv.dtype == torch.float32 else 'tf32', num_warps=4,
        )  # fmt: skip
        return out
    _rotate[(frames * slots,)](
        qkv, *rope, slots, heads, head // 2, triton.next_power_of_2(2 * heads), half_block,
        num_warps=2,
    )  # fmt: skip
    q, k, v = qkv.view(-1, length, 3, heads, head).permute(2, 0, 3, 1, 4)
    mask = None
    if valid is not None:
        mask = valid.repeat(frames, 1)[:, None, None]
    with sdpa_kernel(LONG_SEGMENTS, set_priority=True):
        o = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return o.transpose(1, 2).reshape(frames, slots, -1)


@triton.jit
def _rotate_and_write(
    qkv, cos, sin, q, keys, values, rows, cursor, lengths, tokens, ring, row_size,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """One head of one token: queries to `q`, keys and values to their ring slot."""
    token, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    b, t = token // tokens, token % tokens
    half: tl.constexpr = WIDTH // 2
    d = tl.arange(0, half)
    x = qkv + (token * (HEADS + 2 * KV_HEADS) + head) * WIDTH + d
    first, second = tl.load(x), tl.load(x + half)
    if head < HEADS + KV_HEADS:
        c = tl.load(cos + token * WIDTH + d)
        s = tl.load(sin + token * WIDTH + d)
        a1, a2 = first.to(tl.float32), second.to(tl.float32)
        first = (a1 * c - a2 * s).to(first.dtype)
        second = (a2 * c + a1 * s).to(second.dtype)
    if head < HEADS:
        place = q + (token * HEADS + head) * WIDTH + d
        tl.store(place, first)
        tl.store(place + half, second)
    else:
        counts = t < tl.load(lengths + b)
        slot = (tl.load(cursor + b) + t) % ring
        start = tl.load(rows + b) * row_size
        if head < HEADS + KV_HEADS:
            place = keys + start + ((head - HEADS) * ring + slot) * WIDTH + d
        else:
            place = values + start + ((head - HEADS - KV_HEADS) * ring + slot) * WIDTH + d
        tl.store(place, first, mask=counts)
        tl.store(place + half, second, mask=counts)


@triton.jit
def _attend(
    o, most, total, query, keys, values, at, end, t, origin, ring, window, scale, d,
    WIDTH: tl.constexpr, KEYS: tl.constexpr, MASKED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Take KEYS keys from `at` on into the running softmax of a query block."""
    p = at + tl.arange(0, KEYS)
    slot = origin + p
    slot = tl.where(slot < 0, slot + ring, tl.where(slot >= ring, slot - ring, slot))
    place_k = keys + slot[None, :] * WIDTH + d[:, None]
    if MASKED:
        key = tl.load(place_k, mask=(p < end)[None, :], other=0)
    else:
        key = tl.load(place_k)
    s = tl.dot(query, key, input_precision=PRECISION) * scale
    if MASKED:
        sees = (p[None, :] <= t[:, None]) & (p[None, :] > t[:, None] - window)
        s = tl.where(sees & (p < end)[None, :], s, -float('inf'))
    higher = tl.maximum(most, tl.max(s, 1))
    # A query that has seen nothing yet must not subtract infinities.
    base = tl.where(higher == -float('inf'), 0.0, higher) if MASKED else higher
    chance = tl.exp2(s - base[:, None])
    shrink = tl.exp2(most - base)
    total = total * shrink + tl.sum(chance, 1)
    place_v = values + slot[:, None] * WIDTH + d[None, :]
    if MASKED:
        value = tl.load(place_v, mask=(p < end)[:, None], other=0)
    else:
        value = tl.load(place_v)
    o = tl.dot(chance.to(value.dtype), value, o * shrink[:, None], input_precision=PRECISION)
    return o, higher, total


@triton.jit
def _ring_attention(
    q, keys, values, parts, sums, rows, start, cursor, lengths, tokens, ring, window, row_size,
    scale, KV_HEADS: tl.constexpr, GROUP: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
    KEYS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A block of queries against one share of the keys it sees.

    Keys are counted from the first new token: negative ones came before.
    """
    block, split, pair = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    b, kv_head = pair // KV_HEADS, pair % KV_HEADS
    rows_of_pair = tokens * GROUP
    m = block * BLOCK + tl.arange(0, BLOCK)
    d = tl.arange(0, WIDTH)
    t = m // GROUP
    head = kv_head * GROUP + m % GROUP
    place = ((b * tokens + t) * KV_HEADS * GROUP + head)[:, None] * WIDTH + d
    query = tl.load(q + place, mask=(m < rows_of_pair)[:, None], other=0)
    offset = tl.load(rows + b) * row_size + kv_head.to(tl.int64) * ring * WIDTH
    keys += offset
    values += offset
    before = tl.minimum(tl.load(start + b), window).to(tl.int32)
    origin = tl.load(cursor + b).to(tl.int32)
    length = tl.load(lengths + b).to(tl.int32)

    earliest = block * BLOCK // GROUP  # query of this block, and the latest
    latest = (block * BLOCK + BLOCK - 1) // GROUP
    oldest = tl.maximum(-before, earliest - window + 1)
    newest = tl.minimum(latest, length - 1)
    share = tl.cdiv(tl.cdiv(newest + 1 - oldest, tl.num_programs(1)), KEYS) * KEYS
    first = oldest + split * share
    end = tl.minimum(first + share, newest + 1)
    # In between, every query sees every key.
    seen_by_all = tl.maximum(latest - window + 1 - first, 0)
    low = tl.minimum(first + tl.cdiv(seen_by_all, KEYS) * KEYS, end)
    high = low + tl.maximum(tl.minimum(end, earliest + 1) - low, 0) // KEYS * KEYS
    most = tl.full((BLOCK,), -float('inf'), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    o = tl.zeros((BLOCK, WIDTH), tl.float32)
    scale *= 1.4426950408889634  # powers of 2 instead of e
    for at in range(first, low, KEYS):
        o, most, total = _attend(
            o, most, total, query, keys, values, at, end, t, origin, ring, window, scale, d,
            WIDTH, KEYS, True, PRECISION,
        )  # fmt: skip
    for at in range(low, high, KEYS):
        o, most, total = _attend(
            o, most, total, query, keys, values, at, end, t, origin, ring, window, scale, d,
            WIDTH, KEYS, False, PRECISION,
        )  # fmt: skip
    for at in range(high, end, KEYS):
        o, most, total = _attend(
            o, most, total, query, keys, values, at, end, t, origin, ring, window, scale, d,
            WIDTH, KEYS, True, PRECISION,
        )  # fmt: skip
    at = (pair * tl.num_programs(1) + split) * rows_of_pair + m
    inside = m < rows_of_pair
    seen = tl.where(total > 0, total, 1.0)
    tl.store(parts + at[:, None] * WIDTH + d, o / seen[:, None], mask=inside[:, None])
    tl.store(sums + at, tl.where(total > 0, most + tl.log2(seen), -float('inf')), mask=inside)


@triton.jit
def _join(
    parts, sums, out, tokens, KV_HEADS: tl.constexpr, GROUP: tl.constexpr, WIDTH: tl.constexpr,
    SPLITS: tl.constexpr,
):  # fmt: skip
    """The splits' outputs of one query, weighted by the share of the sum each has seen."""
    m, pair = tl.program_id(0), tl.program_id(1)
    b, kv_head = pair // KV_HEADS, pair % KV_HEADS
    split, d = tl.arange(0, SPLITS), tl.arange(0, WIDTH)
    at = (pair * SPLITS + split) * tokens * GROUP + m
    s = tl.load(sums + at)
    most = tl.max(s, 0)
    share = tl.exp2(s - tl.where(most == -float('inf'), 0.0, most))
    o = tl.load(parts + at[:, None] * WIDTH + d) * share[:, None]
    o = tl.sum(o, 0) / tl.maximum(tl.sum(share, 0), 1e-30)
    t, head = m // GROUP, kv_head * GROUP + m % GROUP
    place = out + ((b * tokens + t).to(tl.int64) * KV_HEADS * GROUP + head) * WIDTH + d
    tl.store(place, o.to(out.dtype.element_ty))


@triton.jit
def _short_segment(
    qkv, cos, sin, valid, out, slots, scale, HEADS: tl.constexpr, WIDTH: tl.constexpr,
    LENGTH: tl.constexpr, SLOTS: tl.constexpr, HALF: tl.constexpr, FULL: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """One head of one segment, rotated as it is loaded."""
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
    HALF: tl.constexpr,
):  # fmt: skip
    """Rotary embedding of all q and k heads of one slot, in place."""
    token = tl.program_id(0).to(tl.int64)
    h, d = tl.arange(0, HEADS), tl.arange(0, HALF)
    c = tl.load(cos + token % slots * 2 * half + d, mask=d < half, other=0)
    s = tl.load(sin + token % slots * 2 * half + d, mask=d < half, other=0)
    inside = (h < 2 * heads)[:, None] & (d < half)
    place = qkv + token * 6 * heads * half + h[:, None] * 2 * half + d
    first, second = _rotated(place, c, s, inside, half)
    tl.store(place, first, mask=inside)
    tl.store(place + half, second, mask=inside)
