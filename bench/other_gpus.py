"""Compiles the kernels of a frame and of a token for GPUs that are not there, at the 4B sizes.

Those of bfloat16 outside of Hopper, as they are launched there. Needs triton, but no GPU: python3
bench/other_gpus.py 8.0 8.7. Prints registers, bytes spilled and
shared memory of each kernel beside what the GPU has; ends with 1 if one does not fit.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from infinitevl_ros.model.kernels.gpu import attention, delta, linear, mlp, pixels, segments

# Bytes of shared memory that a program may take, by compute capability (CUDA C++ Programming
# Guide, technical specifications).
SHARED = {80: 166_912, 86: 101_376, 87: 166_912, 89: 101_376, 120: 101_376}
HEADS = {'HEADS': 16, 'KEY': 128, 'VALUE': 256}
ATTENTION = {'KV_HEADS': 2, 'GROUP': 8, 'WIDTH': 128}
VISION = {'HEADS': 16, 'WIDTH': 80, 'PRECISION': 'tf32'}
# What kernels call their arguments, by type; any other is a whole number of 32 bits.
TYPES = {
    '*bf16': 'qkv x projected weight norm conv_weight history q keys values parts out gates both '
    'bias residual conv',
    '*fp32': 'solved attended decay recurrent a_log dt_bias cos sin sums o reach scales '
    'inner_scale starts weights statistics',
    '*i64': 'rows start cursor lengths sizes',
    'fp32': 'eps scale',
}
NAMES = {name: kind for kind, names in TYPES.items() for name in names.split()}


def kernels(tiles: bool) -> Iterator[tuple[object, dict, dict, int, int]]:
    """Kernel, types that differ from TYPES, constants, warps, stages."""
    ring = {**ATTENTION, 'KEYS': attention.KEYS, 'TILES': tiles, 'PRECISION': 'tf32'}
    tile = f'tensordesc<bf16[1, {attention.KEYS}, 128]>'
    types = {'keys': tile, 'values': tile} if tiles else {}
    for block in (64, 16):
        yield attention._ring_attention, types, {**ring, 'BLOCK': block}, 4, 2 + tiles
    heads = {'HEADS': 16, 'KV_HEADS': 2, 'ALL': 32, 'WIDTH': 128}
    yield attention._rotate_and_write, {}, heads, 4, 3
    for splits, together in ((4, 8), (64, 1)):
        constants = {**ATTENTION, 'SPLITS': splits, 'TOGETHER': together}
        yield attention._join, {}, constants, 4 if together > 1 else 1, 3
    block, most = segments.LONG
    for keys in (64, most):  # in windows and in whole frames
        long = {**VISION, 'valid': None, 'BLOCK': block, 'KEYS': keys, 'FIRST': 64, 'REST': 16}
        yield segments._long_segment, {}, long, 4, 2
    convolution = {'HEADS': 16, 'KEY': 128, 'TAPS': 4, 'BLOCK': delta.CHUNK}
    yield delta._short_conv, {}, convolution, 4, 3
    chunk = {**HEADS, 'HALF': delta.CHUNK // 2, 'PRECISION': 'tf32'}
    yield delta._prepare_chunk, {}, chunk, 2, 3
    scan = {**HEADS, 'CHUNK': delta.CHUNK, 'COLUMNS': delta.VALUES, 'PRECISION': 'tf32'}
    yield delta._scan_chunks, {'out': '*fp32'}, scan, 4, 2
    yield delta._delta_step, {'out': '*fp32'}, {**HEADS, 'TAPS': 4, 'COLUMNS': 32}, 4, 3
    group = {'scales': None, 'HEADS': 16, 'VALUE': 256, 'GROUP': 4}
    yield delta._gated_norm, {'x': '*fp32'}, group, 4, 3
    norm = {'parts': None, 'bias': None, 'shift': None, 'scales': None, 'reach': None}
    yield linear._rms_norm, {'x': '*fp32'}, {**norm, 'PARTS': 0, 'BLOCK': 2048}, 8, 3
    vector = {'scale': None, 'bias': None, 'residual': None, 'inner_scale': None, 'SWIGLU': True}
    vector |= {'BLOCK_N': 4, 'BLOCK_K': 512}
    yield linear._vector_product, {'x': '*fp32', 'rows': 'i32'}, vector, 2, 3
    yield mlp._silu_mul, {}, {'inner_scale': None, 'reach': None, 'BLOCK': 2048}, 4, 3
    frames = {'frames': '*u8', 'weights': '*fp32'}
    sizes = {'LONGEST': pixels.LONGEST_SIDE, 'BLOCK': 128}
    yield pixels._resize_width, {**frames, 'starts': '*i64', 'rows': '*u8'}, sizes, 4, 3
    sizes |= {'SIDE': 14, 'MERGE': 2, 'SLOTS': 2, 'BLOCK': 256}
    frames |= {'starts': '*i64', 'rows': '*u8'}
    yield pixels._resize_height, frames, sizes, 4, 3


def compiled(
    capability: int, kernel: object, types: dict, constants: dict, warps: int, stages: int
) -> tuple[int, int, int]:
    """Registers, bytes spilled, bytes of shared memory."""
    names = kernel.arg_names
    kinds = {**NAMES, **types}
    signature = {
        name: 'constexpr' if name in constants else kinds.get(name, 'i32') for name in names
    }
    whole = {
        (i,): [['tt.divisibility', 16]]
        for i, name in enumerate(names)
        if name not in constants
        and (signature[name][0] == '*' or name in ('width', 'channels', 'row_size', 'ring'))
    }
    fixed = {(names.index(name),): value for name, value in constants.items()}
    result = triton.compile(
        ASTSource(kernel, signature, fixed, whole),
        target=GPUTarget('cuda', capability, 32),
        options={'num_warps': warps, 'num_stages': stages},
    )
    tool = Path(triton.__file__).parent / 'backends/nvidia/bin/cuobjdump'
    with tempfile.NamedTemporaryFile(suffix='.cubin') as file:
        file.write(result.asm['cubin'])
        file.flush()
        usage = subprocess.run([tool, '-res-usage', file.name], capture_output=True, text=True)
    found = re.search(r'REG:(\d+) STACK:(\d+)', usage.stdout + usage.stderr)
    return int(found[1]), int(found[2]), result.metadata.shared


def main() -> int:
    fits = True
    for capability in (
        int(text.replace('.', '')) for text in sys.argv[1:] or ('8.0', '8.6', '8.7', '8.9', '12.0')
    ):
        most = SHARED[capability]
        print(f'compute capability {capability / 10}: {most} bytes of shared memory')
        print(f'  {"kernel":24}{"registers":>10}{"spilled":>9}{"shared":>9}')
        for kernel, *how in kernels(tiles=capability >= 90):
            registers, spilled, shared = compiled(capability, kernel, *how)
            fits &= shared <= most
            print(f'  {kernel.__name__:24}{registers:10}{spilled:9}{shared:9}')
    return 0 if fits else 1


if __name__ == '__main__':
    sys.exit(main())
