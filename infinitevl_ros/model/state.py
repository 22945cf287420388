"""All that a stream leaves behind in the network: named tensors of fixed size."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .config import DELTA, FULL, CheckpointError, ModelConfig


@dataclass(frozen=True)
class Window:
    """Where `tokens` new tokens go in the rings, and what each of them may see.

    slots [B, T] indices into the ring; visible [B, 1, T, R].
    """

    slots: Tensor
    visible: Tensor


class StreamState:
    """The recurrent and windowed state of `batch` streams.

    Per attention layer a ring of rotated keys and one of values [B, kv_heads, R, head_dim] with
    R = sliding_window + block, so that a block of new tokens is written before its first token
    looks back a whole window. Per Gated DeltaNet layer a float32 recurrent state [B, H, K, V] and
    the last inputs of its short convolutions [B, q + k + v channels, conv_size]. Counters, int64
    [B]: `tokens` seen since the reset, `cursor` (the ring slot of the next token), `origin` (where
    pictures start on all three position axes), `time` (newest time position, counted from the
    origin) and `largest` (largest position used; -1 at first).

    What changes from token to token is a tensor, so a captured CUDA graph reads it afresh.
    """

    def __init__(
        self,
        config: ModelConfig,
        block: int,
        device: torch.device | str = 'cpu',
        dtype: torch.dtype = torch.float32,
        batch: int = 1,
    ):
        if FULL in config.layer_types:
            raise CheckpointError(
                f'a {FULL} layer keeps every token, so its memory grows without end; only '
                f'checkpoints whose attention layers are all sliding can stream'
            )
        self.config, self.block = config, block
        self.ring = config.sliding_window + block
        c = config

        def zeros(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
            return torch.zeros(batch, *shape, dtype=dtype, device=device)

        channels = sum(c.linear_splits[:3])
        state_shape = (c.num_linear_heads, c.linear_head_dim, c.linear_value_dim)
        self.tensors: dict[str, Tensor] = {}
        for i, kind in enumerate(c.layer_types):
            if kind == DELTA:
                self.tensors[f'layers.{i}.recurrent'] = zeros(*state_shape, dtype=torch.float32)
                self.tensors[f'layers.{i}.conv'] = zeros(channels, c.conv_size)
            else:
                for name in ('keys', 'values'):
                    ring = zeros(c.num_key_value_heads, self.ring, c.head_dim)
                    self.tensors[f'layers.{i}.{name}'] = ring
        for name in ('tokens', 'cursor', 'origin', 'time', 'largest'):
            self.tensors[name] = zeros(dtype=torch.int64)
        self.reset()

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def layer(self, index: int, name: str) -> Tensor:
        return self.tensors[f'layers.{index}.{name}']

    @property
    def nbytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in self.tensors.values())

    def reset(self) -> None:
        """Forget everything."""
        for tensor in self.tensors.values():
            tensor.zero_()
        self['largest'].fill_(-1)

    def copy_(self, other: StreamState) -> None:
        """Become a copy of `other`, which has the same sizes."""
        for name, tensor in self.tensors.items():
            tensor.copy_(other.tensors[name])

    def advance(self, positions: Tensor) -> Window:
        """Make room for tokens at `positions` [B, 3, T], T <= block, and count them."""
        length = positions.shape[-1]
        if length > self.block:
            raise ValueError(f'{length} tokens at once; the ring has room for {self.block}')
        step = torch.arange(length, device=positions.device)
        slots = (self['cursor'][:, None] + step) % self.ring
        query = self['tokens'][:, None] + step
        self['cursor'].add_(length).remainder_(self.ring)
        self['tokens'].add_(length)
        self['largest'].copy_(torch.maximum(self['largest'], positions.amax((1, 2))))
        # The index (counted since the reset) of the token in each slot: the newest one is T - 1
        # behind the cursor, and a slot that was never written gets a negative index.
        slot = torch.arange(self.ring, device=positions.device)
        age = (self['cursor'][:, None] - 1 - slot) % self.ring
        index = (self['tokens'][:, None] - 1 - age)[:, None, :]
        query = query[..., None]
        visible = (index >= 0) & (index <= query) & (index > query - self.config.sliding_window)
        return Window(slots, visible[:, None])

    def write(self, layer: int, name: str, window: Window, x: Tensor) -> Tensor:
        """Put x [B, kv_heads, T, head_dim] into a ring; returns the ring."""
        ring = self.layer(layer, name)
        index = window.slots[:, None, :, None].expand_as(x)
        return ring.scatter_(2, index, x)
