"""How fast a machine takes frames and answers questions, beside what its matrix products allow."""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ..engine import Frame, Options, Sampling, Scheduler, StreamingEngine, VisualMemory
from ..engine.engine import DEFAULT_FRAME_SIZE
from ..engine.options import POSITIONS, PROMPT_LAYOUTS
from ..engine.prompt import Prompt
from ..engine.steps import Geometry
from ..model.checkpoint import load_checkpoint
from ..model.config import CheckpointError
from ..model.weights import Weights
from .floor import floor_ms
from .random_checkpoint import write_random_checkpoint
from .random_weights import SHAPES, random_weights

SECOND = 1_000_000_000
CAMERA = (720, 1280)  # height and width of the camera's frames
CAMERA_RATE = 30.0
# A question that is 20 tokens long for a tokenizer that knows these words.
QUESTION = 'where did you last see the red cup that was on the table by the window of the kitchen?'
QUESTION_TOKENS = 20
PRECISIONS = {'float32': torch.float32, 'bfloat16': torch.bfloat16, 'fp8': torch.bfloat16}


def milliseconds(
    call: Callable[[], object], repeats: int, before: Callable = lambda: None
) -> dict:
    """Median and 99th percentile of a call's wall time, what `before` does not counted."""
    times = []
    for _ in range(repeats):
        before()
        began = time.perf_counter()
        call()
        times.append((time.perf_counter() - began) * 1000)
    return summary(times)


def summary(times: list[float]) -> dict:
    return {
        'median': round(statistics.median(times), 3),
        'p99': round(float(np.percentile(times, 99)), 3),
    }


class Camera:
    """Frames of a camera, made before they are timed."""

    def __init__(self, count: int = 8):
        random = np.random.default_rng(0)
        self._frames = [random.integers(0, 256, (*CAMERA, 3), np.uint8) for _ in range(count)]
        self._next = 0

    def frame(self) -> tuple[np.ndarray, int]:
        """The next frame and its stamp [ns] at CAMERA_RATE."""
        self._next += 1
        stamp = int(self._next * SECOND / CAMERA_RATE)
        return self._frames[self._next % len(self._frames)], stamp

    def feed(self, engine: StreamingEngine, memory: VisualMemory, frames: int) -> None:
        for _ in range(frames):
            engine.ingest(memory, *self.frame())


class Bench:
    """The measurements of one engine, each a method that returns a part of the result."""

    def __init__(self, engine: StreamingEngine, label: str):
        self.engine, self.camera, self._label = engine, Camera(), label
        tokens = engine.weights.config.sliding_window // engine.tokens_per_frame
        self.window = tokens * engine.options.frames_per_grid  # in frames
        question = engine.prompt.encode(QUESTION * 2)[:QUESTION_TOKENS]
        self.question = engine.prompt.decode(question)

    def progress(self, steps: int, what: str) -> Iterator[int]:
        return tqdm(range(steps), f'{self._label}: {what}', leave=False, file=sys.stderr)

    def frames(self, repeats: int) -> dict:
        """A frame from the host's memory to the stream's, with the window so full."""
        memory, before = (self.engine.new_memory() for _ in range(2))
        together, result = self.engine.options.frames_per_grid, {}
        for name, filled in (('empty', 0), ('half', self.window // 2), ('full', self.window + 2)):
            memory.reset()
            self.camera.feed(self.engine, memory, filled)
            before.copy_(memory)

            times = []
            for _ in self.progress(repeats, f'a frame, window {name}'):
                memory.copy_(before)
                synchronize()
                began = time.perf_counter()
                self.camera.feed(self.engine, memory, together)
                times.append((time.perf_counter() - began) * 1000 / together)
            result[name] = summary(times)
        return result

    def decode(self, tokens: int) -> float:
        """Milliseconds a token of a long answer, the host's part included."""
        memory = self.full_memory()
        answer = self.engine.ask(memory, self.question, Sampling(max_tokens=tokens + 8))
        for _ in range(8):
            answer.step()
        began = time.perf_counter()
        for _ in self.progress(tokens, 'tokens of an answer'):
            answer.step()
        taken = time.perf_counter() - began
        answer.close()
        return round(taken * 1000 / tokens, 3)

    def first_token(self, repeats: int) -> dict:
        """From the question to its first token on the host."""
        memory = self.full_memory()

        def ask() -> None:
            answer = self.engine.ask(memory, self.question, Sampling(max_tokens=1))
            while not answer.finish:
                answer.step()

        ask()
        return milliseconds(ask, repeats, synchronize)

    def growth(self, first: int, last: int) -> dict:
        """Bytes allocated after so many frames."""
        memory = self.engine.new_memory()
        sizes = {}
        for i in self.progress(last, 'bytes over many frames'):
            self.camera.feed(self.engine, memory, 1)
            if i + 1 in (first, last):
                sizes[i + 1] = allocated()
        return {
            'frames': [first, last],
            'bytes': list(sizes.values()),
            'growth': sizes[last] - sizes[first],
        }

    def streaming(self, seconds: float) -> dict:
        """A camera at CAMERA_RATE while questions are asked without a pause."""
        memory = self.full_memory()
        offered, latency, answers = [], [], []
        scheduler = Scheduler(
            self.engine, on_frame=lambda _: latency.append(time.perf_counter() - offered[-1])
        )

        def ask(outcome=None) -> None:
            if outcome is not None:
                answers.append(outcome)
            if time.perf_counter() < end:
                scheduler.ask(memory, self.question, ask, sampling=Sampling(max_tokens=64))

        began = time.perf_counter()
        end = began + seconds
        ask()
        for i in self.progress(int(seconds * CAMERA_RATE), 'a camera and questions'):
            time.sleep(max(0.0, began + i / CAMERA_RATE - time.perf_counter()))
            frame, stamp = self.camera.frame()
            offered.append(time.perf_counter())
            scheduler.offer(memory, frame, stamp)
        time.sleep(1 / CAMERA_RATE)
        taken = time.perf_counter() - began
        counts = scheduler.counts(memory)
        scheduler.close()
        return {
            'seconds': round(taken, 2),
            'frames': counts.received,
            'dropped': counts.dropped + counts.failed,
            'latency_ms': summary([1000 * s for s in latency]) if latency else None,
            'answers': sum(answer.success for answer in answers),
            'tokens_per_second': round(sum(a.tokens for a in answers) / taken, 1),
        }

    def together(self, repeats: int) -> dict:
        """Frames of two cameras, one after the other and as one batch."""
        memories = [self.full_memory() for _ in range(2)]

        def batch() -> None:
            frames = [Frame(memory, *self.camera.frame()) for memory in memories]
            self.engine.ingest_together(frames)

        def singly() -> None:
            for memory in memories:
                self.camera.feed(self.engine, memory, 1)

        batch()
        return {
            'one_by_one': milliseconds(singly, repeats)['median'],
            'together': milliseconds(batch, repeats)['median'],
        }

    def full_memory(self) -> VisualMemory:
        memory = self.engine.new_memory()
        self.camera.feed(self.engine, memory, self.window + 2)
        return memory


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def allocated() -> int:
    """Bytes in use: on a GPU those of its allocator, else those of the process."""
    gc.collect()
    if torch.cuda.is_available():
        return torch.cuda.memory_allocated()
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    return pages * 4096


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

    def engine(**changes) -> StreamingEngine:
        fp8 = arguments.precision == 'fp8'
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
    result['growth_bytes'] = result['growth']['growth']
    result['dropped'] = result['streaming']['dropped']
    if whole.frames_at_once > 1:
        result['two_cameras_ms'] = bench.together(repeats)
    if whole.lookahead and not arguments.no_extras:
        result |= extras(arguments, whole, engine)
    return result


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
    lines += [
        f'{CAMERA_RATE:.0f} frames/s and questions: {stream["dropped"]} of {stream["frames"]} '
        f'dropped, latency {waits["median"]:.1f} ms (p99 {waits["p99"]:.1f}), '
        f'{stream["tokens_per_second"]:.0f} tokens/s',
        f'growth from frame {growth["frames"][0]} to {growth["frames"][1]}: '
        f'{growth["growth"]} bytes; one memory: {result["memory_bytes"] / 1e6:.1f} MB; '
        f'start: {result["start_s"]} s',
    ]
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
    parser.add_argument('--json', type=Path, help='write all figures to this file')


def run(arguments: argparse.Namespace) -> int:
    """Print the table; 2 when the arguments do not say what to measure."""
    if (arguments.checkpoint is None) != (
        arguments.shape is not None and arguments.random_weights
    ):
        raise CheckpointError(
            'bench what? give a checkpoint folder, or --shape and --random-weights'
        )
    result = measure(arguments)
    print(table(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + '\n')
        print(f'Wrote {arguments.json}')
    return 0
