"""The gated delta rule for training: chunks in parallel, only their states one after another.

Differentiable plain torch. Within a chunk the corrections are linear in the state that it starts
from, so a chunk acts on the state as S -> M S + N; M and N of all chunks are found at once.
Source: Yang et al., Gated Delta Networks, 2024, section 3.3; see kernels/plain.py for the rule.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def gated_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    chunk: int,
    state: Tensor | None = None,
    parts: tuple[Callable, Callable] | None = None,
) -> tuple[Tensor, Tensor]:
    """The rule over T tokens, a multiple of `chunk`, all in float32.

    q, k [B, T, H, K], not yet normalised; v [B, T, H, V]; g (log decay) and beta [B, T, H]; state
    [B, H, K, V], default zero. `parts` stand in for solve_chunks and read_chunks, compiled.
    Returns o [B, T, H, V] and the states before each chunk and after the last
    [T / chunk + 1, B, H, K, V].
    """
    if state is None:
        state = torch.zeros(len(q), *q.shape[2:], v.shape[-1], device=q.device)
    solve, read = parts or (solve_chunks, read_chunks)
    m, n, *rest = solve(q, k, v, g, beta, chunk)
    states = Scan.apply(m, n, state)
    return read(states, *rest), states


def solve_chunks(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, chunk: int
) -> tuple[Tensor, ...]:
    """What each chunk does to a state, M and N, and what `read_chunks` needs of it."""
    q, k, v, g, beta = (_chunked(x.float(), chunk) for x in (q, k, v, g, beta))
    k = _unit(k)
    q = _unit(q) * q.shape[-1] ** -0.5
    total = g.cumsum(-1)  # decay since the chunk's start
    lower = torch.ones(chunk, chunk, dtype=torch.bool, device=g.device).tril()
    decay = (total[..., :, None] - total[..., None, :]).masked_fill(~lower, -torch.inf).exp()
    carried = total.exp()[..., None]
    transposed = k.transpose(-1, -2)
    system = beta[..., None] * decay * (k @ transposed)
    right = beta[..., None] * torch.cat((v, carried * k), -1)
    solved = torch.linalg.solve_triangular(system, right, upper=False, unitriangular=True)
    u, w = solved.split((v.shape[-1], k.shape[-1]), -1)
    to_end = transposed * decay[..., -1, None, :]
    eye = torch.eye(k.shape[-1], device=k.device)
    m, n = carried[..., -1:, :] * eye - to_end @ w, to_end @ u
    return m, n, carried * q, decay * (q @ transposed), u, w


def read_chunks(states: Tensor, q: Tensor, within: Tensor, u: Tensor, w: Tensor) -> Tensor:
    """The outputs o [B, T, H, V] of chunks that start from `states`."""
    before = states[:-1]
    o = q @ before + within @ (u - w @ before)
    return o.permute(1, 0, 3, 2, 4).flatten(1, 2)


class Scan(torch.autograd.Function):
    """States S[0] = `start` [...], S[i + 1] = m[i] S[i] + n[i] for m [I, ..., K, K]."""

    @staticmethod
    def forward(ctx, m: Tensor, n: Tensor, start: Tensor) -> Tensor:
        states = n.new_empty(len(n) + 1, *n.shape[1:])
        states[0] = start
        flat, m_flat, n_flat = (x.flatten(1, -3) for x in (states, m, n))
        for i in range(len(n)):
            torch.baddbmm(n_flat[i], m_flat[i], flat[i], out=flat[i + 1])
        ctx.save_for_backward(m, states)
        return states

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        m, states = ctx.saved_tensors
        total = grad.contiguous().clone()  # [i]: of everything that S[i] has a part in
        flat = total.flatten(1, -3)
        m_flat = m.flatten(1, -3).transpose(-1, -2)
        for i in range(len(m) - 1, -1, -1):
            flat[i].baddbmm_(m_flat[i], flat[i + 1])
        return total[1:] @ states[:-1].transpose(-1, -2), total[1:], total[0]


def _chunked(x: Tensor, chunk: int) -> Tensor:
    """[B, T, H, ...] to [T / chunk, B, H, chunk, ...]."""
    return x.unflatten(1, (-1, chunk)).transpose(0, 1).transpose(2, 3)


def _unit(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6)
