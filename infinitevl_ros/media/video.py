"""Videos, as OpenCV reads them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import cv2

from .source import Shot, Source, SourceError

NANOSECONDS = 1_000_000_000
# FFmpeg's own complaints about a broken file stay off stderr; what is missing is a warning here.
os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')


class VideoSource(Source):
    """A video file at a constant rate [Hz]; its stamps count from 0."""

    kind = 'video'

    def __init__(self, path: Path):
        super().__init__(path)
        capture = self._open()
        self.rate = capture.get(cv2.CAP_PROP_FPS)
        opened, _ = capture.read()
        if not opened or not 0 < self.rate < 1000:
            raise SourceError(
                f'{path}: not a video that OpenCV can read (one that was cut off before its index '
                'was written is none)'
            )
        frames = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.expected = int(frames) if 0 < frames < 1e9 else None

    def _open(self) -> cv2.VideoCapture:
        return cv2.VideoCapture(str(self.path))

    def _shots(self) -> Iterator[Shot]:
        capture, number = self._open(), 0
        while True:
            more, pixels = capture.read()
            if not more:
                break
            stamp = round(number * NANOSECONDS / self.rate)
            yield Shot(stamp, cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
            number += 1
        if self.expected and number < self.expected:
            self.warnings.append(
                f'{self.path}: ends after {number} frames of the {self.expected} that it says it '
                'has'
            )
