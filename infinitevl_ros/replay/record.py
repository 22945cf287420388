"""What a stream brought: plain values, written as they are by --json.

Stamps are the stream's, in nanoseconds; all other times are in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Taken:
    """A frame: the wall time until the memory was updated, and the memory's size then."""

    stamp: int
    seconds: float
    memory_bytes: int


@dataclass(frozen=True)
class Said:
    """A caption of what the stream showed from `first_stamp` to `stamp`.

    These are `first_at` and `at` seconds of stream time; `seconds` is the wall time it took.
    """

    stamp: int
    first_stamp: int
    text: str
    seconds: float
    first_at: float = 0.0
    at: float = 0.0


@dataclass(frozen=True)
class Answered:
    """A question asked `at` seconds of stream time, about `frames` frames up to `stamp`.

    `seconds` is the wall time until the last word, `first_token` until the first; `finish` is
    'end', or 'length' where max_tokens cut it. `expected` tells in words what was expected, and
    `right` whether that was met; None where nothing was.
    """

    question: str
    at: float
    stamp: int
    text: str
    tokens: int
    seconds: float
    first_token: float
    frames: int
    finish: str
    expected: str = ''
    right: bool | None = None


@dataclass
class Record:
    """A whole run: where the frames came from, what saw them, and what came of it.

    A run waits for every frame; `dropped_live` is how many a camera would have lost, see pace.py.
    """

    source: str
    kind: str
    topic: str
    model: str
    device: str
    date: str
    versions: dict[str, str]
    frames: list[Taken] = field(default_factory=list)
    captions: list[Said] = field(default_factory=list)
    answers: list[Answered] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    dropped_live: int = 0


def printable(text: str) -> str:
    """Without control characters but for new lines, whatever the model said."""
    return ''.join(c if c.isprintable() or c == '\n' else ' ' for c in text)


def one_line(text: str) -> str:
    return ' '.join(printable(text).split())
