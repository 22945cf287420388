"""Running the engine's steps as CUDA graphs, one set for all memories.

All states are rows of one pool. A graph reads which rows it works on, the frame's size and its
time from device tensors that are written before each replay, so that what was captured once holds
for every memory, every resolution and for ever.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ..model import decoder
from ..model.state import StreamState
from ..model.weights import Weights
from .camera_input import CameraInput, pinned
from .options import Options
from .runner import Decoding, Picture, primed
from .sampling import Sampling, draw
from .steps import Geometry, open_question, text_step

SMALLEST_BUCKET = 16
# More pictures together no longer gain anything: the GPU is full.
MOST_AT_ONCE = 2
WARM_UPS = 2

logger = logging.getLogger(__name__)
_one_at_a_time = threading.Lock()  # of all engines' captures, which share a stream

Step = Callable[[], object]


@functools.cache
def _capture_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all engines: cuBLAS keeps 32 MB for every stream that it ever worked on."""
    return torch.cuda.Stream(device)


def _on_device(method: Callable) -> Callable:
    """Run a GraphRunner's method with its GPU as the current one, on whatever thread."""

    @functools.wraps(method)
    def call(self: GraphRunner, *arguments: object) -> object:
        with torch.cuda.device(self.weights.device):
            return method(self, *arguments)

    return call


class GraphRunner:
    """See runner.Runner. Everything is allocated, and captured, when it is made."""

    lookahead = 1

    def __init__(self, weights: Weights, geometry: Geometry, options: Options):
        began = time.monotonic()
        self.weights, self.geometry, self.options = weights, geometry, options
        self.pictures_at_once = min(options.cameras, MOST_AT_ONCE)
        rows = max(options.cameras + options.branches, self.pictures_at_once)
        self.pool = StreamState(
            weights.config, geometry.tokens, weights.device, weights.dtype, rows
        )
        self._free = deque(range(rows))
        self._cameras = [
            CameraInput(weights, geometry, options, self.pool, count + 1)
            for count in range(self.pictures_at_once)
        ]
        self._text = _TextInput(weights, geometry, rows)
        self._memory_pool = torch.cuda.graph_pool_handle() if options.graphs else None
        self._capture_all()
        self.pool.reset()
        torch.cuda.synchronize(weights.device)
        logger.info('ready on the GPU after %.1f s', time.monotonic() - began)

    def new_state(self) -> StreamState:
        if not self._free:
            raise RuntimeError(
                f'all {self.options.cameras} memories that this engine was made for are in use: '
                'make it with more cameras'
            )
        index = self._free.popleft()
        state = self.pool.row(index)
        weakref.finalize(state, self._free.append, index)
        return state

    @_on_device
    def prime(self, header: list[int]) -> StreamState:
        state = self.pool.row(0)
        # Not of the pool: it is only ever copied from.
        kept = StreamState(
            self.weights.config, self.geometry.tokens, self.weights.device, self.weights.dtype
        )
        for first in range(0, len(header), self.geometry.tokens):
            self.append(state, header[first : first + self.geometry.tokens])
        kept.copy_(primed(state))
        state.reset()
        return kept

    def room(self, place: int, of: int, part: int, shape: tuple[int, int, int]) -> np.ndarray:
        return self._cameras[of - 1].room(place, part, shape)

    @_on_device
    def ingest(self, pictures: Sequence[Picture]) -> None:
        camera = self._cameras[len(pictures) - 1]
        begin, encode, remember = camera.steps
        camera.load(pictures)
        begin()
        camera.place(pictures)  # the GPU is at work by now
        encode()
        remember()
        done = torch.cuda.Event()
        done.record()
        done.synchronize()

    @_on_device
    def begin(self, state: StreamState, sampling: Sampling) -> Decoding:
        if self.options.positions == 'rebased':
            open_question(self.geometry, state)
        return GraphDecoding(self, state, sampling)

    @_on_device
    def append(self, state: StreamState, tokens: list[int]) -> None:
        """Append text to a state; the scores of what follows are left on the device."""
        bucket = next(size for size in self._buckets if size >= len(tokens))
        self._text.load(state.index, tokens)
        self._buckets[bucket]()

    @_on_device
    def decode(self, state: StreamState) -> None:
        self._text.row.copy_(self._text.every_row[state.index])
        self._decode()

    @_on_device
    def draw(
        self, state: StreamState, sampling: Sampling, chance: float, forbidden: Tensor | None
    ) -> _Token:
        """Choose a token by the scores; it is the state's newest, and on its way to the host."""
        if forbidden is not None:
            # In the order of the stream: after the scores are written, before they are read.
            mask = forbidden.pin_memory().to(self.weights.device, non_blocking=True)
            self._text.scores.masked_fill_(mask, -torch.inf)
        if sampling.greedy:
            self._greedy()
        else:
            self._text.draw.copy_(
                pinned((sampling.temperature, sampling.top_p, chance)), non_blocking=True
            )
            self._sampled()
        return _Token(self._text.newest[state.index])

    @_on_device
    def _capture_all(self) -> None:
        text, rebased = self._text, self.options.positions == 'rebased'
        last = self.geometry.tokens
        sizes = [2**i for i in range(SMALLEST_BUCKET.bit_length() - 1, 30) if 2**i < last]

        def respond(ids: Tensor, lengths: Tensor) -> None:
            hidden = text_step(self.weights, ids, lengths, self.pool, text.row, rebased)
            text.scores.copy_(decoder.logits(self.weights, hidden[0]))

        def read(bucket: int) -> Step:
            return lambda: respond(text.ids[:, :bucket], text.length)

        def choose(greedy: bool) -> None:
            token = (
                text.scores.argmax()[None] if greedy else draw(text.scores, *text.draw[:, None])
            )
            text.newest[text.row] = token

        for camera in self._cameras:
            # In parts: the GPU begins only when a graph's launch is complete, which takes a
            # while for the large ones, but may then go on during the next.
            for part in (camera.begin, camera.encode, camera.remember):
                step = self._capture(part)
                step()  # a capture computes nothing, and the next part reads where rows begin
                camera.steps.append(step)
        self._buckets = {size: self._capture(read(size)) for size in (*sizes, last)}
        self._decode = self._capture(lambda: respond(text.newest[text.row], text.one))
        self._greedy = self._capture(lambda: choose(True))
        self._sampled = self._capture(lambda: choose(False))

    @torch.no_grad()
    def _capture(self, step: Step) -> Step:
        """`step` as a graph, or as it is. Kernels are compiled and tuned by running it first."""
        if not self.options.graphs:
            return step
        graph, stream = torch.cuda.CUDAGraph(), _capture_stream(self.weights.device)
        with _one_at_a_time:
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(WARM_UPS):
                    step()
            torch.cuda.current_stream().wait_stream(stream)
            # Other threads may use the GPU meanwhile.
            with torch.cuda.graph(graph, self._memory_pool, stream, 'thread_local'):
                step()
        return graph.replay


class GraphDecoding:
    """See runner.Decoding; works on behind the host's back."""

    def __init__(self, runner: GraphRunner, state: StreamState, sampling: Sampling):
        self._runner, self._state, self._sampling = runner, state, sampling
        self._chances: Iterator[float] = sampling.chances()
        self._drawn: deque[_Token] = deque()

    def read(self, tokens: list[int], last: bool, forbidden: Tensor | None = None) -> None:
        self._runner.append(self._state, tokens)
        if last:
            self._draw(forbidden)

    def go_on(self, forbidden: Tensor | None = None) -> None:
        self._runner.decode(self._state)
        self._draw(forbidden)

    def token(self) -> int:
        return self._drawn.popleft().wait()

    def _draw(self, forbidden: Tensor | None) -> None:
        chance = 0.0 if self._sampling.greedy else next(self._chances)
        self._drawn.append(self._runner.draw(self._state, self._sampling, chance, forbidden))


class _TextInput:
    """What the text graphs read and write; `newest` is each row's last token."""

    def __init__(self, weights: Weights, geometry: Geometry, rows: int):
        device = weights.device

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=torch.int64, device=device)

        self._turn = zeros(2 + geometry.tokens)
        self.row, self.length, self.ids = self._turn[:1], self._turn[1:2], self._turn[None, 2:]
        self.length.fill_(1)
        self.one = torch.ones_like(self.length)
        self.newest = zeros(rows, 1)
        self.every_row = torch.arange(rows, device=device)[:, None]
        self.scores = torch.zeros(weights.config.vocab_size, device=device)
        self.draw = torch.ones(3, device=device)  # temperature, top_p, chance

    def load(self, row: int, tokens: list[int]) -> None:
        turn = (row, len(tokens), *tokens)
        self._turn[: len(turn)].copy_(pinned(turn), non_blocking=True)


class _Token:
    """A token on its way to the host."""

    def __init__(self, source: Tensor):
        self._value = torch.empty(1, dtype=torch.int64, pin_memory=True)
        self._value.copy_(source, non_blocking=True)
        self._arrived = torch.cuda.Event(blocking=True)
        self._arrived.record()

    def wait(self) -> int:
        self._arrived.synchronize()
        return int(self._value)
