"""The network over whole streams at once, with questions on branches, differentiable throughout.

It computes what StreamingEngine does frame by frame (a test holds the two together), from the
same weights and operators; only the two mixers are written for long sequences. Text that opens the
stream is padded at the front to a chunk, so that frames and branches start where chunks do.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from infinitevl_ros.model import decoder, vision
from infinitevl_ros.model.weights import Attention, Block, GatedDeltaNet, Weights

from .delta import gated_delta_rule

CHUNK = 64  # tokens


@dataclass
class Streams:
    """B streams with Q branches each.

    `header` [tokens] are the ids that open a stream; `images` [B, F, N, D] the image tokens of its
    frames; `times` [B, F] their time positions; `cells` [3, N] as in engine.steps.Geometry.
    Branch q of a stream starts after `starts` [B, Q] frames, CHUNK / N frames apart, and reads
    `ids` [B, Q, T], T a multiple of 16.
    """

    header: Tensor
    images: Tensor
    times: Tensor
    cells: Tensor
    starts: Tensor
    ids: Tensor


@dataclass
class Plan:
    """What all layers need: how tokens lie, who sees whom, rotary tables.

    `length` and `padding` are tokens of a stream and its padding in front; `first` [B * Q] is the
    index in its stream of a branch's first token, `stream` [B * Q] whose it is.
    """

    batch: int
    length: int
    padding: int
    stream: Tensor
    first: Tensor
    stream_rope: tuple[Tensor, Tensor]
    branch_rope: tuple[Tensor, Tensor]


def image_tokens(weights: Weights, frames: Tensor) -> Tensor:
    """Image tokens [F, N, D] of frames, uint8 [F, H, W, 3]."""
    config = weights.config.vision
    count, height, width, _ = frames.shape
    # Frames below each other are one tall picture, whose patches come frame by frame.
    patches = vision.patchify(frames.flatten(0, 1), config, weights.dtype)
    grid = height // config.patch_size, width // config.patch_size
    return vision.encode(weights, patches.unflatten(0, (count, -1)), grid)


def start(weights: Weights, streams: Streams) -> tuple[Tensor, Plan]:
    """The embedded tokens [tokens of all streams and branches, D], float32, and their plan."""
    batch, frames, size, _ = streams.images.shape
    device, header = streams.images.device, len(streams.header)
    padding = -header % CHUNK
    opening = F.pad(decoder.embed(weights, streams.header), (0, 0, padding, 0))
    images = streams.images.flatten(1, 2)
    stream = torch.cat((opening.expand(batch, -1, -1).to(images.dtype), images), 1)
    branch = decoder.embed(weights, streams.ids)
    tokens = torch.cat((stream.flatten(0, 1), branch.flatten(0, 2)))

    text = torch.arange(-padding, header, device=device).expand(batch, 3, -1)
    cells = streams.cells[None, :, None] + header
    time = F.pad(streams.times[:, None, :, None], (0, 0, 0, 0, 0, 2))
    places = (cells + time).expand(-1, -1, frames, size).flatten(2)
    stream_positions = torch.cat((text, places), 2)
    # Text goes on behind the largest position so far.
    largest = places.view(batch, 3, frames, size).amax((1, 3)).cummax(1).values
    largest = largest.gather(1, streams.starts - 1)
    step = torch.arange(1, streams.ids.shape[2] + 1, device=device)
    branch_positions = (largest[..., None] + step).flatten(0, 1)[:, None].expand(-1, 3, -1)
    count = streams.starts.shape[1]
    plan = Plan(
        batch,
        stream.shape[1],
        padding,
        torch.arange(batch, device=device).repeat_interleave(count),
        (padding + header + streams.starts * size).flatten(),
        decoder.rope_tables(weights.config, stream_positions),
        decoder.rope_tables(weights.config, branch_positions),
    )
    return tokens.float(), plan


def run(weights: Weights, x: Tensor, plan: Plan) -> Tensor:
    """Final outputs of the branches' tokens [B * Q, T, D]."""
    for block in weights.layers:
        x = layer(weights, block, x, plan)
    branch = x[plan.batch * plan.length :].unflatten(0, (len(plan.first), -1))
    return weights.kernels.rms_norm(branch, weights.norm, weights.config.rms_norm_eps)


def layer(weights: Weights, block: Block, x: Tensor, plan: Plan) -> Tensor:
    """One residual block over the tokens of streams and branches."""
    kernels = weights.kernels
    mixed = mix(weights, block, x, plan)
    x = kernels.linear_add(mixed, block.mixer.out, None, x)
    inner = kernels.norm_swiglu(x, block.norm2, weights.config.rms_norm_eps, block.mlp)
    return kernels.linear_add(inner, block.mlp.down, None, x)


def mix(weights: Weights, block: Block, x: Tensor, plan: Plan) -> Tensor:
    """A block's mixer up to its last projection, [tokens, heads * head size]."""
    config, kernels, mixer = weights.config, weights.kernels, block.mixer
    cut = plan.batch * plan.length
    delta = isinstance(mixer, GatedDeltaNet)
    matrix, bias = (mixer.proj, None) if delta else (mixer.qkv, mixer.qkv_bias)
    projected = kernels.norm_linear(x, block.norm1, config.rms_norm_eps, matrix, bias)
    stream = projected[:cut].unflatten(0, (plan.batch, plan.length))
    branch = projected[cut:].unflatten(0, (len(plan.first), -1))
    of_kind = _delta_net if delta else _attention
    parts = of_kind(weights, mixer, stream, branch, plan)
    return torch.cat([part.flatten(0, 1) for part in parts])


def _delta_net(
    weights: Weights, mixer: GatedDeltaNet, stream: Tensor, branch: Tensor, plan: Plan
) -> tuple[Tensor, Tensor]:
    width = mixer.conv.shape[1]
    channels = sum(weights.config.linear_splits[:3])
    counts = torch.arange(plan.length, device=stream.device) >= plan.padding
    counts = counts.to(stream.dtype)[:, None]
    none = stream.new_zeros(plan.batch, width, channels)
    streamed, states = _delta_tokens(weights, mixer, stream, counts, none, CHUNK, None)
    behind = torch.arange(-width, 0, device=stream.device)
    history = stream[plan.stream[:, None], plan.first[:, None] + behind, :channels]
    before = states[plan.first // CHUNK, plan.stream]
    all_count = torch.ones_like(counts[: branch.shape[1]])
    chunk = min(CHUNK, branch.shape[1])
    asked, _ = _delta_tokens(weights, mixer, branch, all_count, history, chunk, before)
    return streamed, asked


def _delta_tokens(
    weights: Weights,
    mixer: GatedDeltaNet,
    projected: Tensor,
    counts: Tensor,
    history: Tensor,
    chunk: int,
    state: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Outputs of a Gated DeltaNet for projected tokens, and its states; see gated_delta_rule."""
    kernels, config = weights.kernels, weights.config
    *inputs, gate = kernels.delta_inputs(projected, counts, history, mixer, config)
    parts = kernels.solve_chunks, kernels.read_chunks
    o, states = gated_delta_rule(*inputs, chunk, state, parts)
    return kernels.gated_rms_norm(o, gate, mixer.norm, config.norm_eps).flatten(2), states


def _attention(
    weights: Weights, mixer: Attention, stream: Tensor, branch: Tensor, plan: Plan
) -> tuple[Tensor, Tensor]:
    config, rotate = weights.config, weights.kernels.rotate
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads

    def parts(qkv: Tensor, rope: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        qkv = qkv.unflatten(-1, (heads + 2 * kv_heads, config.head_dim)).transpose(1, 2)
        q, k, v = qkv.split((heads, kv_heads, kv_heads), 1)
        # Repeated, because PyTorch's fast masked attention knows no grouped heads.
        k, v = (x.repeat_interleave(heads // kv_heads, 1) for x in (rotate(k, *rope), v))
        return rotate(q, *rope), k, v

    q, k, v = parts(stream, plan.stream_rope)
    bq, bk, bv = parts(branch, plan.branch_rope)
    window = config.sliding_window
    streamed = _within(q, k, v, window, plan.padding)
    asked = _across((bq, bk, bv), (k, v), window, plan)
    return streamed.transpose(1, 2).flatten(2), asked.transpose(1, 2).flatten(2)


def _across(
    branch: tuple[Tensor, Tensor, Tensor],
    stream: tuple[Tensor, Tensor],
    window: int,
    plan: Plan,
) -> Tensor:
    """Attention of branches to their streams and themselves, [B * Q, heads, T, head_dim].

    All branches of a stream are one sequence of queries: nothing of the stream is copied. They are
    shorter than the window, so that each token sees all of its branch that is before it.
    """
    batch, length = plan.batch, branch[0].shape[2]
    q, k, v = (x.unflatten(0, (batch, -1)).transpose(1, 2).flatten(2, 3) for x in branch)
    k, v = (torch.cat((past, now), 2) for past, now in zip(stream, (k, v), strict=True))
    step = torch.arange(length, device=q.device)
    first = plan.first.view(batch, -1, 1)
    query = (first + step).flatten(1)[..., None]
    place = torch.arange(plan.length, device=q.device)
    far = (place < first.expand(-1, -1, length).flatten(1)[..., None]) & (place > query - window)
    far &= place >= plan.padding
    own = torch.arange(q.shape[2], device=q.device)
    near = (own // length == own[:, None] // length) & (own <= own[:, None])
    mask = torch.cat((far, near.expand(batch, -1, -1)), 2)[:, None]
    o = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return o.unflatten(2, (-1, length)).transpose(1, 2).flatten(0, 1)


def _within(q: Tensor, k: Tensor, v: Tensor, window: int, padding: int) -> Tensor:
    """Causal attention of a stream within itself, [B, heads, L, head_dim].

    Blocks of queries see the keys of their own block and of as many before it as a window spans.
    """
    batch, _, length, _ = q.shape
    block = CHUNK if window < length else length
    back = window if window < length else 0
    blocks = length // block
    q = q.unflatten(2, (blocks, block)).transpose(1, 2).flatten(0, 1)
    k, v = (
        F.pad(x, (0, 0, back, 0))
        .unfold(2, block + back, block)
        .permute(0, 2, 1, 4, 3)
        .flatten(0, 1)
        for x in (k, v)
    )
    query = torch.arange(length, device=q.device).view(blocks, block, 1)
    key = torch.arange(-back, block, device=q.device) + query[:, :1]
    mask = (key <= query) & (key > query - window) & (key >= padding)
    # What stands before the first token sees itself: a softmax over nothing is no number.
    mask |= (query < padding) & (key == query)
    mask = mask.repeat(batch, 1, 1)[:, None]
    o = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return o.unflatten(0, (batch, blocks)).transpose(1, 2).flatten(2, 3)
