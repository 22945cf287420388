"""Every operator in plain torch: runs anywhere, differentiable; other backends are held to it.

Shapes: B streams, T new tokens, H heads, K and V the key and value width of a delta head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import ModelConfig
from ..state import Turn

if TYPE_CHECKING:
    from ..weights import GatedDeltaNet, Mlp

# Tokens the chunked delta rule takes at once: a triangular solve of this size per head.
CHUNK = 64


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root-mean-square norm over the last axis, summed in float32, in the dtype of `weight`."""
    wide = x.float()
    scaled = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return scaled.to(weight.dtype) * weight


def gated_rms_norm(x: Tensor, gate: Tensor, weight: Tensor, eps: float) -> Tensor:
    """rms_norm(x) * SiLU(gate), in the dtype of `gate`."""
    return (rms_norm(x.float(), weight.float(), eps) * F.silu(gate.float())).to(gate.dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of x [..., head_dim]; cos and sin are float32 and broadcast to x."""
    wide = x.float()
    first, second = wide.chunk(2, -1)
    return (wide * cos + torch.cat((-second, first), -1) * sin).to(x.dtype)


def short_conv(x: Tensor, history: Tensor, weight: Tensor) -> Tensor:
    """Causal depthwise convolution, then SiLU.

    x [B, T, C]; history [B, W, C], the last W inputs before x, newest last; weight [C, W].
    """
    width, length = weight.shape[1], x.shape[1]
    padded = torch.cat((history, x), 1)
    # y[t] = sum over i of weight[i] * input[t - (W - 1) + i]; `padded` starts W before x.
    return F.silu(sum(padded[:, i + 1 : i + 1 + length] * weight[:, i] for i in range(width)))


def delta_rule(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """Gated delta rule over T tokens (Yang et al., Gated Delta Networks, 2024), all in float32.

    q, k [B, T, H, K], not yet normalised; v [B, T, H, V]; g (log decay) and beta [B, T, H];
    state [B, H, K, V]. Per token: S <- exp(g) S; S <- S + k (beta (v - S^T k))^T; o = S^T q, with
    q and k of unit length and q scaled by K ** -0.5. Returns o [B, T, H, V] and the state after.
    """
    q, k = (_unit(x.float()).transpose(1, 2) for x in (q, k))
    q = q * q.shape[-1] ** -0.5
    v = v.float().transpose(1, 2)
    g, beta = (x.float().transpose(1, 2) for x in (g, beta))
    if q.shape[2] == 1:
        o, state = _delta_step(q, k, v, g, beta, state)
        return o.transpose(1, 2), state
    outputs = []
    for part in zip(*(x.split(CHUNK, dim=2) for x in (q, k, v, g, beta)), strict=True):
        o, state = _delta_chunk(*part, state)
        outputs.append(o)
    return torch.cat(outputs, 2).transpose(1, 2), state


def _unit(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6)


def _delta_step(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    state = state * g.exp()[..., None]
    correction = beta[..., None] * (v - k @ state)
    state = state + k.transpose(-1, -2) * correction
    return q @ state, state


def _delta_chunk(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """The same recurrence for a chunk at once, [B, H, T, ...].

    With D_ij = exp(g_j+1 + ... + g_i), the decay from token j to i, and C_i that from the chunk's
    start, the corrections u_i = beta_i (v_i - C_i S^T k_i - sum_{j<i} D_ij (k_i . k_j) u_j) solve
    a unit lower triangular system.
    """
    length = g.shape[-1]
    lower = torch.ones(length, length, dtype=torch.bool, device=g.device).tril()
    # Sums over just the tokens between: differences of one running sum would cancel after a
    # strong decay.
    between = g[..., :, None].expand(*g.shape, length).masked_fill(~lower.tril(-1), 0).cumsum(-2)
    decay = between.masked_fill(~lower, -torch.inf).exp()
    carried = g.cumsum(-1).exp()[..., None]
    system = beta[..., None] * decay * (k @ k.transpose(-1, -2))
    u = torch.linalg.solve_triangular(
        system, beta[..., None] * (v - carried * (k @ state)), upper=False, unitriangular=True
    )
    o = carried * (q @ state) + (decay * (q @ k.transpose(-1, -2))) @ u
    to_end = decay[..., -1, :, None]
    return o, carried[..., -1:, :] * state + (k * to_end).transpose(-1, -2) @ u


def gated_delta_net(
    projected: Tensor,
    mixer: GatedDeltaNet,
    conv: Tensor,
    recurrent: Tensor,
    turn: Turn,
    config: ModelConfig,
) -> Tensor:
    """All of a Gated DeltaNet mixer between its two projections, [B, T, H * V].

    `projected` [B, T, rows of mixer.proj]; `conv` and `recurrent` are the state's tensors of the
    layer, updated in place. Padding leaves no trace in either.
    """
    heads, splits = config.num_linear_heads, config.linear_splits
    mixed, gate, a, b = projected.split((sum(splits[:3]), *splits[3:]), -1)
    convolved = short_conv(mixed, _update_history(conv, mixed, turn), mixer.conv)
    q, k, v = (x.unflatten(-1, (heads, -1)) for x in convolved.split(splits[:3], -1))
    decay = -mixer.a_log.exp() * F.softplus(a.float() + mixer.dt_bias)
    padding = ~turn.counts[..., None]
    decay, beta = (x.masked_fill(padding, 0) for x in (decay, b.float().sigmoid()))
    o, after = delta_rule(q, k, v, decay, beta, _rows(recurrent, turn))
    if len(recurrent) == 1:
        recurrent.copy_(after)
    else:
        recurrent[turn.rows] = after
    gate = gate.unflatten(-1, (heads, -1))
    return gated_rms_norm(o, gate, mixer.norm, config.norm_eps).flatten(2)


def _rows(x: Tensor, turn: Turn) -> Tensor:
    """The rows of a state's tensor that a turn works on: no copy where there is only one."""
    return x if len(x) == 1 else x[turn.rows]


def _update_history(conv: Tensor, x: Tensor, turn: Turn) -> Tensor:
    """Put the newest of x [B, T, C] into the rings `conv`; returns what stood there, in order."""
    width, rows = conv.shape[1], turn.rows[:, None]
    step = torch.arange(width, device=x.device)
    history = conv[rows, (turn.start[:, None] + step) % width]
    newest = turn.lengths[:, None] + step  # in history and x joined
    joined = torch.cat((history, x), 1)
    newest_inputs = joined.gather(1, newest[..., None].expand(-1, -1, x.shape[-1]))
    conv[rows, (turn.start[:, None] + newest) % width] = newest_inputs
    return history


def sliding_attention(
    qkv: Tensor,
    rope: tuple[Tensor, Tensor],
    keys: Tensor,
    values: Tensor,
    turn: Turn,
    config: ModelConfig,
) -> Tensor:
    """All of a sliding-window attention between its two projections, [B, T, heads * head_dim].

    `qkv` [B, T, rows of mixer.qkv]; `keys` and `values` are the state's rings, which the new
    tokens are written to first.
    """
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    qkv = qkv.unflatten(-1, (heads + 2 * kv_heads, config.head_dim)).transpose(1, 2)
    q, k, v = qkv.split((heads, kv_heads, kv_heads), 1)
    place = (turn.rows[:, None], slice(None), turn.slots)
    keys[place] = rotate(k, *rope).transpose(1, 2)
    values[place] = v.transpose(1, 2)
    o = F.scaled_dot_product_attention(
        rotate(q, *rope),
        _rows(keys, turn),
        _rows(values, turn),
        attn_mask=turn.visible,
        enable_gqa=True,
    )
    return o.transpose(1, 2).flatten(2)


def segment_attention(
    qkv: Tensor, rope: tuple[Tensor, Tensor], heads: int, length: int, valid: Tensor | None
) -> Tensor:
    """Attention within segments of `length` slots, all to all: the vision tower's.

    `qkv` [F, S, 3 * heads * head_dim]; `rope` cosine and sine [1, S, head_dim]; `valid`
    [S / length, length] is false where a slot holds nothing, None when all hold something.
    Returns [F, S, heads * head_dim].
    """
    frames, slots, _ = qkv.shape
    q, k, v = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    # [F, heads, segments, length, head_dim]: attention runs within the last two axes.
    q, k, v = (t.unflatten(2, (-1, length)) for t in (rotate(q, *rope), rotate(k, *rope), v))
    mask = None if valid is None else valid[:, None]
    o = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return o.permute(0, 2, 3, 1, 4).reshape(frames, slots, -1)


def norm_linear(
    x: Tensor, norm: Tensor, eps: float, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    """A projection of rms_norm(x)."""
    return F.linear(rms_norm(x, norm, eps), weight, bias)


def norm_swiglu(x: Tensor, norm: Tensor, eps: float, mlp: Mlp) -> Tensor:
    """SiLU(gate(h)) * up(h) of h = rms_norm(x): SwiGLU up to its last projection."""
    gate, up = norm_linear(x, norm, eps, mlp.gate_up, mlp.gate_up_bias).chunk(2, -1)
    return F.silu(gate) * up


def linear_add(x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor) -> Tensor:
    """Residual + a projection of x. The caller gives `residual` up: it may become the result."""
    return residual + F.linear(x, weight, bias)


def settled(x: Tensor) -> Tensor:
    """The residual stream that `linear_add` gave; kernels may leave a sum to whoever reads it."""
    return x


def scores(hidden: Tensor, head: Tensor) -> Tensor:
    """Scores over the vocabulary, float32, of normed outputs [..., D]."""
    return F.linear(hidden, head).float()
