"""VisualMemory: everything that one stream remembers, of fixed size, to copy, save and load."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..model.state import StreamState
from .snapshot import MemoryFileError, Snapshot

# Stamps further apart [ns] are a change of clock or a pause, not time that the stream has seen.
LONGEST_GAP = 3600 * 1_000_000_000
# What a memory's numbers may be: counts, and stamps as ROS writes them, in 32 bits of seconds.
COUNTS = range(2**63)
STAMPS = range(-(2**31) * 1_000_000_000, 2**31 * 1_000_000_000)
NUMBERS = {'frames': COUNTS, 'elapsed': COUNTS, 'first_stamp': STAMPS, 'newest_stamp': STAMPS}


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
    `fingerprint` is the checkpoint's.
    """

    def __init__(
        self,
        state: StreamState,
        primed: StreamState,
        model: str,
        fingerprint: str,
        frame_size: tuple[int, int],
        stream: str,
    ):
        """`primed` is the state before the first frame; `model` a name for messages.

        `stream` are the engine's settings that what goes into a memory depends on, in words.
        """
        self.state = state
        self._primed = primed
        self._model = model
        self.fingerprint = fingerprint
        self._frame_size = f'{frame_size[0]} x {frame_size[1]}'
        self._stream = stream
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
        self.snapshot().write(path)

    def load(self, path: str | Path) -> None:
        """Take over a saved memory of the same model. On MemoryFileError nothing has changed."""
        self.restore(Snapshot.read(path))

    def snapshot(self) -> Snapshot:
        """All of it but waiting frames, copied to the host."""
        frames = self.frames - len(self.waiting)
        numbers = {'frames': frames, 'elapsed': self.elapsed if frames else 0}
        if frames:
            numbers |= {'first_stamp': self.first_stamp, 'newest_stamp': self.newest_stamp}
        metadata = {
            'model': self._model,
            'fingerprint': self.fingerprint,
            'frame_size': self._frame_size,
            'stream': self._stream,
            **{name: str(number) for name, number in numbers.items()},
        }
        return Snapshot({n: t.cpu().clone() for n, t in self.state.tensors.items()}, metadata)

    def restore(self, snapshot: Snapshot) -> None:
        """Become what a snapshot of the same model was. On MemoryFileError nothing has changed."""
        numbers = self.check(snapshot)
        for name, tensor in self.state.tensors.items():
            tensor.copy_(snapshot.tensors[name])
        self.waiting = []
        self.frames, self.elapsed = numbers['frames'], numbers['elapsed']
        self.first_stamp, self.newest_stamp = map(numbers.get, ('first_stamp', 'newest_stamp'))

    def check(self, snapshot: Snapshot) -> dict[str, int]:
        """The numbers of a snapshot; raises the MemoryFileError that `restore` would."""
        source, metadata = snapshot.source, snapshot.metadata
        numbers = read_numbers(snapshot)
        if metadata.get('fingerprint') != self.fingerprint:
            raise MemoryFileError(
                f'{source}: a memory of model {metadata.get("model")} '
                f'({metadata.get("fingerprint")}); the model loaded is {self._model} '
                f'({self.fingerprint})'
            )
        if metadata.get('frame_size') != self._frame_size:
            raise MemoryFileError(
                f'{source}: a memory of frames of {metadata.get("frame_size")} pixels; this '
                f'engine takes {self._frame_size}'
            )
        if metadata.get('stream') != self._stream:
            raise MemoryFileError(
                f'{source}: a memory of a stream with {metadata.get("stream")}; this engine has '
                f'{self._stream}'
            )
        expected, tensors = self.state.tensors, snapshot.tensors
        if tensors.keys() != expected.keys():
            names = sorted(tensors.keys() ^ expected.keys())
            raise MemoryFileError(f'{source}: tensors differ from the model: {", ".join(names)}')
        for name, tensor in expected.items():
            found = tensors[name]
            if (found.shape, found.dtype) != (tensor.shape, tensor.dtype):
                raise MemoryFileError(
                    f'{source}: {name} is {found.dtype} {list(found.shape)}, expected '
                    f'{tensor.dtype} {list(tensor.shape)} (another dtype?)'
                )
        return numbers


def read_numbers(snapshot: Snapshot) -> dict[str, int]:
    """Those of NUMBERS: stamps where there are frames; MemoryFileError for what can be none."""
    numbers = {}
    for name, allowed in NUMBERS.items():
        if allowed is STAMPS and not numbers['frames']:
            continue
        text = snapshot.metadata.get(name, '')
        # Python refuses to read thousands of digits.
        number = int(text) if len(text) < 20 and text.removeprefix('-').isdecimal() else None
        if number is None or number not in allowed:
            raise MemoryFileError(
                f'{snapshot.source}: broken metadata: {name} is {text[:40] or "missing"}, '
                f'expected a number from {allowed[0]} to {allowed[-1]}'
            )
        numbers[name] = number
    return numbers
