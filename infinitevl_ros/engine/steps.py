"""What an engine does to a state, as functions of tensors: captured on a GPU, else called."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..model import decoder
from ..model.state import StreamState, Turn
from ..model.weights import Weights


@dataclass(frozen=True)
class Geometry:
    """Sizes of a stream's pictures: `frame_size` (height, width) in pixels.

    `cells` [3, tokens of a frame]: time 0, row and column of each token.
    """

    frame_size: tuple[int, int]
    cells: Tensor

    @classmethod
    def of(cls, weights: Weights, frame_size: tuple[int, int]) -> Geometry:
        """Raises ValueError for a frame that is not made of whole tokens."""
        config = weights.config.vision
        unit = config.patch_size * config.spatial_merge_size
        if any(side < unit or side % unit for side in frame_size):
            raise ValueError(f'frame_size is {frame_size}, expected multiples of {unit} pixels')
        rows, columns = (side // unit for side in frame_size)
        cell = torch.arange(rows * columns, device=weights.device)
        cells = torch.stack((torch.zeros_like(cell), cell // columns, cell % columns))
        height, width = frame_size
        return cls((height, width), cells)

    @property
    def tokens(self) -> int:
        return self.cells.shape[1]

    def grid(self, weights: Weights) -> tuple[int, int]:
        """Rows and columns of patches."""
        side = weights.config.vision.patch_size
        return self.frame_size[0] // side, self.frame_size[1] // side


def frame_turn(
    weights: Weights, geometry: Geometry, time: Tensor, state: StreamState, rows: Tensor
) -> tuple[Turn, tuple[Tensor, Tensor]]:
    """Make room for one picture each at `time` [B] in `rows` [B] of `state`.

    Returns what decoder.remember wants to know about their tokens beside the tokens themselves.
    """
    state['time'][rows] = time
    positions = geometry.cells.expand(len(rows), -1, -1) + state['origin'][rows, None, None]
    positions = torch.cat((positions[:, :1] + time[:, None, None], positions[:, 1:]), 1)
    return state.advance(positions, rows), decoder.rope_tables(weights.config, positions)


def text_step(
    weights: Weights,
    ids: Tensor,
    lengths: Tensor,
    state: StreamState,
    rows: Tensor,
    rebased: bool,
) -> Tensor:
    """Append text: token ids [B, T], of which `lengths` [B] count.

    A token's position is the next one, the same on all three axes; with `rebased`, rows and
    columns are counted as if the newest frame were the first. Returns the outputs of the final
    norm at the last token [B, D].
    """
    step = torch.arange(1, ids.shape[1] + 1, device=ids.device)
    positions = (state['largest'][rows, None] + step)[:, None].expand(-1, 3, -1)
    if rebased:
        shift = state['time'][rows, None, None]
        positions = torch.cat((positions[:, :1], positions[:, 1:] - shift), 1)
    hidden = decoder.decode(weights, decoder.embed(weights, ids), positions, state, rows, lengths)
    last = (lengths - 1)[:, None, None].expand(-1, 1, hidden.shape[-1])
    return hidden.gather(1, last)[:, 0]


def open_question(geometry: Geometry, state: StreamState) -> None:
    """Let the text that follows stand where it would, were the newest frame the first."""
    farthest = geometry.cells.max() + state['origin']
    state['largest'].copy_(farthest + state['time'])
