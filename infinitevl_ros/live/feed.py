"""What the page shows and asks: one interface to a running node and to an engine of our own."""

from __future__ import annotations

import asyncio
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

PICTURE_PERIOD = 0.1  # seconds between pictures while someone looks
IDLE_PERIOD = 1.0  # and while nobody does: a new tab has one to begin with
LARGEST_SIDE = 960  # pixels; larger pictures are made smaller
JPEG_QUALITY = 80
CAPTIONS_KEPT = 50


class BusyError(RuntimeError):
    """As many questions are under way as can be taken."""


@dataclass(frozen=True)
class Caption:
    """What the stream showed; `stamp` in seconds, the newest frame's that it is about."""

    stamp: float
    text: str


@dataclass(frozen=True)
class State:
    """How the stream is doing. `level` is ok, wait or error; None is what is not known."""

    message: str
    level: str = 'wait'
    model: str | None = None
    frames_per_second: float | None = None
    frames: int | None = None
    answer_seconds: float | None = None


@dataclass(frozen=True)
class Reply:
    """How a question ended; `message` says why there is no whole answer when not `success`."""

    success: bool
    text: str
    message: str = ''
    seconds: float = 0.0
    frames: int = 0


class Feed(ABC):
    """A stream with someone to ask about it. Methods may be called from any thread."""

    name: str  # of the stream, for people

    @abstractmethod
    def start(self, board: Board) -> None:
        """Begin to put pictures and captions on the board, from threads of its own."""

    @abstractmethod
    def state(self) -> State:
        """How it is doing; called once a second."""

    @abstractmethod
    def ask(
        self, question: str, on_piece: Callable[[str], None], on_done: Callable[[Reply], None]
    ) -> Callable[[], None]:
        """Ask; returns a function that ends the question early, or does nothing once it ended.

        The callbacks are called on another thread and must not block. Raises BusyError, or
        ValueError with the reason when nothing can be asked now.
        """

    @abstractmethod
    def close(self) -> None:
        """End every question and thread."""


class Board:
    """The newest picture, captions and state, and who waits to see them.

    Feeds write from their threads. Each of those who look on has an event that is set when
    something has changed; what they have missed by then they never see, so nothing piles up.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop):
        self._loop = loop
        self._lock = threading.Lock()
        self._picture_due = 0.0
        self._watchers: set[asyncio.Event] = set()
        self._notified = False
        self.jpeg, self.pictures = b'', 0
        self.captions: deque[Caption] = deque(maxlen=CAPTIONS_KEPT)
        self.said = 0  # captions in all
        self.state, self.states = State('starting'), 0
        self.closing = False
        self.failure: asyncio.Future[None] = loop.create_future()

    def watch(self) -> asyncio.Event:
        """An event for one who looks on, until `unwatch`. On the loop's thread."""
        event = asyncio.Event()
        event.set()
        self._watchers.add(event)
        return event

    def unwatch(self, event: asyncio.Event) -> None:
        self._watchers.discard(event)

    @property
    def watchers(self) -> int:
        return len(self._watchers)

    @property
    def wants_picture(self) -> bool:
        """Whether the next picture would be shown; others need not even be decoded."""
        return time.monotonic() >= self._picture_due

    def show(self, pixels: np.ndarray) -> None:
        """A picture, RGB uint8 [height, width, 3]; those that come too fast are left out."""
        if not self.wants_picture:
            return
        self._picture_due = time.monotonic() + (PICTURE_PERIOD if self._watchers else IDLE_PERIOD)
        jpeg = encode(pixels)
        with self._lock:
            self.jpeg, self.pictures = jpeg, self.pictures + 1
        self._notify()

    def say(self, caption: Caption) -> None:
        with self._lock:
            self.captions.append(caption)
            self.said += 1
        self._notify()

    def set_state(self, state: State) -> None:
        with self._lock:
            self.state, self.states = state, self.states + 1
        self._notify()

    def newer_captions(self, seen: int) -> tuple[list[Caption], int]:
        """Those that came after the first `seen`, of those that are kept; and how many came."""
        with self._lock:
            count = min(self.said - seen, len(self.captions))
            return list(self.captions)[len(self.captions) - count :], self.said

    def fail(self, error: Exception) -> None:
        """The feed cannot go on: `failure` raises this error."""

        def fail() -> None:
            if not self.failure.done():
                self.failure.set_exception(error)

        self._call(fail)

    def close(self) -> None:
        """Send those who look on away. On the loop's thread."""
        self.closing = True
        self._wake()

    def _notify(self) -> None:
        """Wake those who look on; once, however much changes before they do."""
        with self._lock:
            if self._notified:
                return
            self._notified = True
        self._call(self._wake)

    def _wake(self) -> None:
        with self._lock:
            self._notified = False
        for event in self._watchers:
            event.set()

    def _call(self, function: Callable[[], None]) -> None:
        call_on(self._loop, function)


def call_on(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *args: object) -> None:
    """Call a function on the loop's thread; nothing when the loop has ended meanwhile."""
    try:
        loop.call_soon_threadsafe(function, *args)
    except RuntimeError:
        if not loop.is_closed():
            raise


def encode(pixels: np.ndarray) -> bytes:
    """JPEG of RGB uint8 [height, width, 3], made smaller to at most LARGEST_SIDE."""
    height, width = pixels.shape[:2]
    scale = LARGEST_SIDE / max(height, width)
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    return cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
