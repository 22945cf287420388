"""Running the engine's steps as they are called: the CPU's way, and the meaning of the others."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..model import decoder, vision
from ..model.state import StreamState
from ..model.weights import Weights
from .options import Options
from .sampling import Sampling, draw
from .steps import Geometry, frame_turn, open_question, text_step


@dataclass(frozen=True)
class Picture:
    """What goes into one grid of the network: RGB frames, uint8 [height, width, 3] of any size.

    `time` is the picture's position on the time axis, counted from the stream's start.
    """

    state: StreamState
    frames: Sequence[np.ndarray]
    time: int


class Decoding(Protocol):
    """An answer's text on its way through the network, over a branch's state.

    `forbidden`: tokens that must not be drawn, bool [vocabulary], on the CPU.
    """

    def read(self, tokens: list[int], last: bool, forbidden: Tensor | None = None) -> None:
        """Append a part of the question, at most a frame's worth; the last is answered."""

    def go_on(self, forbidden: Tensor | None = None) -> None:
        """Append the token drawn last and draw the next."""

    def token(self) -> int:
        """The oldest token drawn that has not been asked for; waits for it."""


class Runner(Protocol):
    """What StreamingEngine does its work with.

    `lookahead`: tokens that may be drawn before the one before them is known to the host;
    `pictures_at_once`: how many `ingest` takes together.
    """

    lookahead: int
    pictures_at_once: int

    def new_state(self) -> StreamState: ...

    def prime(self, header: list[int]) -> StreamState:
        """The state before the first frame."""

    def room(self, place: int, of: int, part: int, shape: tuple[int, int, int]) -> np.ndarray:
        """Room for frame number `part` of picture `place` of the `of` that are ingested next."""

    def ingest(self, pictures: Sequence[Picture]) -> None:
        """Take pictures into states that are all different; done when it returns."""

    def begin(self, state: StreamState, sampling: Sampling) -> Decoding: ...


class PlainRunner:
    """Each memory has a state of its own, each step is a call."""

    lookahead = 0
    pictures_at_once = 1

    def __init__(self, weights: Weights, geometry: Geometry, options: Options):
        self.weights, self.geometry, self.options = weights, geometry, options
        self._row = torch.zeros(1, dtype=torch.int64, device=weights.device)

    def new_state(self) -> StreamState:
        weights = self.weights
        return StreamState(weights.config, self.geometry.tokens, weights.device, weights.dtype)

    def prime(self, header: list[int]) -> StreamState:
        state = self.new_state()
        for first in range(0, len(header), self.geometry.tokens):
            self._append(state, header[first : first + self.geometry.tokens], rebased=False)
        return primed(state)

    def room(self, place: int, of: int, part: int, shape: tuple[int, int, int]) -> np.ndarray:
        return np.empty(shape, np.uint8)

    def ingest(self, pictures: Sequence[Picture]) -> None:
        config = self.weights.config.vision
        for picture in pictures:
            patches = [self._patches(frame) for frame in picture.frames]
            if len(patches) > 1:
                # One frame to each temporal slot.
                slots = [p.unflatten(1, (3, config.temporal_patch_size, -1)) for p in patches]
                joined = [slot[:, :, i] for i, slot in enumerate(slots)]
                patches = [torch.stack(joined, 2).flatten(1)]
            grid = self.geometry.grid(self.weights)
            tokens = vision.encode(self.weights, patches[0][None], grid)
            time = torch.full_like(self._row, picture.time)
            state = picture.state
            place = frame_turn(self.weights, self.geometry, time, state, self._row)
            decoder.remember(self.weights, tokens, *place, state)

    def begin(self, state: StreamState, sampling: Sampling) -> Decoding:
        rebased = self.options.positions == 'rebased'
        if rebased:
            open_question(self.geometry, state)
        return PlainDecoding(self, state, sampling, rebased)

    def _patches(self, frame: np.ndarray) -> Tensor:
        pixels = torch.from_numpy(np.require(frame, requirements=['C', 'W']))
        pixels = vision.resize(pixels.to(self.weights.device), self.geometry.frame_size)
        return vision.patchify(pixels, self.weights.config.vision, self.weights.dtype)

    def _append(self, state: StreamState, tokens: list[int], rebased: bool) -> Tensor:
        """Outputs [1, D] of the final norm at the last of `tokens`."""
        ids = torch.tensor([tokens], device=self.weights.device)
        lengths = torch.full_like(self._row, len(tokens))
        return text_step(self.weights, ids, lengths, state, self._row, rebased)


class PlainDecoding:
    """See Decoding; every call waits for its result."""

    def __init__(self, runner: PlainRunner, state: StreamState, sampling: Sampling, rebased: bool):
        self._runner, self._state, self._rebased = runner, state, rebased
        self._sampling = sampling
        self._chances: Iterator[float] = sampling.chances()
        self._newest = 0
        self._drawn: deque[int] = deque()

    def read(self, tokens: list[int], last: bool, forbidden: Tensor | None = None) -> None:
        hidden = self._runner._append(self._state, tokens, self._rebased)
        if last:
            scores = decoder.logits(self._runner.weights, hidden[0])
            if forbidden is not None:
                scores = scores.masked_fill(forbidden.to(scores.device), -torch.inf)
            self._newest = self._draw(scores)
            self._drawn.append(self._newest)

    def go_on(self, forbidden: Tensor | None = None) -> None:
        self.read([self._newest], True, forbidden)

    def token(self) -> int:
        return self._drawn.popleft()

    def _draw(self, scores: Tensor) -> int:
        if self._sampling.greedy:
            return int(scores.argmax())
        values = (self._sampling.temperature, self._sampling.top_p, next(self._chances))
        return int(draw(scores, *torch.tensor(values, device=scores.device)[:, None]))


def primed(state: StreamState) -> StreamState:
    """Pictures start behind what `state` holds."""
    state['origin'].copy_(state['largest'] + 1)
    return state
