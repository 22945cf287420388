"""Where pictures wait for a GPU, and the parts of a frame's work that are captured there."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..model import decoder, vision
from ..model.kernels.gpu import pixels
from ..model.state import StreamState
from ..model.weights import Weights
from .options import Options
from .runner import Picture
from .steps import Geometry, frame_turn

# Vision blocks that a GPU works on for as long as the launch of the others takes.
FIRST_BLOCKS = 4


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """For small work beside the large; one for all engines, as they are never given back."""
    return torch.cuda.Stream(device)


class CameraInput:
    """Where `count` pictures wait for the frame graph: staging on the host and on the device."""

    def __init__(
        self,
        weights: Weights,
        geometry: Geometry,
        options: Options,
        pool: StreamState,
        count: int,
    ):
        self._weights, self._geometry, self._pool = weights, geometry, pool
        self.steps: list[Callable[[], object]] = []
        # Graphs read it, so that it must outlive the cache.
        grid = geometry.grid(weights)
        self._plan = vision.layout(weights.config.vision, grid, weights.device)
        device, grids = weights.device, options.frames_per_grid
        height, width = geometry.frame_size
        size = 3 * pixels.MOST_PIXELS
        self._host = torch.empty(count, grids, size, dtype=torch.uint8, pin_memory=True)
        self._frames = torch.zeros(count, grids, size, dtype=torch.uint8, device=device)
        self._turn = torch.zeros(2, count, dtype=torch.int64, device=device)
        self._turn[0] = torch.arange(count)
        self._known: dict[tuple[int, int], tuple[int, int]] = {}
        self._sizes = torch.ones(count, grids, 4, dtype=torch.int64, device=device)
        sides = (height, width)
        self._starts = [
            torch.zeros(count, grids, side, dtype=torch.int64, device=device) for side in sides
        ]
        self._taps = [
            torch.zeros(count, grids, side, pixels.most_taps(side), device=device)
            for side in sides
        ]

    def load(self, pictures: Sequence[Picture]) -> None:
        """Copy the frames of `count` pictures towards the device."""
        for i, picture in enumerate(pictures):
            for j, frame in enumerate(picture.frames):
                frame = self._small_enough(frame)
                if self._known.get((i, j)) != frame.shape[:2]:
                    self._load_size(i, j, *frame.shape[:2])
                self._load_pixels(i, j, frame)

    def place(self, pictures: Sequence[Picture]) -> None:
        """Say which memories the pictures are for, and when."""
        rows = [picture.state.index for picture in pictures]
        times = [picture.time for picture in pictures]
        self._turn.copy_(pinned((rows, times)), non_blocking=True)

    def room(self, i: int, j: int, shape: tuple[int, int, int]) -> np.ndarray:
        """Where frame j of picture i is copied from; elsewhere if it is too large for that."""
        height, width, _ = shape
        if not _fits(height, width):
            return np.empty(shape, np.uint8)
        return self._host[i, j].numpy()[: 3 * height * width].reshape(shape)

    def _load_pixels(self, i: int, j: int, frame: np.ndarray) -> None:
        """On its way to the device when this returns, and there before the picture is taken."""
        size, host = frame.size, self._host[i, j]
        whole = frame.flags.c_contiguous
        is_there = whole and frame.ctypes.data == host.data_ptr()
        if whole and frame.flags.writeable and not is_there:
            # CUDA copies it through memory of its own, piece by piece, faster than we can.
            source = torch.from_numpy(frame).view(-1)
        else:
            if not is_there:
                np.copyto(self.room(i, j, frame.shape), frame)
            source = host[:size]
        self._frames[i, j, :size].copy_(source, non_blocking=True)

    def begin(self) -> None:
        """Frames through the first blocks of the vision tower."""
        config = self._weights.config.vision
        patches = pixels.patches(
            self._frames, self._sizes, self._starts, self._taps, self._geometry.frame_size,
            config, self._weights.dtype,
        )  # fmt: skip
        x = vision.embed(self._weights, patches, self._plan)
        x = vision.run_blocks(self._weights, x, self._plan, slice(FIRST_BLOCKS))
        self._x = self._weights.kernels.settled(x)  # as `encode` may run more than once

    def encode(self) -> None:
        """Through the others, to image tokens; meanwhile, where those will go."""
        main, side = torch.cuda.current_stream(), _side_stream(self._weights.device)
        side.wait_stream(main)
        with torch.cuda.stream(side):
            rows, time = self._turn
            self._place = frame_turn(self._weights, self._geometry, time, self._pool, rows)
        rest = slice(FIRST_BLOCKS, None)
        x = vision.run_blocks(self._weights, self._x, self._plan, rest)
        self._tokens = vision.merge(self._weights, x, self._plan)
        main.wait_stream(side)

    def remember(self) -> None:
        """Image tokens into the memories."""
        decoder.remember(self._weights, self._tokens, *self._place, self._pool)

    def _small_enough(self, frame: np.ndarray) -> np.ndarray:
        """The frame; one that is larger than what is staged is resized on the host."""
        if _fits(*frame.shape[:2]):
            return frame
        frame = np.require(frame, requirements=['C', 'W'])
        return vision.resize(torch.from_numpy(frame), self._geometry.frame_size).numpy()

    def _load_size(self, i: int, j: int, height: int, width: int) -> None:
        size = pixels.size_of(height, width, self._geometry.frame_size)
        self._sizes[i, j].copy_(torch.tensor(size))
        for axis, side in enumerate((height, width)):
            starts, weights = pixels.taps(side, self._geometry.frame_size[axis])
            self._starts[axis][i, j].copy_(torch.from_numpy(starts))
            self._taps[axis][i, j].copy_(torch.from_numpy(weights))
        self._known[i, j] = (height, width)


def _fits(height: int, width: int) -> bool:
    """Whether a frame of this size is staged as it is."""
    return max(height, width) <= pixels.LONGEST_SIDE and height * width <= pixels.MOST_PIXELS


def pinned(values: object) -> Tensor:
    """Numbers in memory that the device copies from by itself; the allocator reuses it after."""
    return torch.tensor(values, pin_memory=True)
