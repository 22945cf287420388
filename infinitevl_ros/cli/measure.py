"""The measurements of one engine: frames, tokens, bytes, and a camera with questions."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ..engine import Frame, Sampling, Scheduler, StreamingEngine, VisualMemory

SECOND = 1_000_000_000
CAMERA = (720, 1280)  # height and width of the camera's frames
CAMERA_RATE = 30.0
# A question that is 20 tokens long for a tokenizer that knows these words.
QUESTION = 'where did you last see the red cup that was on the table by the window of the kitchen?'
QUESTION_TOKENS = 20


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
        return tqdm(range(steps), f'{self._label}: {what}', leave=False, disable=None)

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

    def staged_frames(self, repeats: int) -> dict:
        """A frame made where the engine sends it from, as the node makes it; the window full."""
        memory, made = self.full_memory(), []

        def make() -> None:
            pixels, stamp = self.camera.frame()
            made[:] = self.engine.room_for_frame(memory, pixels.shape), stamp
            np.copyto(made[0], pixels)
            synchronize()

        return milliseconds(lambda: self.engine.ingest(memory, *made), repeats, make)

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
                sizes[i + 1] = allocated(self.engine.weights.device)
        return {
            'frames': [first, last],
            'bytes': list(sizes.values()),
            'growth': sizes[last] - sizes[first],
        }

    def streaming(self, seconds: float) -> dict:
        """A camera at CAMERA_RATE while questions are asked without a pause."""
        memory = self.full_memory()
        offered: dict[int, float] = {}  # when, by stamp
        latency, answers = [], []
        scheduler = Scheduler(
            self.engine,
            on_frame=lambda m: latency.append(time.perf_counter() - offered[m.newest_stamp]),
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
            offered[stamp] = time.perf_counter()
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
            'latency_max_ms': round(1000 * max(latency), 3) if latency else None,
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


def allocated(device: torch.device) -> int:
    """Bytes in use: on a GPU those of its allocator, else those of the process."""
    gc.collect()
    if device.type == 'cuda':
        return torch.cuda.memory_allocated(device)
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    return pages * 4096
