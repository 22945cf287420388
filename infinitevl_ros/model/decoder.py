"""The hybrid decoder: sliding-window attention and Gated DeltaNet blocks over a stream's state."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from . import kernels
from .config import ModelConfig
from .state import StreamState, Window
from .weights import Attention, Block, GatedDeltaNet, Mlp, Weights


def decode(weights: Weights, x: Tensor, positions: Tensor, state: StreamState) -> Tensor:
    """Run embedded tokens x [B, T, D] at `positions` [B, 3, T] (time, row, column).

    Updates `state` in place, in blocks of at most `state.block` tokens; any split of a sequence
    gives the same result up to rounding. Returns the outputs of the final norm [B, T, D].
    """
    blocks = zip(x.split(state.block, 1), positions.split(state.block, 2), strict=True)
    return torch.cat([_decode_block(weights, *block, state) for block in blocks], 1)


def embed(weights: Weights, tokens: Tensor) -> Tensor:
    """Token ids [B, T] to embeddings [B, T, D]."""
    return F.embedding(tokens, weights.embed)


def logits(weights: Weights, hidden: Tensor) -> Tensor:
    """Scores over the vocabulary, float32, of normed outputs [..., D]."""
    return F.linear(hidden, weights.head).float()


def rope_tables(config: ModelConfig, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine [B, 1, T, head_dim] of M-RoPE for positions [B, 3, T].

    Each frequency turns with one of the three axes: mrope_section tells how many go with time, row
    and column, in that order, within each half of the head.
    """
    half = config.head_dim // 2
    exponent = torch.arange(half, device=positions.device, dtype=torch.float32) / half
    axes = [
        positions[:, axis, :, None].expand(-1, -1, count)
        for axis, count in enumerate(config.mrope_section)
    ]
    angle = torch.cat(axes, -1).float() * config.rope_theta**-exponent
    angle = torch.cat((angle, angle), -1)[:, None]
    return angle.cos(), angle.sin()


def swiglu(x: Tensor, mlp: Mlp) -> Tensor:
    """down(SiLU(gate(x)) * up(x))."""
    gate, up = F.linear(x, mlp.gate_up, mlp.gate_up_bias).chunk(2, -1)
    return F.linear(F.silu(gate) * up, mlp.down, mlp.down_bias)


def _decode_block(weights: Weights, x: Tensor, positions: Tensor, state: StreamState) -> Tensor:
    config = weights.config
    window = state.advance(positions)
    rope = rope_tables(config, positions)
    for i, block in enumerate(weights.layers):
        h = kernels.rms_norm(x, block.norm1, config.rms_norm_eps)
        x = x + _mix(config, i, block, h, rope, window, state)
        h = kernels.rms_norm(x, block.norm2, config.rms_norm_eps)
        x = x + swiglu(h, block.mlp)
    return kernels.rms_norm(x, weights.norm, config.rms_norm_eps)


def _mix(
    config: ModelConfig,
    layer: int,
    block: Block,
    h: Tensor,
    rope: tuple[Tensor, Tensor],
    window: Window,
    state: StreamState,
) -> Tensor:
    if isinstance(block.mixer, GatedDeltaNet):
        return _gated_delta_net(config, layer, block.mixer, h, state)
    return _sliding_attention(config, layer, block.mixer, h, rope, window, state)


def _sliding_attention(
    config: ModelConfig,
    layer: int,
    mixer: Attention,
    h: Tensor,
    rope: tuple[Tensor, Tensor],
    window: Window,
    state: StreamState,
) -> Tensor:
    heads, kv_heads, width = (
        config.num_attention_heads,
        config.num_key_value_heads,
        config.head_dim,
    )
    qkv = F.linear(h, mixer.qkv, mixer.qkv_bias)
    qkv = qkv.unflatten(-1, (heads + 2 * kv_heads, width)).transpose(1, 2)
    q, k, v = qkv.split((heads, kv_heads, kv_heads), 1)
    keys = state.write(layer, 'keys', window, kernels.rotate(k, *rope))
    values = state.write(layer, 'values', window, v)
    o = kernels.ring_attention(kernels.rotate(q, *rope), keys, values, window.visible)
    return F.linear(o.transpose(1, 2).flatten(2), mixer.out)


def _gated_delta_net(
    config: ModelConfig, layer: int, mixer: GatedDeltaNet, h: Tensor, state: StreamState
) -> Tensor:
    heads, splits = config.num_linear_heads, config.linear_splits
    history, recurrent = state.layer(layer, 'conv'), state.layer(layer, 'recurrent')
    mixed, gate, a, b = F.linear(h, mixer.proj).split((sum(splits[:3]), *splits[3:]), -1)
    mixed, new_history = kernels.short_conv(mixed, history, mixer.conv)
    q, k, v = (x.unflatten(-1, (heads, -1)) for x in mixed.split(splits[:3], -1))
    decay = -mixer.a_log.exp() * F.softplus(a.float() + mixer.dt_bias)
    o, new_recurrent = kernels.delta_rule(q, k, v, decay, b.float().sigmoid(), recurrent)
    history.copy_(new_history)
    recurrent.copy_(new_recurrent)
    gate = gate.unflatten(-1, (heads, -1))
    o = kernels.gated_rms_norm(o, gate, mixer.norm, config.norm_eps)
    return F.linear(o.flatten(2), mixer.out)
