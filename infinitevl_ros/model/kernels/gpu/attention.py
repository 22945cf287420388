"""Attention in Triton: of new tokens to the ring they were written to."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from ...config import ModelConfig
from ...state import Turn
from .launch import await_previous, launch, start_next

KEYS = 64  # neighbouring slots of the ring that a program looks at at once
# Programs that keep every multiprocessor busy, two on each.
PROGRAMS = 256
MOST_SPLITS = 64


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
    launch(
        _rotate_and_write, (batch * tokens,),
        qkv, *rope, q, keys, values, turn.rows, turn.cursor, turn.lengths, tokens, turn.ring,
        keys.stride(0), heads, kv_heads, triton.next_power_of_2(heads + 2 * kv_heads), width,
        num_warps=4,
    )  # fmt: skip
    rows = tokens * group
    block = 64 if rows >= 64 else 16
    blocks = triton.cdiv(rows, block)
    splits = triton.next_power_of_2(max(1, PROGRAMS // (blocks * batch * kv_heads)))
    splits = min(splits, MOST_SPLITS)
    parts = q.new_empty(batch * kv_heads, splits, rows, width)
    sums = parts.new_empty(batch * kv_heads, splits, rows, dtype=torch.float32)
    hopper, rings = torch.cuda.get_device_capability(q.device) >= (9, 0), (keys, values)
    if hopper:  # which copies whole tiles by itself
        rings = [TensorDescriptor.from_tensor(x.flatten(1, 2), [1, KEYS, width]) for x in rings]
    launch(
        _ring_attention, (blocks, splits, batch * kv_heads),
        q, *rings, parts, sums, turn.rows, turn.start, turn.cursor, turn.lengths, tokens,
        turn.ring, turn.window, keys.stride(0), width**-0.5, kv_heads, group, width, block, KEYS,
        hopper, 'ieee' if q.dtype == torch.float32 else 'tf32', num_warps=4,
        num_stages=1 if q.dtype == torch.float32 else 3 if hopper else 2,
    )  # fmt: skip
    out = q.new_empty(batch, tokens, heads * width)
    together = max(1, 32 // splits)
    launch(
        _join, (triton.cdiv(rows, together), batch * kv_heads),
        parts, sums, out, tokens, kv_heads, group, width, splits, together,
        num_warps=4 if together > 1 else 1,
    )  # fmt: skip
    return out


@triton.jit
def _rotate_and_write(
    qkv, cos, sin, q, keys, values, rows, cursor, lengths, tokens, ring, row_size,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, ALL: tl.constexpr, WIDTH: tl.constexpr,
    EARLY: tl.constexpr,
):  # fmt: skip
    """All heads of one token: queries to `q`, keys and values to their ring slot."""
    await_previous(EARLY)
    token = tl.program_id(0).to(tl.int64)
    b, t = token // tokens, token % tokens
    half: tl.constexpr = WIDTH // 2
    head, d = tl.arange(0, ALL)[:, None], tl.arange(0, half)
    x = qkv + (token * (HEADS + 2 * KV_HEADS) + head) * WIDTH + d
    inside = head < HEADS + 2 * KV_HEADS
    first, second = tl.load(x, mask=inside), tl.load(x + half, mask=inside)
    c, s = tl.load(cos + token * WIDTH + d), tl.load(sin + token * WIDTH + d)
    a1, a2 = first.to(tl.float32), second.to(tl.float32)
    start_next(EARLY)
    turned = head < HEADS + KV_HEADS
    first = tl.where(turned, (a1 * c - a2 * s).to(first.dtype), first)
    second = tl.where(turned, (a2 * c + a1 * s).to(second.dtype), second)
    place = q + (token * HEADS + head) * WIDTH + d
    tl.store(place, first, mask=head < HEADS)
    tl.store(place + half, second, mask=head < HEADS)
    counts = t < tl.load(lengths + b)
    slot = (tl.load(cursor + b) + t) % ring
    start = tl.load(rows + b) * row_size + slot * WIDTH + d
    kv_head = head - HEADS
    is_key = (kv_head >= 0) & turned & counts
    tl.store(keys + start + kv_head * ring * WIDTH, first, mask=is_key)
    tl.store(keys + start + kv_head * ring * WIDTH + half, second, mask=is_key)
    kv_head -= KV_HEADS
    is_value = (kv_head >= 0) & inside & counts
    tl.store(values + start + kv_head * ring * WIDTH, first, mask=is_value)
    tl.store(values + start + kv_head * ring * WIDTH + half, second, mask=is_value)


@triton.jit
def _attend(
    o, most, total, query, rings, walk, at, t, limits, scale, KEYS: tl.constexpr,
    TILES: tl.constexpr, MASKED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Take a tile of keys, `at` on the walk, into the running softmax of a query block."""
    keys, values, row, kv_start, slots, row_size = rings
    begin, slot, ring, padded = walk
    oldest, newest, window = limits
    slot += at - begin
    at -= tl.where(slot >= padded, padded - ring, 0)
    slot -= tl.where(slot >= padded, padded, 0)
    width: tl.constexpr = query.shape[1]
    key = _tile(keys, row, kv_start + slot, slots, row_size, KEYS, width, TILES)
    s = tl.dot(query, key.T, input_precision=PRECISION)
    if MASKED:
        i = tl.arange(0, KEYS)
        p = at + i
        there = (slot + i < ring) & (p >= oldest) & (p <= newest)
        sees = (p[None, :] <= t[:, None]) & (p[None, :] > t[:, None] - window)
        s = tl.where(sees & there[None, :], s, -float('inf'))
    higher = tl.maximum(most, tl.max(s, 1) * scale)
    # A query that has seen nothing yet must not subtract infinities.
    base = tl.where(higher == -float('inf'), 0.0, higher) if MASKED else higher
    chance = tl.exp2(s * scale - base[:, None])
    shrink = tl.exp2(most - base)
    total = total * shrink + tl.sum(chance, 1)
    value = _tile(values, row, kv_start + slot, slots, row_size, KEYS, width, TILES)
    o = tl.dot(chance.to(value.dtype), value, o * shrink[:, None], input_precision=PRECISION)
    return o, higher, total


@triton.jit
def _tile(
    ring, row, slot, slots, row_size, KEYS: tl.constexpr, WIDTH: tl.constexpr,
    TILES: tl.constexpr,
):  # fmt: skip
    """The vectors of KEYS slots, of the `slots` that all heads of a row have; 0 beyond those."""
    if TILES:
        return ring.load([row.to(tl.int32), slot, 0]).reshape(KEYS, WIDTH)
    else:
        slot += tl.arange(0, KEYS)[:, None]
        place = ring + row * row_size + slot * WIDTH + tl.arange(0, WIDTH)
        return tl.load(place, mask=slot < slots, other=0)


@triton.jit
def _ring_attention(
    q, keys, values, parts, sums, rows, start, cursor, lengths, tokens, ring, window, row_size,
    scale, KV_HEADS: tl.constexpr, GROUP: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
    KEYS: tl.constexpr, TILES: tl.constexpr, PRECISION: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """A block of queries against one share of the keys it sees.

    Positions are counted from the first new token: negative ones came before. The walk over the
    ring goes in whole tiles of KEYS slots, the first of which may begin before the oldest key; at
    the ring's end a tile may hang over by `gap` slots, which the walk counts too.
    """
    await_previous(EARLY)
    block, split, pair = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    b, kv_head = pair // KV_HEADS, pair % KV_HEADS
    rows_of_pair = tokens * GROUP
    m = block * BLOCK + tl.arange(0, BLOCK)
    d = tl.arange(0, WIDTH)
    t = m // GROUP
    head = kv_head * GROUP + m % GROUP
    place = ((b * tokens + t) * KV_HEADS * GROUP + head)[:, None] * WIDTH + d
    query = tl.load(q + place, mask=(m < rows_of_pair)[:, None], other=0)
    row = tl.load(rows + b)
    before = tl.minimum(tl.load(start + b), window).to(tl.int32)
    origin = tl.load(cursor + b).to(tl.int32)
    length = tl.load(lengths + b).to(tl.int32)

    earliest = block * BLOCK // GROUP  # query of this block, and the latest
    latest = (block * BLOCK + BLOCK - 1) // GROUP
    oldest = tl.maximum(-before, earliest - window + 1)
    newest = tl.minimum(latest, length - 1)
    slot = (origin + oldest + ring) % ring
    padded = tl.cdiv(ring, KEYS) * KEYS
    gap = padded - ring
    begin = oldest - slot % KEYS
    slot -= slot % KEYS
    end = newest + 1
    end += tl.where(slot + end - begin > ring, gap, 0)
    share = tl.cdiv(tl.cdiv(end - begin, tl.num_programs(1)), KEYS) * KEYS
    first = begin + split * share
    end = tl.minimum(first + share, end)
    # In between, every query sees every key.
    seen_by_all = tl.maximum(tl.maximum(latest - window + 1, oldest) - first, 0)
    low = tl.minimum(first + tl.cdiv(seen_by_all, KEYS) * KEYS, end)
    high = low + tl.maximum(tl.minimum(end, earliest + 1) - low, 0) // KEYS * KEYS
    high = tl.where(gap == 0, high, low)
    most = tl.full((BLOCK,), -float('inf'), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    o = tl.zeros((BLOCK, WIDTH), tl.float32)
    scale *= 1.4426950408889634  # powers of 2 instead of e
    rings = (keys, values, row, kv_head * ring, KV_HEADS * ring, row_size)
    walk, limits = (begin, slot, ring, padded), (oldest, newest, window)
    for at in range(first, low, KEYS):
        o, most, total = _attend(
            o, most, total, query, rings, walk, at, t, limits, scale, KEYS, TILES, True, PRECISION
        )
    for at in range(low, high, KEYS):
        o, most, total = _attend(
            o, most, total, query, rings, walk, at, t, limits, scale, KEYS, TILES, False, PRECISION
        )
    for at in range(high, end, KEYS):
        o, most, total = _attend(
            o, most, total, query, rings, walk, at, t, limits, scale, KEYS, TILES, True, PRECISION
        )
    start_next(EARLY)
    at = (pair * tl.num_programs(1) + split) * rows_of_pair + m
    inside = m < rows_of_pair
    seen = tl.where(total > 0, total, 1.0)
    tl.store(parts + at[:, None] * WIDTH + d, o / seen[:, None], mask=inside[:, None])
    tl.store(sums + at, tl.where(total > 0, most + tl.log2(seen), -float('inf')), mask=inside)


@triton.jit
def _join(
    parts, sums, out, tokens, KV_HEADS: tl.constexpr, GROUP: tl.constexpr, WIDTH: tl.constexpr,
    SPLITS: tl.constexpr, TOGETHER: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """The splits' outputs of some queries, weighted by the share of the sum each has seen."""
    await_previous(EARLY)
    m, pair = tl.program_id(0) * TOGETHER + tl.arange(0, TOGETHER), tl.program_id(1)
    b, kv_head = pair // KV_HEADS, pair % KV_HEADS
    split, d = tl.arange(0, SPLITS), tl.arange(0, WIDTH)
    rows = tokens * GROUP
    at = (pair * SPLITS + split[None, :]) * rows + m[:, None]
    inside = (m < rows)[:, None]
    s = tl.load(sums + at, mask=inside, other=0)
    most = tl.max(s, 1)[:, None]
    share = tl.exp2(s - tl.where(most == -float('inf'), 0.0, most))
    share /= tl.maximum(tl.sum(share, 1), 1e-30)[:, None]
    part = tl.load(parts + at[:, :, None] * WIDTH + d, mask=inside[:, :, None], other=0)
    start_next(EARLY)
    o = tl.sum(part.to(tl.float32) * share[:, :, None], 1)
    t, head = m // GROUP, kv_head * GROUP + m % GROUP
    place = out + ((b * tokens + t).to(tl.int64) * KV_HEADS * GROUP + head)[:, None] * WIDTH + d
    tl.store(place, o.to(out.dtype.element_ty), mask=inside)
