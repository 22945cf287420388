"""Images in files, one after another as a stream."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from .images import ImageError, from_compressed
from .source import PICTURE_SUFFIXES, Shot, Source, SourceError

APART = 1_000_000_000  # between two pictures [ns]


def read_picture(path: str | Path) -> np.ndarray:
    """RGB uint8 [height, width, 3] of an image file. Raises SourceError."""
    path = Path(path).expanduser()
    try:
        message = SimpleNamespace(data=path.read_bytes(), format=path.suffix[1:])
        return from_compressed(message)
    except OSError as error:
        raise SourceError(f'{path}: {error.strerror}') from None
    except ImageError as error:
        raise SourceError(f'{path}: {error}') from None


class PictureSource(Source):
    """The images of a folder by name, or one, a second apart."""

    kind = 'images'

    def __init__(self, path: Path):
        super().__init__(path)
        self._files = [path]
        if path.is_dir():
            self._files = sorted(f for f in path.iterdir() if f.suffix.lower() in PICTURE_SUFFIXES)
        if not self._files:
            raise SourceError(
                f'{path}: neither a bag (no metadata.yaml) nor a folder of images '
                f'({", ".join(PICTURE_SUFFIXES)})'
            )
        self.expected = len(self._files)

    def _shots(self) -> Iterator[Shot]:
        for number, file in enumerate(self._files):
            try:
                yield Shot(number * APART, read_picture(file))
            except SourceError as error:
                self.warnings.append(str(error))
