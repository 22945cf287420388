"""The hybrid decoder: sliding-window attention and Gated DeltaNet blocks over a stream's state."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .config import ModelConfig
from .state import StreamState, Turn
from .weights import Block, GatedDeltaNet, Weights


def decode(
    weights: Weights,
    x: Tensor,
    positions: Tensor,
    state: StreamState,
    rows: Tensor | None = None,
    lengths: Tensor | None = None,
) -> Tensor:
    """Run embedded tokens x [B, T, D] at `positions` [B, 3, T] (time, row, column).

    `rows` [B] are the streams' rows of `state` (default: all of them); only the first `lengths`
    [B] tokens count (default: all), what follows is padding whose outputs mean nothing. Updates
    `state` in place, in blocks of at most `state.block` tokens; any split of a sequence gives the
    same result up to rounding. Returns the outputs of the final norm [B, T, D].
    """
    outputs = []
    for first in range(0, x.shape[1], state.block):
        part = slice(first, first + state.block)
        part_positions = positions[..., part]
        left = None if lengths is None else (lengths - first).clamp(0, part_positions.shape[-1])
        turn = state.advance(part_positions, rows, left)
        h = _residual(x[:, part])
        rope = rope_tables(weights.config, part_positions)
        for i, block in enumerate(weights.layers):
            mixed = _mixer(weights, i, block, h, rope, turn, state)
            h = _finish(weights, block, mixed, h)
        outputs.append(weights.kernels.rms_norm(h, weights.norm, weights.config.rms_norm_eps))
    return torch.cat(outputs, 1) if len(outputs) > 1 else outputs[0]


def remember(
    weights: Weights, x: Tensor, turn: Turn, rope: tuple[Tensor, Tensor], state: StreamState
) -> None:
    """Only update `state` with tokens x [B, T, D] of a `turn` that it gave, as `decode` does.

    `rope` is what `rope_tables` gives for their positions. Nothing reads the outputs, so the work
    stops where the last layer's state is known.
    """
    x = _residual(x)
    *others, last = enumerate(weights.layers)
    for i, block in others:
        mixed = _mixer(weights, i, block, x, rope, turn, state)
        x = _finish(weights, block, mixed, x)
    _mixer(weights, *last, x, rope, turn, state)


def embed(weights: Weights, tokens: Tensor) -> Tensor:
    """Token ids [B, T] to embeddings [B, T, D]."""
    return F.embedding(tokens, weights.embed)


def logits(weights: Weights, hidden: Tensor) -> Tensor:
    """Scores over the vocabulary, float32, of normed outputs [..., D]."""
    return weights.kernels.scores(hidden, weights.head)


def rope_tables(config: ModelConfig, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine [B, 1, T, head_dim] of M-RoPE for positions [B, 3, T].

    Each frequency turns with one of the three axes: mrope_section tells how many go with time, row
    and column, in that order, within each half of the head. The angle is taken in float64: after
    a day of video, float32 would be off by a hundredth of a turn's radian.
    """
    half = config.head_dim // 2
    exponent = torch.arange(half, device=positions.device, dtype=torch.float64) / half
    axes = [
        positions[:, axis, :, None].expand(-1, -1, count)
        for axis, count in enumerate(config.mrope_section)
    ]
    angle = torch.cat(axes, -1).double() * config.rope_theta**-exponent
    angle = torch.cat((angle, angle), -1)[:, None]
    return angle.cos().float(), angle.sin().float()


def _residual(x: Tensor) -> Tensor:
    """A stream to add to, in float32; a copy, since kernels add in place."""
    return x.to(torch.float32, copy=True)


def _mixer(
    weights: Weights,
    layer: int,
    block: Block,
    x: Tensor,
    rope: tuple[Tensor, Tensor],
    turn: Turn,
    state: StreamState,
) -> Tensor:
    """A layer's attention or Gated DeltaNet up to its last projection; updates its state."""
    config, kernels, mixer = weights.config, weights.kernels, block.mixer
    eps = config.rms_norm_eps
    if isinstance(mixer, GatedDeltaNet):
        projected = kernels.norm_linear(x, block.norm1, eps, mixer.proj)
        memory = state.layer(layer, 'conv'), state.layer(layer, 'recurrent')
        return kernels.gated_delta_net(projected, mixer, *memory, turn, config)
    qkv = kernels.norm_linear(x, block.norm1, eps, mixer.qkv, mixer.qkv_bias)
    memory = state.layer(layer, 'keys'), state.layer(layer, 'values')
    return kernels.sliding_attention(qkv, rope, *memory, turn, config)


def _finish(weights: Weights, block: Block, mixed: Tensor, x: Tensor) -> Tensor:
    """The rest of a block, from what its mixer made of x."""
    kernels = weights.kernels
    x = kernels.linear_add(mixed, block.mixer.out, None, x)
    inner = kernels.norm_swiglu(x, block.norm2, weights.config.rms_norm_eps, block.mlp)
    return kernels.linear_add(inner, block.mlp.down, None, x)
