"""VisualMemory: everything that one stream remembers, of fixed size, to copy, save and load."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..model.state import StreamState

FORMAT = 'infinitevl_ros.visual_memory'
VERSION = '2'
# Stamps further apart [ns] are a change of clock or a pause, not time that the stream has seen.
LONGEST_GAP = 3600 * 1_000_000_000


class MemoryFileError(ValueError):
    """A saved memory that cannot be used; the message says what was found and expected."""


@dataclass(frozen=True)
class MemoryInfo:
    """What a memory holds. Stamps are in nanoseconds, None before the first frame."""

    frames: int
    first_stamp: int | None
    newest_stamp: int | None
    tokens: int
    window_tokens: int
    nbytes: int


class VisualMemory:
    """The state of one camera's stream; made by StreamingEngine.new_memory.

    `frames`, `first_stamp`, `newest_stamp` and `elapsed`, the time between them without jumps of
    the clock (all in nanoseconds), describe what went in. `waiting` are frames that have come but
    wait for the next, to go in together; they count among the frames, and are not saved.
    """

    def __init__(
        self,
        state: StreamState,
        primed: StreamState,
        model: str,
        fingerprint: str,
        frame_size: tuple[int, int],
    ):
        """`primed` is the state before the first frame; `model` a name for messages."""
        self.state = state
        self._primed = primed
        self._model = model
        self._fingerprint = fingerprint
        self._frame_size = f'{frame_size[0]} x {frame_size[1]}'
        self.waiting: list[np.ndarray] = []
        self.reset()

    def reset(self) -> None:
        """Forget every frame."""
        self.state.copy_(self._primed)
        self.waiting = []
        self.frames = 0
        self.elapsed = 0
        self.first_stamp: int | None = None
        self.newest_stamp: int | None = None

    def copy_(self, other: VisualMemory) -> None:
        """Become a copy of `other`, a memory of the same engine."""
        self.state.copy_(other.state)
        self.waiting = list(other.waiting)
        self.frames, self.elapsed = other.frames, other.elapsed
        self.first_stamp, self.newest_stamp = other.first_stamp, other.newest_stamp

    def elapsed_at(self, stamp: int) -> int:
        """What `elapsed` will be once a frame of this stamp is in."""
        gap = 0 if self.newest_stamp is None else stamp - self.newest_stamp
        return self.elapsed + (gap if 0 <= gap <= LONGEST_GAP else 0)

    def count(self, stamp: int) -> None:
        """Note that a frame has come in."""
        self.frames += 1
        self.elapsed = self.elapsed_at(stamp)
        self.newest_stamp = stamp
        if self.first_stamp is None:
            self.first_stamp = stamp

    def is_of(self, primed: StreamState) -> bool:
        """Whether it belongs to the engine whose empty state this is."""
        return self._primed is primed

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors; the same for ever."""
        return self.state.nbytes

    def describe(self) -> MemoryInfo:
        tokens = int(self.state['tokens'].max())
        return MemoryInfo(
            self.frames,
            self.first_stamp,
            self.newest_stamp,
            tokens,
            min(tokens, self.state.config.sliding_window),
            self.nbytes,
        )

    def save(self, path: str | Path) -> None:
        """Write to a safetensors file, whole or not at all. Raises OSError."""
        path = Path(path).expanduser()
        if not path.parent.is_dir():
            raise FileNotFoundError(f'{path.parent}: no such folder to save a memory in')
        stamps = {'first_stamp': self.first_stamp, 'newest_stamp': self.newest_stamp}
        metadata = {
            'format': FORMAT,
            'version': VERSION,
            'model': self._model,
            'fingerprint': self._fingerprint,
            'frame_size': self._frame_size,
            'frames': str(self.frames),
            'elapsed': str(self.elapsed),
            **{name: str(stamp) for name, stamp in stamps.items() if stamp is not None},
        }
        tensors = {name: t.cpu().clone() for name, t in self.state.tensors.items()}
        temporary = path.with_name(f'.{path.name}.{os.getpid()}-{threading.get_ident()}')
        try:
            save_file(tensors, temporary, metadata)
            with open(temporary, 'rb') as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def load(self, path: str | Path) -> None:
        """Take over a saved memory of the same model. On MemoryFileError nothing has changed."""
        path = Path(path).expanduser()
        if not path.is_file():
            raise MemoryFileError(f'{path}: no such file')
        try:
            with safe_open(path, framework='pt') as file:
                metadata = file.metadata() or {}
                self._check(path, metadata)
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise MemoryFileError(f'{path}: not a readable memory: {error}') from None
        try:
            frames, elapsed = int(metadata['frames']), int(metadata['elapsed'])
            first, newest = (
                int(metadata[name]) if name in metadata else None
                for name in ('first_stamp', 'newest_stamp')
            )
        except (KeyError, ValueError) as error:
            raise MemoryFileError(f'{path}: broken metadata: {error}') from None
        self._check_tensors(path, tensors)
        for name, tensor in self.state.tensors.items():
            tensor.copy_(tensors[name])
        self.waiting = []
        self.frames, self.elapsed = frames, elapsed
        self.first_stamp, self.newest_stamp = first, newest

    def _check(self, path: Path, metadata: dict[str, str]) -> None:
        if metadata.get('format') != FORMAT:
            raise MemoryFileError(f'{path}: not a saved visual memory')
        if metadata.get('version') != VERSION:
            raise MemoryFileError(
                f'{path}: version {metadata.get("version")}; this software reads {VERSION}'
            )
        if metadata.get('fingerprint') != self._fingerprint:
            raise MemoryFileError(
                f'{path}: a memory of model {metadata.get("model")} '
                f'({metadata.get("fingerprint")}); the model loaded is {self._model} '
                f'({self._fingerprint})'
            )
        if metadata.get('frame_size') != self._frame_size:
            raise MemoryFileError(
                f'{path}: a memory of frames of {metadata.get("frame_size")} pixels; this engine '
                f'takes {self._frame_size}'
            )

    def _check_tensors(self, path: Path, tensors: dict[str, torch.Tensor]) -> None:
        expected = self.state.tensors
        if tensors.keys() != expected.keys():
            names = sorted(tensors.keys() ^ expected.keys())
            raise MemoryFileError(f'{path}: tensors differ from the model: {", ".join(names)}')
        for name, tensor in expected.items():
            found = tensors[name]
            if (found.shape, found.dtype) != (tensor.shape, tensor.dtype):
                raise MemoryFileError(
                    f'{path}: {name} is {found.dtype} {list(found.shape)}, expected '
                    f'{tensor.dtype} {list(tensor.shape)} (another dtype?)'
                )
