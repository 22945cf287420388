"""Streams of pictures from files: videos, bags and images. No ROS needed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

BAG_SUFFIXES = ('.mcap', '.db3', '.bag')
PICTURE_SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.webp', '.ppm')


class SourceError(ValueError):
    """A file that holds no stream of pictures; the text says what was found and expected."""


@dataclass(frozen=True)
class Shot:
    """One picture: `stamp` in nanoseconds, RGB uint8 [height, width, 3]."""

    stamp: int
    pixels: np.ndarray


class Source:
    """A stream of pictures; each iteration starts anew.

    `kind` is video, bag or images; `topic` is '' but for bags; `expected` the number of pictures
    that the file says it has, where it says so. `warnings` tells what could not be read; it is
    complete when an iteration has come to its end.
    """

    kind: str
    topic = ''
    expected: int | None = None
    _part = ''  # what one picture is in the file

    def __init__(self, path: Path):
        self.path, self.name = path, path.name
        self.warnings: list[str] = []
        # Reasons to leave a picture out, numbers aside: the first in its words, and how many.
        self._left_out: dict[str, tuple[str, int]] = {}

    def __iter__(self) -> Iterator[Shot]:
        self.warnings.clear()
        self._left_out.clear()
        yield from self._shots()
        for reason, count in self._left_out.values():
            parts = f'{count} {self._part}{"s" if count > 1 else ""}'
            self.warnings.append(f'{self.path}: {parts} left out: {reason}')

    def _shots(self) -> Iterator[Shot]:
        raise NotImplementedError

    def _leave_out(self, reason: str) -> None:
        key = re.sub(r'\d+', '', reason)
        first, count = self._left_out.get(key, (reason, 0))
        self._left_out[key] = first, count + 1


def open_source(path: str | Path, topic: str = '') -> Source:
    """The stream in a file or folder; `topic` names one of a bag.

    Raises SourceError: a bag with several image topics, for one, needs to be told which.
    """
    path = Path(path).expanduser()
    if not path.is_file() and not path.is_dir():
        raise SourceError(f'{path}: no such file or folder')
    if is_bag(path):
        from .bag import BagSource  # it loads rosbags

        return BagSource(path, topic)
    if topic:
        raise SourceError(f'{path}: not a bag, so there is no topic {topic} in it')
    if path.is_dir() or path.suffix.lower() in PICTURE_SUFFIXES:
        from .pictures import PictureSource

        return PictureSource(path)
    from .video import VideoSource

    return VideoSource(path)


def is_bag(path: Path) -> bool:
    """Whether this is a file of a bag, or a folder with one; a recording that broke off counts."""
    if not path.is_dir():
        return path.suffix in BAG_SUFFIXES or path.name.endswith(('.mcap.zstd', '.db3.zstd'))
    files = [file for file in path.iterdir() if file.is_file()]
    return any(file.name == 'metadata.yaml' or is_bag(file) for file in files)
