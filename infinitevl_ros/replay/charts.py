"""Charts as inline SVG. They fill any width undistorted: places along it are in per cent."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np

MAX_POINTS = 1000
# Steps between the labels of a time axis, in seconds; above them, days.
TIME_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600)
TIME_STEPS += (7200, 14400, 21600, 43200)
DAY = 86400


def clock(seconds: float) -> str:
    """Stream time as people write it: 0:07.5, 12:00.0, 1:02:03.4."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    front = f'{hours}:{minutes:02}' if hours else f'{minutes}'
    return f'{front}:{rest // 10:02}.{rest % 10}'


def duration(seconds: float) -> str:
    """A wall time to three digits: 0.21 ms, 12.3 ms, 1.25 s."""
    value, unit = (seconds, 's') if seconds >= 0.9995 else (1000 * seconds, 'ms')
    if not value:
        return f'0 {unit}'
    digits = min(2, max(0, 2 - math.floor(math.log10(abs(value)))))
    return f'{value:.{digits}f} {unit}'


def size(count: float) -> str:
    """Bytes in the unit that fits: 12 bytes, 1.23 MB."""
    for unit, scale in (('GB', 1e9), ('MB', 1e6), ('kB', 1e3)):
        if count >= 0.9995 * scale:
            return f'{count / scale:.3g} {unit}'
    return f'{count:.0f} bytes'


def time_ticks(begin: float, end: float) -> list[float]:
    """At most seven round times from `begin` to `end`, both in seconds."""
    span = end - begin
    step = next((step for step in TIME_STEPS if span / step <= 6), 0)
    step = step or DAY * math.ceil(span / DAY / 6)
    first, last = math.ceil(begin / step - 1e-9), math.floor(end / step + 1e-9)
    return [step * index for index in range(first, last + 1)]


def value_ticks(most: float) -> list[float]:
    """Three to six round values from 0 on, the last not below `most`."""
    if most <= 0:
        return [0.0, 1.0]
    power = 10.0 ** math.floor(math.log10(most / 5))
    step = next(step * power for step in (1, 2, 5, 10) if most <= 5 * step * power * (1 + 1e-9))
    return [step * index for index in range(math.ceil(most / step - 1e-9) + 1)]


def thin(x: np.ndarray, y: np.ndarray, most: int = MAX_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """At most `most` of the points, among them the lowest and the highest of every stretch."""
    if len(y) <= most:
        return x, y
    kept: set[int] = set()
    for part in np.array_split(np.arange(len(y)), most // 2):
        kept |= {int(part[y[part].argmin()]), int(part[y[part].argmax()])}
    order = sorted(kept)
    return x[order], y[order]


@dataclass
class Plot:
    """A plot in the making, from `begin` to `end` along and 0 to `top` upwards.

    `name` tells those who cannot see it what it shows.
    """

    name: str
    begin: float
    end: float
    top: float = 1.0
    parts: list[str] = field(default_factory=list)

    def x(self, value: float) -> float:
        """Per cent from the left."""
        span = self.end - self.begin
        return round(100 * (value - self.begin) / span, 2) if span > 0 else 50.0

    def y(self, value: float) -> float:
        """Per cent from the upper edge."""
        return round(100 - 100 * min(value, self.top) / self.top, 2)

    def time_axis(self) -> None:
        """Labels in minutes and seconds."""
        for tick in time_ticks(self.begin, self.end):
            self.label(tick, clock(tick).removesuffix('.0'))

    def label(self, value: float, text: str) -> None:
        """A text below the plot."""
        x = self.x(value)
        self.parts.append(f'<line class="tick" x1="{x}%" x2="{x}%" y1="100%" y2="100%"/>')
        self.parts.append(f'<text class="below" x="{x}%" y="100%" dy="18">{escape(text)}</text>')

    def value_axis(self, ticks: Sequence[float], unit: Callable[[float], str]) -> None:
        """Lines across, each with its value as `unit` writes it."""
        for tick in ticks:
            y = self.y(tick)
            self.parts.append(f'<line class="grid" x1="0" x2="100%" y1="{y}%" y2="{y}%"/>')
            words = unit(tick).replace('.00 ', ' ').replace('.0 ', ' ') if tick else '0'
            self.parts.append(
                f'<text class="beside" x="-8" y="{y}%" dy="4">{escape(words)}</text>'
            )

    def line(self, x: np.ndarray, y: np.ndarray, kind: str) -> None:
        """A line through all points. `kind` is a class of report.css."""
        places = ' '.join(f'{self.x(a)},{self.y(b)}' for a, b in zip(x, y, strict=True))
        # A picture in the picture, because points of a line cannot be in per cent.
        self.parts.append(
            '<svg viewBox="0 0 100 100" preserveAspectRatio="none" width="100%" height="100%">'
            f'<polyline class="{kind}" points="{places}"/></svg>'
        )

    def level(self, value: float, kind: str) -> None:
        """A line straight across."""
        y = self.y(value)
        self.parts.append(f'<line class="{kind}" x1="0" x2="100%" y1="{y}%" y2="{y}%"/>')

    def stem(self, x: float, low: float, high: float, radius: int, title: str) -> None:
        """An upright from a circle at `low` to a square at `high`; `title` shows on hover."""
        place, low_y, high_y = self.x(x), self.y(low), self.y(high)
        self.parts.append(
            f'<g class="stem"><title>{escape(title)}</title>'
            f'<line x1="{place}%" x2="{place}%" y1="{low_y}%" y2="{high_y}%"/>'
            f'<rect x="{place}%" y="{high_y}%" width="{2 * radius}" height="{2 * radius}" '
            f'transform="translate(-{radius} -{radius})"/>'
            f'<circle cx="{place}%" cy="{low_y}%" r="{radius}"/></g>'
        )

    def over(self, x: float) -> None:
        """A sign at the upper edge: the value here is above it."""
        # Moved by its parent, because the corners of a path cannot be in per cent.
        self.parts.append(
            f'<svg class="over" x="{self.x(x)}%" y="0"><path d="M-5 1 L0 -7 L5 1 Z"/></svg>'
        )

    def svg(self) -> str:
        begin = f'<div class="plot"><svg role="img" aria-label="{escape(self.name)}">'
        return f'{begin}{"".join(self.parts)}</svg></div>'


def key(kind: str, text: str) -> str:
    """An entry of a legend: how something of this class is drawn, and what it is."""
    shapes = {
        'first': '<circle cx="12" cy="6" r="4"/>',
        'last': '<rect x="8" y="2" width="8" height="8"/>',
        'over': '<path d="M7 10 L12 2 L17 10 Z"/>',
    }
    shape = shapes.get(kind, f'<line class="{kind}" x1="0" x2="24" y1="6" y2="6"/>')
    group = 'stem' if kind in ('first', 'last') else kind
    return (
        f'<li><svg class="{group}" width="24" height="12" aria-hidden="true">{shape}</svg>'
        f'{escape(text)}</li>'
    )
