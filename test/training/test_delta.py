"""The delta rule in parallel chunks is the rule token by token, and so are its gradients."""

import pytest
import torch

from infinitevl_ros.model.kernels import plain
from training.delta import gated_delta_rule


@pytest.mark.parametrize('chunk', [16, 32])
def test_values_states_and_gradients_are_those_of_the_plain_rule(chunk):
    torch.manual_seed(0)
    shapes = ((2, 64, 3, 8), (2, 64, 3, 8), (2, 64, 3, 12), (2, 64, 3), (2, 64, 3), (2, 3, 8, 12))
    inputs = [torch.randn(shape, dtype=torch.float32) for shape in shapes]
    inputs[3] = -inputs[3].abs()
    inputs[4] = inputs[4].sigmoid()
    found_inputs, expected_inputs = (
        [x.clone().requires_grad_() for x in inputs] for _ in range(2)
    )
    o, states = gated_delta_rule(*found_inputs[:5], chunk, found_inputs[5])
    expected_o, expected_state = plain.delta_rule(*expected_inputs)
    torch.testing.assert_close(o, expected_o, rtol=0, atol=2e-5)
    torch.testing.assert_close(states[-1], expected_state, rtol=0, atol=2e-5)
    _, middle = plain.delta_rule(*(x[:, :32] for x in inputs[:5]), inputs[5])
    torch.testing.assert_close(states[32 // chunk], middle, rtol=0, atol=2e-5)

    weight = torch.randn_like(o), torch.randn_like(expected_state)
    ((o * weight[0]).sum() + (states[-1] * weight[1]).sum()).backward()
    ((expected_o * weight[0]).sum() + (expected_state * weight[1]).sum()).backward()
    for found, expected in zip(found_inputs, expected_inputs, strict=True):
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-4, atol=1e-4)
