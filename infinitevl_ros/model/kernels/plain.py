"""Every operator in plain torch: runs anywhere, differentiable; other backends are held to it.

Shapes: B streams, T new tokens, H heads, K and V the key and value width of a delta head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Tokens the chunked delta rule takes at once: a triangular solve of this size per head.
CHUNK = 64


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root-mean-square norm over the last axis, summed in float32."""
    wide = x.float()
    scaled = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return scaled.to(x.dtype) * weight


def gated_rms_norm(x: Tensor, gate: Tensor, weight: Tensor, eps: float) -> Tensor:
    """rms_norm(x) * SiLU(gate), in the dtype of `gate`."""
    return (rms_norm(x.float(), weight.float(), eps) * F.silu(gate.float())).to(gate.dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of x [..., head_dim]; cos and sin are float32 and broadcast to x."""
    wide = x.float()
    first, second = wide.chunk(2, -1)
    return (wide * cos + torch.cat((-second, first), -1) * sin).to(x.dtype)


def short_conv(x: Tensor, history: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Causal depthwise convolution, then SiLU.

    x [B, T, C]; history [B, C, W], the last W inputs before x, newest last; weight [C, W].
    Returns y [B, T, C] and the history after x.
    """
    width, length = weight.shape[1], x.shape[1]
    padded = torch.cat((history.transpose(1, 2), x), 1)
    # y[t] = sum over i of weight[i] * input[t - (W - 1) + i]; `padded` starts W before x.
    y = sum(padded[:, i + 1 : i + 1 + length] * weight[:, i] for i in range(width))
    return F.silu(y), padded[:, -width:].transpose(1, 2)


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


def ring_attention(q: Tensor, keys: Tensor, values: Tensor, visible: Tensor) -> Tensor:
    """Attention of q [B, heads, T, D] to the slots of a ring [B, kv_heads, R, D].

    visible [B, 1, T, R] is true where a query may look; every query sees at least its own slot.
    """
    return F.scaled_dot_product_attention(q, keys, values, attn_mask=visible, enable_gqa=True)
