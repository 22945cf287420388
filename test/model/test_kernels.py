"""Which kernels a network gets, by what its device and its sizes allow."""

import logging
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from infinitevl_ros.model import kernels
from infinitevl_ros.model.checkpoint import load_checkpoint


@pytest.fixture
def on_gpu(golden, monkeypatch):
    """A network that says it is on a recent NVIDIA GPU with everything installed."""
    weights = load_checkpoint(golden / 'tiny')
    found = SimpleNamespace(
        config=weights.config, device=torch.device('cuda'), kernels=weights.kernels
    )
    monkeypatch.setattr(torch.version, 'cuda', '13.0')
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda _: (9, 0))
    monkeypatch.setattr(kernels.importlib.util, 'find_spec', lambda _: object())
    return found


def why_not(weights, caplog):
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert kernels.fastest(weights) is weights
    (record,) = caplog.records
    return record.getMessage()


def test_nothing_is_said_on_a_cpu(golden, caplog):
    weights = load_checkpoint(golden / 'tiny')
    assert kernels.fastest(weights) is weights
    assert not caplog.records


def test_a_gpu_with_everything_needs_no_excuse(on_gpu):
    assert kernels.why_not_triton(on_gpu) is None


def test_what_is_missing_is_one_line_in_the_log(on_gpu, caplog, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(kernels.importlib.util, 'find_spec', lambda _: None)
        assert 'triton is not installed; plain torch gives the same' in why_not(on_gpu, caplog)
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, 'get_device_capability', lambda _: (7, 5))
        assert 'compute capability 7.5, 8.0 is needed' in why_not(on_gpu, caplog)
    on_gpu.config = replace(on_gpu.config, head_dim=80)
    assert 'head_dim gives heads 80 wide' in why_not(on_gpu, caplog)


def test_fp8_needs_tensor_cores_that_have_it(on_gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda _: (8, 6))
    with pytest.raises(ValueError, match=r'compute capability 8\.9'):
        kernels.fastest(on_gpu, fp8=True)
