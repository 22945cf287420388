"""Times every kernel of a frame and of a decode token by itself, at the sizes of the 4B network.

Run on a GPU: python3 bench/kernels.py. Each operator is captured in a CUDA graph with as many
copies of its weights as the cache cannot hold, so that weights come from memory as they do in the
network. Prints microseconds a call, and for one token the share of the memory's bandwidth.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from infinitevl_ros.model import decoder
from infinitevl_ros.model.config import ModelConfig
from infinitevl_ros.model.kernels import gpu
from infinitevl_ros.model.state import StreamState
from infinitevl_ros.model.weights import GatedDeltaNet, Mlp

CACHE = 400_000_000  # bytes of weights that go through between two uses of the same
DTYPE = torch.bfloat16


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, device='cuda').to(DTYPE) * 0.02


def microseconds(call: Callable[[int], object], copies: int) -> float:
    """Median time of one call of `call(i)`, i running over the copies, inside a CUDA graph."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for i in range(copies):
            call(i)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    repeats = max(1, 40 // copies)
    with torch.cuda.graph(graph):
        for i in itertools.chain.from_iterable([range(copies)] * repeats):
            call(i)
    times = []
    for _ in range(12):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1000 / (copies * repeats))
    return sorted(times)[len(times) // 2]


def projections() -> None:
    print('projection                          tokens     cuBLAS us   TFLOP/s    GB/s')
    shapes = [
        ('vision qkv', 3840, 1280, 1024), ('vision out', 1280, 1280, 1024),
        ('vision gate+up 3420', 6840, 1280, 1024), ('vision gate+up 3456', 6912, 1280, 1024),
        ('vision down 3420', 1280, 3420, 1024), ('vision down 3456', 1280, 3456, 1024),
        ('delta q,k,v,g,a,b', 12320, 2048, 256), ('delta out', 2048, 4096, 256),
        ('gate+up', 22016, 2048, 256), ('down', 2048, 11008, 256),
        ('attention q,k,v', 2560, 2048, 256), ('attention out', 2048, 2048, 256),
    ]  # fmt: skip
    for name, n, k, tokens in shapes:
        copies = max(2, min(40, CACHE // (2 * n * k)))
        weights = [random(n, k) for _ in range(copies)]
        x, bias = random(tokens, k), random(n)
        us = microseconds(lambda i, w=weights, x=x, b=bias: F.linear(x, w[i], b), copies)
        flops = 2 * n * k * tokens
        print(f'{name:34} {tokens:6} {us:12.1f} {flops / us / 1e6:9.0f}')
        if tokens == 256:
            one = random(1, k)
            us = microseconds(lambda i, w=weights, x=one: F.linear(x, w[i]), copies)
            print(f'{name:34} {1:6} {us:12.1f} {"":9} {2 * n * k / us / 1e3:7.0f}')
            y = random(1, 1, k)
            us = microseconds(lambda i, w=weights, y=y: gpu.linear.product(y, w[i]), copies)
            print(f'{"  Triton":34} {1:6} {us:12.1f} {"":9} {2 * n * k / us / 1e3:7.0f}')
            small = [gpu.quantise_weight(w) for w in weights]
            us = microseconds(lambda i, w=small, y=y: gpu.linear.product(y, w[i]), copies)
            print(f'{"  Triton, fp8":34} {1:6} {us:12.1f} {"":9} {n * k / us / 1e3:7.0f}')
        if k % 16 == n % 16 == 0:
            small, norm = [gpu.quantise_weight(w) for w in weights], random(k)
            us = microseconds(
                lambda i, w=small, x=x, norm=norm: gpu.norm_linear(x, norm, 1e-6, w[i]), copies
            )
            print(f'{"  norm + fp8":34} {tokens:6} {us:12.1f} {flops / us / 1e6:9.0f}')


def config() -> ModelConfig:
    return ModelConfig.from_dict(
        {
            'hidden_size': 2048,
            'intermediate_size': 11008,
            'num_hidden_layers': 4,
            'num_attention_heads': 16,
            'num_key_value_heads': 2,
            'vocab_size': 1000,
            'sliding_window': 8192,
            'rope_scaling': {'mrope_section': [16, 24, 24]},
            'eos_token_id': 1,
            'image_token_id': 2,
            'vision_start_token_id': 3,
            'vision_end_token_id': 4,
            'vision_config': {'out_hidden_size': 2048},
        },
        'bench',
    )


def mixers() -> None:
    c = config()
    state = StreamState(c, 256, 'cuda', DTYPE, rows=1)
    for tensor in state.tensors.values():
        if tensor.is_floating_point():
            tensor.normal_(0, 0.1)
    state['tokens'].fill_(100_000)
    state['cursor'].fill_(5_000)
    mixer = GatedDeltaNet(
        None, random(8192, 4), torch.rand(16, device='cuda'), torch.rand(16, device='cuda'),
        random(256), None,
    )  # fmt: skip
    print('\noperator                            tokens       us')
    for tokens in (256, 32, 1):
        positions = torch.arange(tokens, device='cuda').expand(1, 3, -1)
        turn = state.advance(positions)
        rope = decoder.rope_tables(c, positions)
        projected, qkv = random(1, tokens, 12320), random(1, tokens, 2560)
        conv, recurrent = state.layer(1, 'conv'), state.layer(1, 'recurrent')
        keys, values = state.layer(0, 'keys'), state.layer(0, 'values')
        x, norm = random(1, tokens, 2048), random(2048)
        mlp = Mlp(random(22016, 2048), random(2048, 11008))
        gate_up = random(1, tokens, 22016)
        calls = {
            'Gated DeltaNet, all between': lambda _: gpu.gated_delta_net(
                projected, mixer, conv, recurrent, turn, c
            ),
            'sliding attention, all between': lambda _: gpu.sliding_attention(
                qkv, rope, keys, values, turn, c
            ),
            'rms_norm': lambda _: gpu.rms_norm(x, norm, 1e-6),
            'norm + gate+up + SwiGLU': lambda _: gpu.norm_swiglu(x, norm, 1e-6, mlp),
        }
        if tokens > 1:
            calls['SiLU * up'] = lambda _: gpu.mlp.silu_mul(gate_up)
        for name, call in calls.items():
            print(f'{name:34} {tokens:6} {microseconds(call, 10):9.1f}')
    fla(c)
    windows = random(1, 1024, 3840)
    angle = torch.randn(1, 1024, 80, device='cuda')
    for name, length in (('vision attention in windows', 64), ('vision attention in full', 1024)):
        us = microseconds(
            lambda _, n=length: gpu.segment_attention(windows, (angle, angle), 16, n, None), 10
        )
        print(f'{name:34} {1024:6} {us:9.1f}')
    x, norm, bias = random(1, 1024, 1280), random(1280), random(6912)
    wide, down = random(6912, 1280), random(1280, 3456)
    for name, weight in (('', wide), (', fp8', gpu.quantise_weight(wide))):
        mlp = Mlp(weight, down, bias)
        apart = microseconds(
            lambda _, w=weight: gpu.mlp.silu_mul(gpu.norm_linear(x, norm, 1e-6, w, bias)), 10
        )
        us = microseconds(lambda _, m=mlp: gpu.norm_swiglu(x, norm, 1e-6, m), 10)
        print(f'{"vision norm + gate+up + SwiGLU" + name:34} {1024:6} {us:9.1f}')
        print(f'{"  its product by the library":34} {1024:6} {apart:9.1f}')


def fla(c: ModelConfig) -> None:
    """The same recurrence by flash-linear-attention, where it is installed."""
    try:
        from fla.ops.gated_delta_rule import (
            chunk_gated_delta_rule,
            fused_recurrent_gated_delta_rule,
        )
    except ImportError:
        return
    state = torch.randn(1, 16, 128, 256, device='cuda')
    for tokens, rule in ((256, chunk_gated_delta_rule), (1, fused_recurrent_gated_delta_rule)):
        q, k, v = (random(1, tokens, 16, n) for n in (128, 128, 256))
        g, beta = -torch.rand(1, tokens, 16, device='cuda'), random(1, tokens, 16)

        def call(_, rule=rule, inputs=(q, k, v, g, beta)):
            rule(*inputs, None, state, output_final_state=True, use_qk_l2norm_in_kernel=True)

        print(f'{"fla, recurrence and norms alone":34} {tokens:6} {microseconds(call, 10):9.1f}')


def host_copies() -> None:
    """Ways of a camera's frame to the GPU, from the call until it is there."""
    frames = [torch.randint(0, 256, (720 * 1280 * 3,), dtype=torch.uint8) for _ in range(8)]
    staging = torch.empty_like(frames[0], pin_memory=True)
    device = torch.empty_like(frames[0], device='cuda')
    host, piece = staging.numpy(), 2**20

    def in_pieces(frame: torch.Tensor) -> None:
        for at in range(0, len(frame), piece):
            np.copyto(host[at : at + piece], frame.numpy()[at : at + piece])
            device[at : at + piece].copy_(staging[at : at + piece], non_blocking=True)

    calls = {
        'into staging alone': lambda frame: np.copyto(host, frame.numpy()),
        'through staging in pieces of 1 MB': in_pieces,
        'by CUDA from where it lies': lambda frame: device.copy_(frame, non_blocking=True),
        'from staging': lambda _: device.copy_(staging, non_blocking=True),
    }
    print('\na frame of 1280 x 720                      us')
    for name, call in calls.items():
        times = []
        for frame in frames * 10:
            torch.cuda.synchronize()
            began = time.perf_counter()
            call(frame)
            torch.cuda.synchronize()
            times.append((time.perf_counter() - began) * 1e6)
        print(f'{name:34} {statistics.median(times):10.0f}')


@torch.no_grad()
def main() -> None:
    print(f'{torch.cuda.get_device_name()}, torch {torch.__version__}')
    source, target = torch.empty(2, 2**29, dtype=torch.float32, device='cuda')
    us = microseconds(lambda _: torch.neg(source, out=target), 2)
    print(f'device copy: {2 * 2**31 / us / 1e6:.2f} TB/s')
    projections()
    mixers()
    host_copies()


if __name__ == '__main__':
    main()
