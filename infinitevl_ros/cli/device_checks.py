"""What `infinitevl doctor` looks at of the GPU and the model folder."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from .checks import OK, PROBLEM, WARNING, Finding, line, size

# Memories that a node with one camera allocates: its own, three branches, one to reset to.
MEMORIES = 5


def gpu() -> Iterator[Finding]:
    """Whether torch's build fits the machine, and each GPU that it can use."""
    import torch

    driver = nvidia_driver()
    build = f'CUDA {torch.version.cuda}' if torch.version.cuda else 'CPU'
    if torch.version.hip:
        build = f'ROCm {torch.version.hip}'
    found = f'{torch.__version__}, {build} build'
    there = f'; NVIDIA driver {driver}' if driver else '; no NVIDIA driver'
    values = {'torch': torch.__version__, 'cuda': torch.version.cuda, 'driver': driver}
    if torch.cuda.is_available():
        yield Finding(OK, 'torch', found + there, values=values)
        for index in range(torch.cuda.device_count()):
            yield _gpu(index)
    elif driver and build == 'CPU':
        yield Finding(
            PROBLEM,
            'torch',
            f'{found}{there}: it cannot use the GPU',
            'pip install --force-reinstall torch: the package index has the CUDA build for Linux',
            values,
        )
    elif driver:
        yield Finding(
            PROBLEM,
            'torch',
            f'{found}{there}, but no GPU can be used: {_why_no_cuda()}',
            'a driver that fits torch (nvidia-smi tells its CUDA version); in a container: '
            '--gpus all; CUDA_VISIBLE_DEVICES must not be empty',
            values,
        )
    elif build == 'CPU':
        yield Finding(OK, 'torch', f'{found}{there}: the network runs on the CPU', values=values)
    else:
        yield Finding(
            WARNING,
            'torch',
            f'{found}{there}: the network runs on the CPU',
            'install the NVIDIA driver (in a container: --gpus all), or the smaller CPU build of '
            'torch where there is no GPU',
            values,
        )


def nvidia_driver() -> str:
    """The version of the NVIDIA driver, 'of unknown version', or '' where there is none."""
    file = Path('/proc/driver/nvidia/version')
    if file.is_file():
        found = re.search(r'Module\s.*?(\d+\.[\d.]+)', file.read_text())
        return found[1] if found else 'of unknown version'
    tegra = Path('/etc/nv_tegra_release')
    if tegra.is_file():
        found = re.search(r'R(\d+).*?REVISION: ([\d.]+)', tegra.read_text())
        return f'L4T {found[1]}.{found[2]}' if found else 'of unknown version'
    return 'of unknown version' if Path('/dev/nvidiactl').exists() else ''


def model(folder: str | Path | None) -> Iterator[Finding]:
    """The checkpoint folder, the kernels for its sizes, and the memory that it will take."""
    import torch

    from ..engine.engine import StreamingEngine
    from ..engine.prompt import Prompt
    from ..model.checkpoint import check_headers, load_config
    from ..model.config import CheckpointError
    from ..model.default import default_checkpoint
    from ..model.state import StreamState

    try:
        path = Path(folder).expanduser() if folder else default_checkpoint()
        config = load_config(path)
        shapes, on_disk = check_headers(path, config)
        Prompt(path, config)
        height, width = StreamingEngine.frame_size_of(path)
        unit = config.vision.patch_size * config.vision.spatial_merge_size
        on_gpu = torch.cuda.is_available()
        dtype = torch.bfloat16 if on_gpu else torch.float32
        block = max(1, height // unit * (width // unit))
        memory = StreamState(config, block, 'meta', dtype).nbytes
    except (CheckpointError, OSError) as error:
        yield Finding(
            PROBLEM,
            'model',
            line(error),
            'the folder of a checkpoint as published, copied whole: config.json, *.safetensors, '
            "the tokenizer's files; named by --model here, by the parameter model for the node"
            if folder
            else 'install the package again, models/tiny with it',
        )
        return
    numbers = sum(math.prod(shape) for shape in shapes.values())
    weights = numbers * dtype.itemsize
    default = '' if folder else ' (comes with the package, knows its rendered world alone)'
    values = {
        'folder': str(path),
        'parameters': numbers,
        'disk_bytes': on_disk,
        'weights_bytes': weights,
        'memory_bytes': memory,
        'frame_size': [height, width],
    }
    yield Finding(
        OK,
        'model',
        f'{path}{default}: complete, {_count(numbers)} parameters, {size(on_disk)} on disk, '
        f'frames of {width} x {height}',
        values=values,
    )
    name = str(dtype).split('.')[-1]
    needed = weights + MEMORIES * memory
    room, where = _room(on_gpu)
    found = (
        f'{size(needed)} for one camera ({size(weights)} of weights in {name}, {MEMORIES} '
        f'memories of {size(memory)}), besides what a frame takes on its way; {where}'
    )
    if room is not None and needed > room:
        fix = 'end what else uses it, or take a machine with more'
        fix = f'dtype: fp8 takes less; {fix}' if on_gpu else fix
        yield Finding(PROBLEM, 'memory', f'needed: {found}', fix)
    else:
        yield Finding(OK, 'memory', f'needed: {found}')
    yield _kernels(config, on_gpu)


def _gpu(index: int) -> Finding:
    import torch

    properties = torch.cuda.get_device_properties(index)
    values = {
        'index': index,
        'name': properties.name,
        'memory_bytes': properties.total_memory,
        'compute_capability': f'{properties.major}.{properties.minor}',
    }
    found = (
        f'cuda:{index}: {properties.name}, {size(properties.total_memory)}, compute capability '
        f'{values["compute_capability"]}'
    )
    try:
        torch.ones(1, device=f'cuda:{index}').item()
        free, _ = torch.cuda.mem_get_info(index)
    except RuntimeError as error:
        return Finding(
            PROBLEM,
            'GPU',
            f'{found}: cannot be used: {line(error)}',
            'a build of torch for this GPU, or end the process that fills or has locked it',
            values,
        )
    return Finding(OK, 'GPU', f'{found}, {size(free)} free', values={**values, 'free_bytes': free})


def _why_no_cuda() -> str:
    import torch

    if os.environ.get('CUDA_VISIBLE_DEVICES') in ('', '-1'):
        return f'CUDA_VISIBLE_DEVICES is "{os.environ["CUDA_VISIBLE_DEVICES"]}"'
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return line(error)
    return 'torch sees none'


def _kernels(config: Any, on_gpu: bool) -> Finding:
    import torch

    from ..model import kernels

    device = torch.device('cuda' if on_gpu else 'cpu')
    # All that is asked of weights are their device and sizes.
    reason = kernels.why_not_triton(SimpleNamespace(device=device, config=config))
    if reason is None:
        fp8 = torch.cuda.get_device_capability() >= (8, 9)
        found = f'Triton kernels and CUDA graphs; fp8 {"can" if fp8 else "cannot"} be used'
        return Finding(OK, 'kernels', found)
    found = f'plain PyTorch, no Triton kernels: {reason}'
    if not on_gpu:
        return Finding(OK, 'kernels', found)
    fix = 'none for this GPU or model: it works, at a tenth of the speed'
    if 'triton' in reason or 'older' in reason:
        fix = "pip install 'torch>=2.8' 'triton>=3.2'"
    return Finding(WARNING, 'kernels', found, fix)


def _room(on_gpu: bool) -> tuple[int | None, str]:
    """Bytes that are free where the network will be, and that in words."""
    if on_gpu:
        import torch

        free, _ = torch.cuda.mem_get_info()
        return free, f'the GPU has {size(free)} free'
    found = re.search(r'MemAvailable:\s+(\d+) kB', Path('/proc/meminfo').read_text())
    if not found:
        return None, 'how much is free is not to be seen'
    free = int(found[1]) * 1024
    limit = Path('/sys/fs/cgroup/memory.max')
    used = Path('/sys/fs/cgroup/memory.current')
    if limit.is_file() and used.is_file() and (text := limit.read_text().strip()) != 'max':
        free = min(free, int(text) - int(used.read_text()))
    return free, f'{size(free)} are free'


def _count(numbers: int) -> str:
    return f'{numbers / 1e9:.2f} billion' if numbers >= 1e9 else f'{numbers / 1e6:.1f} million'
