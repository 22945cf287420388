"""Streams of pictures from files: videos, bags and images. No ROS needed."""

from __future__ import annotations

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

    def __init__(self, path: Path):
        self.path, self.name = path, path.name
        self.warnings: list[str] = []

    def __iter__(self) -> Iterator[Shot]:
        self.warnings.clear()
        yield from self._shots()

    def _shots(self) -> Iterator[Shot]:
        raise NotImplementedError


def open_source(path: str | Path, topic: str = '') -> Source:
    """The stream in a file or folder; `topic` names one of a bag.

    Raises SourceError: a bag with several image topics, for one, needs to be told which.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise SourceError(f'{path}: no such file')
    is_folder = path.is_dir()
    if path.suffix in BAG_SUFFIXES or (is_folder and (path / 'metadata.yaml').is_file()):
        from .bag import BagSource  # it loads rosbags

        return BagSource(path, topic)
    if topic:
        raise SourceError(f'{path}: not a bag, so there is no topic {topic} in it')
    if is_folder or path.suffix.lower() in PICTURE_SUFFIXES:
        from .pictures import PictureSource

        return PictureSource(path)
    from .video import VideoSource

    return VideoSource(path)
