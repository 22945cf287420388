"""Images in files, one after another as a stream."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from .source import PICTURE_SUFFIXES, Shot, Source, SourceError

APART = 1_000_000_000  # between two pictures [ns]


def read_picture(path: str | Path) -> np.ndarray:
    """RGB uint8 [height, width, 3] of an image file, upright by its EXIF. Raises SourceError."""
    path = Path(path).expanduser()
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
        pixels = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except OSError as error:
        raise SourceError(f'{path}: {error.strerror}') from None
    except cv2.error as error:
        raise SourceError(f'{path}: {error.err}') from None
    if pixels is None:
        raise SourceError(f'{path}: {data.size} bytes that are not an image OpenCV can read')
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


class PictureSource(Source):
    """The images of a folder by name (2 before 10), or one; a second apart.

    One that cannot be read leaves its second empty.
    """

    kind = 'images'
    _part = 'file'

    def __init__(self, path: Path):
        super().__init__(path)
        self._files = [path]
        if path.is_dir():
            found = (f for f in path.iterdir() if f.suffix.lower() in PICTURE_SUFFIXES)
            self._files = sorted(found, key=by_number)
        if not self._files:
            raise SourceError(
                f'{path}: neither a bag (no metadata.yaml, .mcap or .db3) nor a folder of images '
                f'({", ".join(PICTURE_SUFFIXES)})'
            )
        self.expected = len(self._files)

    def _shots(self) -> Iterator[Shot]:
        for number, file in enumerate(self._files):
            try:
                pixels = read_picture(file)
            except SourceError as error:
                self._leave_out(str(error))
                continue
            yield Shot(number * APART, pixels)


def by_number(path: Path) -> list[str | int]:
    """Sorts names the way people number them."""
    return [int(part) if part.isdecimal() else part for part in re.split(r'(\d+)', path.name)]
