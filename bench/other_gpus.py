"""Compiles the kernels of a frame and of a token for GPUs that are not there, at the 4B sizes.

Needs triton, but no GPU: python3 bench/other_gpus.py 8.0 8.7. The operators are called as ever, in
bfloat16 (and in 8 bits, where a GPU has them), and what they would launch is compiled instead.
Prints registers, bytes spilled and shared memory of each kernel; ends with 1 if one needs more
shared memory than that GPU has.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

import kernels
import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction
from triton.tools.tensor_descriptor import TensorDescriptor

from infinitevl_ros.model.decoder import rope_tables
from infinitevl_ros.model.kernels import gpu
from infinitevl_ros.model.kernels.gpu import pixels
from infinitevl_ros.model.kernels.gpu.prepare import quantise_mlp
from infinitevl_ros.model.state import StreamState
from infinitevl_ros.model.weights import GatedDeltaNet, Mlp

# Bytes of shared memory that a program may take, by compute capability (CUDA C++ Programming
# Guide, technical specifications).
SHARED = {80: 166_912, 86: 101_376, 87: 166_912, 89: 101_376, 90: 232_448, 120: 101_376}
OPTIONS = 'num_warps', 'num_stages', 'launch_pdl'
TYPES = {
    torch.bfloat16: 'bf16',
    torch.float8_e4m3fn: 'fp8e4nv',
    torch.float32: 'fp32',
    torch.int64: 'i64',
    torch.uint8: 'u8',
    torch.bool: 'i1',
}


def numbers(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.empty(*shape, dtype=dtype)


def operators(tokens: int) -> None:
    """What a frame (256 tokens, 1024 patches) or a token runs between the library's products."""
    config = kernels.config()
    state = StreamState(config, 256, dtype=torch.bfloat16)
    positions = torch.arange(tokens).expand(1, 3, -1)
    turn, rope = state.advance(positions), rope_tables(config, positions)
    heads = numbers(16, dtype=torch.float32)
    mixer = GatedDeltaNet(None, numbers(8192, 4), heads, heads, numbers(256), None)
    memory = state.layer(1, 'conv'), state.layer(1, 'recurrent')
    gpu.gated_delta_net(numbers(1, tokens, 12320), mixer, *memory, turn, config)
    memory = state.layer(0, 'keys'), state.layer(0, 'values')
    gpu.sliding_attention(numbers(1, tokens, 2560), rope, *memory, turn, config)
    mlp = Mlp(numbers(22016, 2048), numbers(2048, 11008))
    stream = numbers(1, tokens, 2048, dtype=torch.float32)
    gpu.norm_swiglu(stream, numbers(2048), 1e-6, mlp)
    if tokens > 1:
        angle = numbers(1, 1024, 80, dtype=torch.float32)
        for length in (64, 1024):
            gpu.segment_attention(numbers(1, 1024, 3840), (angle, angle), 16, length, None)
        taps = numbers(1, 1, 448, pixels.most_taps(448), dtype=torch.float32)
        starts = numbers(1, 1, 448, dtype=torch.int64)
        frames = numbers(1, 1, 3 * pixels.MOST_PIXELS, dtype=torch.uint8)
        sizes = numbers(1, 1, 4, dtype=torch.int64)
        resize = (starts, starts), (taps, taps), (448, 448)
        pixels.patches(frames, sizes, *resize, config.vision, torch.bfloat16)


def operators_in_8_bits(tokens: int) -> None:
    """What takes the place of some of them with fp8."""
    norm, stream = numbers(2048), numbers(1, tokens, 2048, dtype=torch.float32)
    mlp = quantise_mlp(Mlp(numbers(22016, 2048), numbers(2048, 11008)))
    gpu.linear_add(gpu.norm_swiglu(stream, norm, 1e-6, mlp), mlp.down, None, stream)
    gpu.norm_linear(stream, norm, 1e-6, gpu.quantise_weight(numbers(12320, 2048)))


def compiled(kernel: JITFunction, values: dict, options: dict, target: GPUTarget) -> tuple:
    """Registers, bytes spilled, bytes of shared memory."""
    signature, fixed, whole = {}, {}, {}
    for i, parameter in enumerate(kernel.params):
        value = values[parameter.name]
        if parameter.is_constexpr or value is None:
            signature[parameter.name], fixed[i,] = 'constexpr', value
        elif isinstance(value, TensorDescriptor):
            signature[parameter.name] = f'tensordesc<{TYPES[value.base.dtype]}{value.block_shape}>'
        elif isinstance(value, Tensor):
            signature[parameter.name] = '*' + TYPES[value.dtype]
        else:
            signature[parameter.name] = 'fp32' if isinstance(value, float) else 'i32'
        if isinstance(value, Tensor) or (isinstance(value, int) and value % 16 == 0):
            whole[i,] = [['tt.divisibility', 16]]
    whole = {place: how for place, how in whole.items() if place not in fixed}
    source = ASTSource(kernel, signature, fixed, whole)
    result = triton.compile(source, target=target, options=options)
    tool = Path(triton.__file__).parent / 'backends/nvidia/bin/cuobjdump'
    with tempfile.NamedTemporaryFile(suffix='.cubin') as file:
        file.write(result.asm['cubin'])
        file.flush()
        usage = subprocess.run([tool, '-res-usage', file.name], capture_output=True, text=True)
    found = re.search(r'REG:(\d+) STACK:(\d+)', usage.stdout + usage.stderr)
    return int(found[1]), int(found[2]), result.metadata.shared


def main() -> int:
    fits = True
    for text in sys.argv[1:] or ('8.0', '8.6', '8.7', '8.9', '9.0', '12.0'):
        major, minor = (int(part) for part in text.split('.'))
        capability = 10 * major + minor
        most, target = SHARED[capability], GPUTarget('cuda', capability, 32)
        print(f'compute capability {text}: {most} bytes of shared memory')
        print(f'  {"kernel":24}{"registers":>10}{"spilled":>9}{"shared":>9}')

        def run(kernel: JITFunction, *given: object, grid: object, warmup: bool, **named: object):
            nonlocal fits
            options = {key: named.pop(key) for key in OPTIONS if key in named}
            values = dict(zip(kernel.arg_names, given, strict=False)) | named
            registers, spilled, shared = compiled(kernel, values, options, target)
            fits &= shared <= most
            print(f'  {kernel.__name__:24}{registers:10}{spilled:9}{shared:9}')

        properties = mock.Mock(
            major=major,
            shared_memory_per_block_optin=most,
            shared_memory_per_multiprocessor=most + gpu.fp8.RESERVED,
            multi_processor_count=132,  # an H100's
        )
        with (
            mock.patch.object(JITFunction, 'run', run),
            mock.patch('torch.cuda.get_device_capability', return_value=(major, minor)),
            mock.patch('torch.cuda.get_device_properties', return_value=properties),
        ):
            for tokens in (256, 1):
                gpu.mlp._has_room.cache_clear()
                gpu.fp8._tile_of_one_wave.cache_clear()
                operators(tokens)
                if capability >= 89:
                    operators_in_8_bits(tokens)
    return 0 if fits else 1


if __name__ == '__main__':
    sys.exit(main())
