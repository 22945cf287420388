"""How fast a machine takes frames and answers questions, beside what its matrix products allow."""

from __future__ import annotations

import argparse
import gc
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from ..engine import Options, StreamingEngine
from ..engine.engine import DEFAULT_FRAME_SIZE
from ..engine.options import POSITIONS, PROMPT_LAYOUTS
from ..engine.prompt import Prompt
from ..engine.steps import Geometry
from ..model.checkpoint import load_checkpoint
from ..model.config import CheckpointError
from ..model.weights import Weights
from . import output
from .floor import floor_ms
from .measure import CAMERA, CAMERA_RATE, Bench
from .random_checkpoint import write_random_checkpoint
from .random_weights import SHAPES, random_weights

PRECISIONS = {'float32': torch.float32, 'bfloat16': torch.bfloat16, 'fp8': torch.bfloat16}


def load(arguments: argparse.Namespace, folder: Path) -> tuple[Weights, Prompt, tuple[int, int]]:
    """The network to measure, its text part and the size it takes frames in."""
    dtype = PRECISIONS[arguments.precision]
    if arguments.checkpoint:
        weights = load_checkpoint(arguments.checkpoint, arguments.device, dtype)
        engine_size = StreamingEngine.frame_size_of(arguments.checkpoint)
        return weights, Prompt(arguments.checkpoint, weights.config), engine_size
    write_random_checkpoint(folder)
    if arguments.shape == 'small':
        weights = load_checkpoint(folder, arguments.device, dtype)
        return weights, Prompt(folder, weights.config), StreamingEngine.frame_size_of(folder)
    weights = random_weights(arguments.shape, folder, arguments.device, dtype)
    return weights, Prompt(folder, weights.config), DEFAULT_FRAME_SIZE


@torch.no_grad()
def measure(arguments: argparse.Namespace) -> dict:
    """Every figure of the JSON."""
    with tempfile.TemporaryDirectory() as folder:
        weights, prompt, size = load(arguments, Path(folder))
    # No answer may end before it is timed.
    weights = replace(weights, config=replace(weights.config, eos_token_ids=(-1,)))
    options = Options(
        cameras=3,
        frames_per_grid=arguments.frames_per_grid,
        positions=arguments.positions,
        prompt_layout=arguments.prompt_layout,
    )

    def engine(fp8: bool = arguments.precision == 'fp8', **changes) -> StreamingEngine:
        return StreamingEngine(weights, prompt, size, 'bench', replace(options, **changes), fp8)

    began = time.perf_counter()
    whole = engine()
    start_s = round(time.perf_counter() - began, 1)
    bench, repeats = Bench(whole, 'engine'), arguments.repeats
    floor = floor_ms(whole.weights, Geometry.of(weights, size))
    result = {
        **setting(arguments, weights),
        'start_s': start_s,
        'memory_bytes': whole.new_memory().nbytes,
        'frame_ms': bench.frames(repeats),
        'decode_ms': bench.decode(max(16, repeats)),
        'first_token_ms': bench.first_token(repeats // 4 + 1)['median'],
        'streaming': bench.streaming(arguments.seconds),
        'growth': bench.growth(min(100, arguments.frames // 2), arguments.frames),
        'floor': floor,
    }
    if whole.options.frames_per_grid == 1:
        result['frame_staged_ms'] = bench.staged_frames(repeats)
    result['growth_bytes'] = result['growth']['growth']
    result['dropped'] = result['streaming']['dropped']
    if arguments.precision == 'fp8':
        result['fp8_error'] = fp8_error(whole, engine(fp8=False))
    if whole.frames_at_once > 1:
        result['two_cameras_ms'] = bench.together(repeats)
    if whole.lookahead and not arguments.no_extras:
        result |= extras(arguments, whole, engine)
    return result


def fp8_error(rounded: StreamingEngine, exact: StreamingEngine) -> float:
    """Relative norm of what 8 bits change in the memory's recurrent states after a full window."""
    memories = [Bench(engine, '').full_memory() for engine in (rounded, exact)]
    names = [name for name in memories[0].state.tensors if name.endswith('recurrent')]
    found, wanted = (
        torch.cat([memory.state[name].flatten() for name in names]) for memory in memories
    )
    return round(float((found - wanted).norm() / wanted.norm()), 4)


def extras(arguments: argparse.Namespace, whole: StreamingEngine, engine: Callable) -> dict:
    """The same without graphs and with the other options, on a GPU."""
    result, few = {}, arguments.repeats // 4 + 1
    bench = Bench(engine(graphs=False), 'graphs off')
    result['graphs_off'] = {
        'frame_ms': bench.frames(few),
        'decode_ms': bench.decode(max(16, few)),
        'first_token_ms': bench.first_token(few)['median'],
    }
    result['options'] = {}
    for name, value in (
        ('frames_per_grid', 2), ('positions', 'rebased'), ('prompt_layout', 'published'),
    ):  # fmt: skip
        del bench
        gc.collect()
        bench = Bench(engine(**{name: value}), f'{name} {value}')
        result['options'][f'{name}={value}'] = {
            'frame_ms': bench.frames(few)['full'],
            'decode_ms': bench.decode(max(16, few)),
            'first_token_ms': bench.first_token(few)['median'],
        }
    return result


def setting(arguments: argparse.Namespace, weights: Weights) -> dict:
    """What was measured, on what, by which versions."""
    device = torch.device(arguments.device)
    gpu = device.type == 'cuda'
    versions = {'python': sys.version.split()[0], 'torch': torch.__version__}
    if gpu:
        import triton

        versions |= {'triton': triton.__version__, 'cuda': torch.version.cuda}
    parameters = sum(t.numel() for t in weights.tensors())
    return {
        'date': time.strftime('%Y-%m-%d'),
        'shape': arguments.checkpoint.name if arguments.checkpoint else arguments.shape,
        'parameters': parameters,
        'precision': arguments.precision,
        'hardware': torch.cuda.get_device_name(device)
        if gpu
        else f'{torch.get_num_threads()} CPU threads',
        'versions': versions,
        'commit': commit(),
        'camera': f'{CAMERA[1]}x{CAMERA[0]}',
        'frames_per_grid': arguments.frames_per_grid,
        'positions': arguments.positions,
        'prompt_layout': arguments.prompt_layout,
    }


def commit() -> str | None:
    """The commit of the source this runs from, where that is a git clone."""
    command = ['git', '-C', str(Path(__file__).resolve().parent), 'rev-parse', '--short', 'HEAD']
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def table(result: dict) -> str:
    """The figures for people."""
    floor = result['floor']
    lines = [
        f'{result["shape"]}, {result["parameters"] / 1e9:.2f} B parameters, '
        f'{result["precision"]}, on {result["hardware"]}; camera {result["camera"]}',
        f'{"":28}{"median":>9}{"p99":>9}{"x floor":>9}',
    ]

    def row(name: str, median: float, p99: float | None = None, least: float | None = None):
        line = f'{name:28}{median:9.2f}{"" if p99 is None else f"{p99:.2f}":>9}'
        lines.append(line + (f'{median / least:9.2f}' if least else ''))

    for name, times in result['frame_ms'].items():
        row(f'frame, window {name} [ms]', times['median'], times['p99'], floor['frame_ms'])
    if staged := result.get('frame_staged_ms'):
        row('full, made in staging [ms]', staged['median'], staged['p99'], floor['frame_ms'])
    row('token of an answer [ms]', result['decode_ms'], None, floor['decode_ms'])
    row('first token [ms]', result['first_token_ms'])
    row('floor: frame [ms]', floor['frame_ms'])
    row('floor: token [ms]', floor['decode_ms'])
    if off := result.get('graphs_off'):
        full = off['frame_ms']['full']
        row('graphs off: frame [ms]', full['median'], full['p99'], floor['frame_ms'])
        row('graphs off: token [ms]', off['decode_ms'], None, floor['decode_ms'])
        row('graphs off: first token', off['first_token_ms'])
    for name, figures in result.get('options', {}).items():
        times = figures['frame_ms']
        lines.append(name)
        row('  frame [ms]', times['median'], times['p99'], floor['frame_ms'])
        row('  token [ms]', figures['decode_ms'], None, floor['decode_ms'])
        row('  first token [ms]', figures['first_token_ms'])
    if two := result.get('two_cameras_ms'):
        row('two cameras, one by one', two['one_by_one'])
        row('two cameras, together', two['together'])
    stream, growth = result['streaming'], result['growth']
    waits = stream['latency_ms'] or {'median': float('nan'), 'p99': float('nan')}
    longest = stream['latency_max_ms'] or float('nan')
    lines += [
        f'{CAMERA_RATE:.0f} frames/s and questions: {stream["dropped"]} of {stream["frames"]} '
        f'dropped, latency {waits["median"]:.1f} ms (p99 {waits["p99"]:.1f}, '
        f'longest {longest:.1f}), '
        f'{stream["tokens_per_second"]:.0f} tokens/s',
        f'growth from frame {growth["frames"][0]} to {growth["frames"][1]}: '
        f'{growth["growth"]} bytes; one memory: {result["memory_bytes"] / 1e6:.1f} MB; '
        f'start: {result["start_s"]} s',
    ]
    if 'fp8_error' in result:
        lines.append(f'fp8 changes the recurrent states by {result["fp8_error"]:.1%}')
    return '\n'.join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    gpu = torch.cuda.is_available()
    parser.add_argument('checkpoint', nargs='?', type=Path, help='a checkpoint folder')
    parser.add_argument('--shape', choices=('small', *SHAPES), help='sizes of a random network')
    parser.add_argument(
        '--random-weights', action='store_true', help='fill --shape with seeded random numbers'
    )
    parser.add_argument('--device', default='cuda' if gpu else 'cpu')
    parser.add_argument(
        '--precision', choices=PRECISIONS, default='bfloat16' if gpu else 'float32'
    )
    parser.add_argument('--frames-per-grid', type=int, choices=(1, 2), default=1)
    parser.add_argument('--positions', choices=POSITIONS, default=POSITIONS[0])
    parser.add_argument('--prompt-layout', choices=PROMPT_LAYOUTS, default=PROMPT_LAYOUTS[0])
    parser.add_argument('--repeats', type=int, default=200, help='frames timed for a figure')
    parser.add_argument(
        '--frames', type=int, default=10_000, help='frames after which bytes are counted again'
    )
    parser.add_argument('--seconds', type=float, default=20.0, help='of camera and questions')
    parser.add_argument(
        '--no-extras', action='store_true', help='leave out the other options and graphs off'
    )
    output.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the table; 2 when the arguments do not say what to measure."""
    if (arguments.checkpoint is None) != (
        arguments.shape is not None and arguments.random_weights
    ):
        raise CheckpointError(
            'bench what? give a checkpoint folder, or --shape and --random-weights'
        )
    for name, least in (('repeats', 1), ('frames', 2), ('seconds', 0.1)):
        if not least <= getattr(arguments, name) < float('inf'):
            value = getattr(arguments, name)
            raise ValueError(f'--{name} is {value}, expected {least} or more')
    output.check_outputs(arguments.json)
    result = measure(arguments)
    print(table(result), file=output.results(arguments))
    output.write_json(arguments.json, result)
    return 0
