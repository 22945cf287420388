"""Small pictures of a stream, a bounded number of them however long it is."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from ..media.source import Shot
from .record import Answered, Said

THUMBNAIL_SIDE = 240  # pixels, of the longer side
MAX_THUMBNAILS = 60


@dataclass
class Spread:
    """Pictures of at most `most` shots (an even number), evenly spread, however many come."""

    most: int
    pictures: list[tuple[int, np.ndarray]] = field(default_factory=list)
    step: int = 1
    seen: int = 0

    def add(self, shot: Shot) -> None:
        if self.seen % self.step == 0:
            self.pictures.append((shot.stamp, shrink(shot.pixels)))
            if len(self.pictures) > self.most:
                self.pictures = self.pictures[::2]
                self.step *= 2
        self.seen += 1


class Thumbnails:
    """Small pictures for a report: of all the stream, of captions and of answers.

    Their number is bounded, so that any length of stream fits. `keep` takes every shot, `mark`
    every caption and answer when it has come.
    """

    def __init__(self) -> None:
        third = MAX_THUMBNAILS // 3
        self._all, self._captions, self._answers = Spread(third), Spread(third), Spread(third - 2)
        self._newest: Shot | None = None

    def keep(self, shot: Shot) -> None:
        self._all.add(shot)
        self._newest = shot

    def mark(self, event: Said | Answered) -> None:
        """Keep the newest picture: a caption or an answer is about all up to it."""
        spread = self._captions if isinstance(event, Said) else self._answers
        if not spread.pictures or spread.pictures[-1][0] != self._newest.stamp:
            spread.add(self._newest)

    def pictures(self) -> list[tuple[int, np.ndarray]]:
        """Stamps and pictures (RGB uint8 [h, w, 3]), by time."""
        kept = dict(self._all.pictures + self._captions.pictures + self._answers.pictures)
        if self._newest is not None:
            kept[self._newest.stamp] = shrink(self._newest.pixels)
        return sorted(kept.items())


def shrink(pixels: np.ndarray) -> np.ndarray:
    """A picture whose longer side is at most THUMBNAIL_SIDE; RGB uint8 [height, width, 3]."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    return np.array(picture)
