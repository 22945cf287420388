"""Where a frame's time goes on a GPU: its kernels by the profiler, and what passes before them.

Run on a GPU: python3 bench/frame.py [--precision fp8]. The 4B shape with seeded random weights and
a full window. Prints the median of a frame that is not profiled, what of one that is passes before
its first kernel and between two of them, and microseconds a frame and calls of each kernel.
"""

from __future__ import annotations

import argparse
import itertools
import re
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function

from infinitevl_ros.cli.measure import Bench, milliseconds
from infinitevl_ros.cli.random_checkpoint import write_random_checkpoint
from infinitevl_ros.cli.random_weights import random_weights
from infinitevl_ros.engine import StreamingEngine
from infinitevl_ros.engine.engine import DEFAULT_FRAME_SIZE
from infinitevl_ros.engine.prompt import Prompt

FRAME = 'one frame'


def kernels_of(bench: Bench, memory) -> tuple[list, float]:
    """The kernels of one frame in order, and the microsecond at which the host began it."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        torch.cuda.synchronize()
        time.sleep(0.01)
        with record_function(FRAME):
            bench.camera.feed(bench.engine, memory, 1)
    events = profiler.events()
    began = next(e.time_range.start for e in events if e.name == FRAME)
    kernels = [e for e in events if e.device_type == DeviceType.CUDA and e.name != FRAME]
    return sorted(kernels, key=lambda e: e.time_range.start), began


def short(name: str) -> str:
    """A kernel's name without its arguments and most of its templates."""
    name = re.sub(r'^void |\(.*', '', name)
    name = re.sub(r'(at|cutlass|native|cublasLt|anonymous namespace|at_cuda_detail)::', '', name)
    return name[:88]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--precision', choices=('bfloat16', 'fp8'), default='bfloat16')
    parser.add_argument('--repeats', type=int, default=200)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        write_random_checkpoint(Path(folder))
        weights = random_weights('4b', Path(folder), 'cuda', torch.bfloat16)
        prompt = Prompt(Path(folder), weights.config)
        fp8 = arguments.precision == 'fp8'
        engine = StreamingEngine(weights, prompt, DEFAULT_FRAME_SIZE, 'frame', fp8=fp8)
        bench = Bench(engine, 'frame')
        memory = bench.full_memory()
        taken = milliseconds(lambda: bench.camera.feed(engine, memory, 1), arguments.repeats)
        kernels_of(bench, memory)  # the profiler's own start
        kernels, began = kernels_of(bench, memory)

    work = sum(k.time_range.elapsed_us() for k in kernels)
    others = [k for k in kernels if not k.name.startswith('Memcpy')]
    first, last = others[0].time_range.start, max(k.time_range.end for k in kernels)
    print(f'{torch.cuda.get_device_name()}, torch {torch.__version__}, {arguments.precision}')
    print(f'a frame: {taken["median"]} ms, p99 {taken["p99"]} ms')
    print(f'profiled: {first - began:.0f} us before the first kernel, then {last - first:.0f} us')
    print(f'in which {len(others)} kernels and clears, and the copies, work {work:.0f} us')
    waits = [
        (after.time_range.start - before.time_range.end, short(after.name)[:40])
        for before, after in itertools.pairwise(others)
    ]
    waits.sort(reverse=True)
    print('longest waits:', ', '.join(f'{us:.0f} us before {name}' for us, name in waits[:4]))
    total, calls = defaultdict(float), defaultdict(int)
    for kernel in kernels:
        total[short(kernel.name)] += kernel.time_range.elapsed_us()
        calls[short(kernel.name)] += 1
    print(f'{"kernel":90} {"us":>8} {"calls":>6}')
    for name in sorted(total, key=total.get, reverse=True):
        print(f'{name:90} {total[name]:8.1f} {calls[name]:6}')


if __name__ == '__main__':
    main()
