"""Kernels whose programs come to a GPU while the kernel before them still ends there.

Programmatic dependent launch of the CUDA programming guide, on Hopper and later: what a kernel
does before it touches memory passes beside the end of the kernel before it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from triton.runtime.jit import JITFunction


def launch(
    kernel: JITFunction, grid: tuple[int, ...], *arguments: object, **options: object
) -> None:
    """kernel[grid](*arguments, **options), where `kernel` calls `await_previous` first of all.

    It may call `start_next` when no more than storing its results is left. Where the GPU does not
    launch early, EARLY, the last of the kernel's constants, makes nothing of both.
    """
    early = torch.cuda.get_device_capability() >= (9, 0)
    if early:
        options['launch_pdl'] = True
    kernel[grid](*arguments, EARLY=early, **options)


@triton.jit
def await_previous(EARLY: tl.constexpr):
    """Until all that kernels before this one wrote is there."""
    if EARLY:
        tl.extra.cuda.gdc_wait()


@triton.jit
def start_next(EARLY: tl.constexpr):
    """Let programs of the next kernel come, up to their `await_previous`, as soon as all call."""
    if EARLY:
        tl.extra.cuda.gdc_launch_dependents()
