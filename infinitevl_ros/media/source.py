"""Streams of pictures from files: videos, bags and images. No ROS needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np


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
    that the file says it has, where it says so. `warnings` grows while iterating.
    """

    name: str
    kind: str
    topic: str = ''
    expected: int | None = None

    def __init__(self, path: Path):
        self.name = path.name
        self.warnings: list[str] = []

    def __iter__(self) -> Iterator[Shot]:
        raise NotImplementedError


def open_source(path: str | Path, topic: str = '') -> Source:
    """The stream in a file or folder; `topic` names one of a bag. Raises SourceError."""
    raise NotImplementedError
