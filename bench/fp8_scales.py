"""What 8 bits cost an MLP by the scale of its inner values: a bound, or their largest.

On a CPU: python3 bench/fp8_scales.py [CHECKPOINT]. Watches a rendered patrol with a small model
(default: models/tiny) and rounds every MLP's inner values and `down` of the last frame either way.
Prints the relative error of `down`'s product, layer by layer, and that of random weights.
"""

from __future__ import annotations

import itertools
import sys
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

from infinitevl_ros.cli.camera import patrol_frames
from infinitevl_ros.engine import StreamingEngine
from infinitevl_ros.model.default import default_checkpoint
from infinitevl_ros.model.kernels import plain
from infinitevl_ros.model.weights import Mlp

FRAMES = 40
MOST = 448  # largest number of float8_e4m3fn


def in_8_bits(x: Tensor, scale: Tensor) -> Tensor:
    return (x / scale).clamp(-MOST, MOST).to(torch.float8_e4m3fn).float() * scale


def by_row(x: Tensor) -> Tensor:
    return in_8_bits(x, x.abs().amax(1, keepdim=True).clamp(min=1e-12) / MOST)


def errors(x: Tensor, norm: Tensor, eps: float, mlp: Mlp) -> tuple[float, float]:
    """By the largest of each row, and by what the lengths of rows allow."""
    normed = plain.rms_norm(x.reshape(-1, x.shape[-1]).float(), norm.float(), eps)
    weight, down = mlp.gate_up.float(), mlp.down.float()
    bias = torch.zeros(len(weight)) if mlp.gate_up_bias is None else mlp.gate_up_bias.float()
    gate, up = F.linear(normed, weight, bias).chunk(2, -1)
    inner = F.silu(gate) * up
    lengths = torch.cat((weight, bias[:, None]), 1).norm(dim=1)
    most = lengths.unflatten(0, (2, -1)).prod(0)
    reach = (normed.square().sum(1, keepdim=True) + 1) / MOST
    exact = inner @ down.T
    found = by_row(inner) @ by_row(down).T, in_8_bits(inner / most, reach) @ by_row(down * most).T
    return tuple(float((y - exact).norm() / exact.norm()) for y in found)


def watched(folder: str) -> list[tuple]:
    """What every MLP of the last frame was called with."""
    engine = StreamingEngine.from_checkpoint(folder)
    memory, calls, original = engine.new_memory(), [], plain.norm_swiglu

    def noted(x: Tensor, *others: object) -> Tensor:
        calls.append((x.clone(), *others))
        return original(x, *others)

    rate, frames = patrol_frames(0, 10.0)
    with mock.patch.object(plain, 'norm_swiglu', noted):
        for i, frame in enumerate(itertools.islice(frames, FRAMES)):
            calls.clear()
            engine.ingest(memory, frame, int(i * 1e9 / rate))
    return calls


@torch.no_grad()
def main() -> None:
    print('largest   bound')
    for call in watched(sys.argv[1] if len(sys.argv) > 1 else str(default_checkpoint())):
        print('{:7.2%} {:7.2%}'.format(*errors(*call)))
    torch.manual_seed(0)
    for width, inner in ((2048, 11008), (1280, 3456)):
        mlp = Mlp(torch.randn(2 * inner, width) * 0.02, torch.randn(width, inner) * 0.02)
        found = errors(torch.randn(64, width), torch.ones(width), 1e-6, mlp)
        print('{:7.2%} {:7.2%}  random weights, {} wide'.format(*found, width))


if __name__ == '__main__':
    main()
