"""All that a stream leaves behind in the network: named tensors of fixed size."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .config import DELTA, FULL, CheckpointError, ModelConfig

# Bytes that each tensor of a row starts at a multiple of: what vector loads need.
ALIGNMENT = 256


@dataclass(frozen=True)
class Turn:
    """Where the next T tokens of B streams go.

    `rows` [B] are the streams' rows of the state; of the T tokens the first `lengths` [B] count,
    the rest is padding; `start` [B] tokens came before; `cursor` [B] is the ring slot of the
    first. `ring` and `window` are the sizes of the rings and of what a query sees.
    """

    rows: Tensor
    lengths: Tensor
    start: Tensor
    cursor: Tensor
    tokens: int
    ring: int
    window: int

    @cached_property
    def counts(self) -> Tensor:
        """Which tokens are no padding [B, T]."""
        return torch.arange(self.tokens, device=self.rows.device) < self.lengths[:, None]

    @cached_property
    def slots(self) -> Tensor:
        """Ring slot of each token [B, T].

        Padding gets slots too: what stood there is out of every later query's sight.
        """
        step = torch.arange(self.tokens, device=self.rows.device)
        return (self.cursor[:, None] + step) % self.ring

    @cached_property
    def visible(self) -> Tensor:
        """Which slots each token sees [B, 1, T, R]: its own and the window behind it."""
        device = self.rows.device
        # The index (counted since the reset) of the token in each slot: the newest is 1 behind
        # the cursor, and a slot that was never written gets a negative index.
        end = self.start + self.lengths
        newest = self.cursor + self.lengths - 1
        age = (newest[:, None] - torch.arange(self.ring, device=device)) % self.ring
        index = (end[:, None] - 1 - age)[:, None, :]
        query = (self.start[:, None] + torch.arange(self.tokens, device=device))[..., None]
        seen = (index >= 0) & (index <= query) & (index > query - self.window)
        return seen[:, None]


class StreamState:
    """The recurrent and windowed state of some streams, a row for each.

    Per attention layer a ring of rotated keys and one of values [rows, kv_heads, R, head_dim] with
    R = sliding_window + block, so that a block of new tokens is written before its first token
    looks back a whole window. Per Gated DeltaNet layer a float32 recurrent state [rows, H, K, V]
    and the last inputs of its short convolutions [rows, conv_size, q + k + v channels], in which
    token n stands at n % conv_size. Counters, int64 [rows]: `tokens` seen since the reset,
    `cursor` (the ring slot of the next token), `origin` (where pictures start on all three
    position axes), `time` (newest time position, counted from the origin) and `largest` (largest
    position used; -1 at first).

    What changes from token to token is a tensor, so a captured CUDA graph reads it afresh. All
    tensors of a row are parts of one buffer: to copy a stream is one copy.
    """

    def __init__(
        self,
        config: ModelConfig,
        block: int,
        device: torch.device | str = 'cpu',
        dtype: torch.dtype = torch.float32,
        rows: int = 1,
    ):
        if FULL in config.layer_types:
            raise CheckpointError(
                f'a {FULL} layer keeps every token, so its memory grows without end; only '
                f'checkpoints whose attention layers are all sliding can stream'
            )
        self.config, self.block, self.index = config, block, 0
        self.ring = config.sliding_window + block
        c = config
        channels = sum(c.linear_splits[:3])
        state_shape = (c.num_linear_heads, c.linear_head_dim, c.linear_value_dim)
        self._layout: dict[str, tuple[int, tuple[int, ...], torch.dtype]] = {}
        self._row_bytes = 0
        for i, kind in enumerate(c.layer_types):
            if kind == DELTA:
                self._place(f'layers.{i}.recurrent', state_shape, torch.float32)
                self._place(f'layers.{i}.conv', (c.conv_size, channels), dtype)
            else:
                for name in ('keys', 'values'):
                    ring = (c.num_key_value_heads, self.ring, c.head_dim)
                    self._place(f'layers.{i}.{name}', ring, dtype)
        for name in ('tokens', 'cursor', 'origin', 'time', 'largest'):
            self._place(name, (), torch.int64)
        self._use(torch.empty(rows, self._row_bytes, dtype=torch.uint8, device=device))
        self.reset()

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def layer(self, index: int, name: str) -> Tensor:
        return self.tensors[f'layers.{index}.{name}']

    def row(self, index: int) -> StreamState:
        """One stream of this state, sharing its memory; its `index` tells which."""
        one = copy.copy(self)
        one.index = index
        one._use(self._data[index : index + 1])
        return one

    @property
    def nbytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in self.tensors.values())

    def reset(self) -> None:
        """Forget everything."""
        self._data.zero_()
        self['largest'].fill_(-1)

    def copy_(self, other: StreamState) -> None:
        """Become a copy of `other`, which has the same sizes."""
        self._data.copy_(other._data)

    def advance(
        self, positions: Tensor, rows: Tensor | None = None, lengths: Tensor | None = None
    ) -> Turn:
        """Make room for tokens at `positions` [B, 3, T], T <= block, and count them.

        `rows` [B] tells whose they are (default: of every row); `lengths` as in Turn (default:
        all count).
        """
        batch, _, length = positions.shape
        if length > self.block:
            raise ValueError(f'{length} tokens at once; the ring has room for {self.block}')
        device = positions.device
        if rows is None:
            rows = torch.arange(batch, device=device)
        if lengths is None:
            lengths = torch.full((batch,), length, device=device)
        window = self.config.sliding_window
        turn = Turn(
            rows, lengths, self['tokens'][rows], self['cursor'][rows], length, self.ring, window
        )
        used = positions.amax(1).masked_fill(~turn.counts, -1).amax(1)
        self['cursor'][rows] = (turn.cursor + lengths) % self.ring
        self['tokens'][rows] = turn.start + lengths
        self['largest'][rows] = torch.maximum(self['largest'][rows], used)
        return turn

    def _place(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        self._layout[name] = (self._row_bytes, shape, dtype)
        size = math.prod(shape) * dtype.itemsize
        self._row_bytes += -(-size // ALIGNMENT) * ALIGNMENT

    def _use(self, data: Tensor) -> None:
        """Lay the tensors over `data`, uint8 [rows, bytes of a row]."""
        self._data = data
        self.tensors = {
            name: data[:, start : start + math.prod(shape) * dtype.itemsize]
            .view(dtype)
            .unflatten(1, shape or (1,))
            for name, (start, shape, dtype) in self._layout.items()
        }
        for name, (_, shape, _) in self._layout.items():
            if not shape:
                self.tensors[name] = self.tensors[name][:, 0]
