"""The operators against plain definitions written here."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from infinitevl_ros.model.config import ModelConfig
from infinitevl_ros.model.kernels import plain as kernels
from infinitevl_ros.model.state import StreamState


def delta_inputs(tokens, seed=0, batch=2, heads=3, key=8, value=16):
    random = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(batch, *shape, generator=random, dtype=torch.float64)

    q, k = normal(tokens, heads, key), normal(tokens, heads, key)
    v = normal(tokens, heads, value)
    # From no decay at all to forgetting everything at once.
    g = -(normal(tokens, heads) * 3).exp()
    beta = normal(tokens, heads).sigmoid()
    return q, k, v, g, beta, normal(heads, key, value)


def delta_loop(q, k, v, g, beta, state):
    """checkpoint layout's definition, token by token in float64."""
    q, k = (x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt() for x in (q, k))
    q = q * q.shape[-1] ** -0.5
    state, outputs = state.clone(), []
    for t in range(q.shape[1]):
        state = g[:, t].exp()[..., None, None] * state
        seen = torch.einsum('bhkv,bhk->bhv', state, k[:, t])
        change = beta[:, t][..., None] * (v[:, t] - seen)
        state = state + torch.einsum('bhk,bhv->bhkv', k[:, t], change)
        outputs.append(torch.einsum('bhkv,bhk->bhv', state, q[:, t]))
    return torch.stack(outputs, 1), state


@pytest.mark.parametrize('tokens', [1, 2, 63, 64, 65, 253])
def test_delta_rule_is_the_recurrence(tokens):
    inputs = delta_inputs(tokens)
    wanted, wanted_state = delta_loop(*inputs)
    found, state = kernels.delta_rule(*(x.float() for x in inputs))
    assert found.dtype == state.dtype == torch.float32
    torch.testing.assert_close(found.double(), wanted, atol=2e-5, rtol=0)
    torch.testing.assert_close(state.double(), wanted_state, atol=2e-5, rtol=0)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 1000))
def test_delta_rule_may_be_cut_anywhere(first, second, seed):
    inputs = [x.float() for x in delta_inputs(first + second, seed, batch=1)]
    whole, whole_state = kernels.delta_rule(*inputs)
    parts, state = [], inputs.pop()
    for part in zip(*(x.split((first, second), 1) for x in inputs), strict=True):
        o, state = kernels.delta_rule(*part, state)
        parts.append(o)
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=2e-5, rtol=0)
    torch.testing.assert_close(state, whole_state, atol=2e-5, rtol=0)


def test_delta_rule_has_gradients_through_the_state():
    inputs = [x.float().requires_grad_() for x in delta_inputs(130, batch=1)]
    o, state = kernels.delta_rule(*inputs)
    (o.square().sum() + state.square().sum()).backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in inputs)
    assert inputs[-1].grad.abs().max() > 0


def test_short_conv_is_a_causal_convolution():
    x, weight = torch.randn(2, 11, 6), torch.randn(6, 4)
    history = torch.randn(2, 4, 6)
    padded = torch.cat((history, x), 1).transpose(1, 2)
    wanted = F.silu(F.conv1d(padded, weight[:, None], groups=6)[..., 1:]).transpose(1, 2)
    torch.testing.assert_close(kernels.short_conv(x, history, weight), wanted)


def test_norms_agree_with_torch():
    x, weight = torch.randn(3, 5, 32), torch.randn(32)
    wanted = F.rms_norm(x, (32,), weight, 1e-6)
    torch.testing.assert_close(kernels.rms_norm(x, weight, 1e-6), wanted)
    gate = torch.randn_like(x)
    found = kernels.gated_rms_norm(x, gate, weight, 1e-6)
    torch.testing.assert_close(found, wanted * F.silu(gate))


def state(window=10, block=4, batch=1):
    config = ModelConfig.from_dict(
        {
            'hidden_size': 8,
            'intermediate_size': 8,
            'num_hidden_layers': 1,
            'num_attention_heads': 2,
            'num_key_value_heads': 1,
            'head_dim': 4,
            'vocab_size': 8,
            'sliding_window': window,
            'rope_scaling': {'mrope_section': [1, 1, 0]},
            'image_token_id': 1,
            'vision_start_token_id': 2,
            'vision_end_token_id': 3,
            'eos_token_id': 4,
            'vision_config': {'out_hidden_size': 8},
        },
        'test',
    )
    return StreamState(config, block, rows=batch)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=30), st.integers(0, 13))
def test_every_token_sees_itself_and_the_window_behind_it(lengths, start):
    """By token index written through the ring itself: exactly min(index + 1, window) keys."""
    memory = state()
    memory['cursor'].fill_(start)
    stored = torch.full((memory.ring,), -1)
    index = 0
    for length in lengths:
        window = memory.advance(torch.zeros(1, 3, length, dtype=torch.int64))
        stored[window.slots[0]] = torch.arange(index, index + length)
        for t in range(length):
            seen = stored[window.visible[0, 0, t]].tolist()
            p = index + t
            assert sorted(seen) == list(range(max(0, p - 9), p + 1))
        index += length


def test_streams_of_a_batch_have_their_own_place_in_the_ring():
    memory = state(batch=2)
    memory['cursor'].copy_(torch.tensor([0, 7]))
    memory['tokens'].copy_(torch.tensor([0, 100]))
    window = memory.advance(torch.zeros(2, 3, 3, dtype=torch.int64))
    assert window.slots.tolist() == [[0, 1, 2], [7, 8, 9]]
    assert window.visible[:, 0].sum(-1).tolist() == [[1, 2, 3], [10, 10, 10]]


def test_more_tokens_than_the_ring_has_room_for_are_refused():
    with pytest.raises(ValueError, match='5 tokens at once'):
        state().advance(torch.zeros(1, 3, 5, dtype=torch.int64))
