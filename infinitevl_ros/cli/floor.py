"""The least time that a frame and a token can take: their bare matrix products, one by one."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..engine.steps import Geometry
from ..model.weights import Block, Fp8, GatedDeltaNet, Weights


def floor_ms(weights: Weights, geometry: Geometry) -> dict[str, float]:
    """Milliseconds of the products of a frame and of a token, with nothing in between.

    On a GPU they are a CUDA graph. In 8 bits a frame's are scaled_mm; a token's, for which there
    is no library product, are of weights rounded to the same number of bytes in bfloat16.
    """
    config = weights.config
    rows, columns = geometry.grid(weights)
    vision = [m for block in weights.vision.blocks for m in _matrices(block)]
    merger = [weights.vision.merger_in, weights.vision.merger_out]
    layers = [m for block in weights.layers for m in _matrices(block)]
    patches, unit = rows * columns, config.vision.spatial_merge_size**2
    frame = (
        [_product(weights.vision.patch, patches)]
        + [_product(m, patches) for m in vision]
        + [_product(m, patches // unit) for m in merger]
        + [_product(m, geometry.tokens) for m in layers]
    )
    token = [_product(m, 1) for m in (*layers, weights.head)]
    return {'frame_ms': _milliseconds(frame), 'decode_ms': _milliseconds(token)}


def _matrices(block: Block) -> list[Tensor | Fp8]:
    mixer = block.mixer
    first = mixer.proj if isinstance(mixer, GatedDeltaNet) else mixer.qkv
    return [first, mixer.out, block.mlp.gate_up, block.mlp.down]


def _product(matrix: Tensor | Fp8, tokens: int) -> Callable[[], Tensor]:
    if isinstance(matrix, Fp8) and matrix.wide is not None and tokens > 1:
        matrix = matrix.wide
    if not isinstance(matrix, Fp8):
        x = torch.randn(tokens, matrix.shape[1], device=matrix.device).to(matrix.dtype)
        return lambda: F.linear(x, matrix)
    values, scale = matrix.values, matrix.scale[None]
    if tokens == 1:
        narrow = values.view(torch.bfloat16).nan_to_num(0, 0, 0)
        x = torch.randn(1, narrow.shape[1], device=narrow.device).to(narrow.dtype)
        return lambda: F.linear(x, narrow)
    x = torch.randn(tokens, values.shape[1], device=values.device).to(values.dtype)
    one = torch.ones(tokens, 1, device=values.device)
    return lambda: torch._scaled_mm(x, values.T, one, scale, out_dtype=torch.bfloat16)


def _milliseconds(products: list[Callable[[], Tensor]], repeats: int = 20) -> float:
    def run() -> None:
        for product in products:
            product()

    run()
    if not torch.cuda.is_available() or not products[0]().is_cuda:
        times = []
        for _ in range(repeats):
            began = time.perf_counter()
            run()
            times.append((time.perf_counter() - began) * 1000)
        return round(statistics.median(times), 3)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return round(statistics.median(times), 3)
