"""A video, a bag or a video device through an engine of our own, in real time."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2

from ..engine import (
    Outcome,
    QueueFullError,
    Sampling,
    Scheduler,
    StreamingEngine,
    VisualMemory,
)
from ..engine.engine import CAPTION_PROMPT, NANOSECONDS
from ..engine.loading import load_engine
from ..engine.memory import LONGEST_GAP
from ..engine.schedule import Schedule
from ..media.source import Shot, Source, open_source
from ..replay.questions import MAX_TOKENS
from .feed import Board, BusyError, Caption, Feed, Reply, State

CAPTION_PERIOD = 5 * NANOSECONDS
MAX_QUESTIONS = 8
TIMEOUT = 60.0  # seconds for an answer


class FileFeed(Feed):
    """Plays `path` by its stamps; frames that the engine is too slow for are dropped."""

    def __init__(
        self, path: Path, model: Path, device: str = 'auto', topic: str = '', loop: bool = False
    ):
        """Raises ValueError or OSError for a file that is no stream of pictures."""
        self._source = Device(path) if path.is_char_device() else open_source(path, topic)
        self.name = self._source.name
        self._model, self._device, self._loop = model, device, loop
        self._closing = threading.Event()
        self._engine: StreamingEngine | None = None
        self._scheduler: Scheduler | None = None
        self._memory: VisualMemory | None = None
        self._schedule = Schedule()
        self._message = f'loading {model.name}'
        self._polled = time.monotonic(), 0
        self._fault = ''
        self._warnings = ''  # of the file, when it was read to its end

    def start(self, board: Board) -> None:
        self._board = board
        self._thread = threading.Thread(target=self._run, name='live', daemon=True)
        self._thread.start()

    def state(self) -> State:
        scheduler = self._scheduler
        if scheduler is None:
            return State(self._message)
        now, taken = time.monotonic(), scheduler.counts(self._memory).taken
        (before, taken_before), self._polled = self._polled, (now, taken)
        return State(
            self._fault or self._message + self._warnings,
            'error' if self._fault else 'wait' if self._warnings else 'ok',
            self._engine.name,
            (taken - taken_before) / max(now - before, 1e-3),
            self._memory.frames,
            scheduler.answer_seconds or None,
        )

    def ask(
        self, question: str, on_piece: Callable[[str], None], on_done: Callable[[Reply], None]
    ) -> Callable[[], None]:
        scheduler = self._scheduler
        if scheduler is None or not self._memory.frames:
            raise ValueError(f'no frame seen yet ({self._message})')

        def done(outcome: Outcome) -> None:
            on_done(
                Reply(
                    outcome.success,
                    outcome.text,
                    outcome.message,
                    outcome.seconds,
                    outcome.frames,
                )
            )

        try:
            sampling = Sampling(max_tokens=MAX_TOKENS)
            ticket = scheduler.ask(self._memory, question, done, on_piece, sampling, TIMEOUT)
        except QueueFullError as error:
            raise BusyError(str(error)) from None
        return ticket.cancel

    def close(self) -> None:
        self._closing.set()
        self._thread.join()
        if self._scheduler is not None:
            self._scheduler.close()

    def _run(self) -> None:
        try:
            self._load()
            self._play()
        except _ClosedError:
            pass
        except Exception as error:  # the server ends with it
            self._board.fail(error)

    def _load(self) -> None:
        self._engine = load_engine(self._model, self._device, progress=self._on_progress)
        self._memory = self._engine.new_memory()
        self._scheduler = Scheduler(
            self._engine, MAX_QUESTIONS, self._on_frame, self._on_frame_error, self._board.fail
        )

    def _on_progress(self, line: str) -> None:
        self._message = line
        if self._closing.is_set():
            raise _ClosedError

    def _play(self) -> None:
        """Every frame at its time, again and again with `loop`."""
        self._message = 'streaming'
        more = True
        while more:
            frames = 0
            due, before = time.monotonic(), None
            for shot in self._source:
                gap = 0 if before is None else shot.stamp - before
                # A jump of the clock is no pause, just as in the memory.
                due, before = (
                    due + (gap if 0 <= gap <= LONGEST_GAP else 0) / NANOSECONDS,
                    shot.stamp,
                )
                if self._closing.wait(max(0.0, due - time.monotonic())):
                    return
                self._scheduler.offer(self._memory, shot.pixels, shot.stamp)
                self._board.show(shot.pixels)
                frames += 1
            more = self._loop and frames > 0
            self._warnings = ''.join(f'; {warning}' for warning in self._source.warnings)
        self._message = f'{self.name} has ended, and can still be asked about'

    def _on_frame(self, memory: VisualMemory) -> None:
        """On the engine's thread: begin a caption if one is due with the frame just taken."""
        self._fault = ''
        # Stream time, which goes on where the file begins again.
        if not self._schedule.due(memory.elapsed, CAPTION_PERIOD):
            return
        with contextlib.suppress(QueueFullError):  # the one before takes longer than the period
            self._scheduler.caption(
                memory, CAPTION_PROMPT, self._on_caption, Sampling(max_tokens=MAX_TOKENS), TIMEOUT
            )

    def _on_caption(self, outcome: Outcome) -> None:
        if outcome.success:
            self._board.say(Caption(outcome.newest_stamp / NANOSECONDS, outcome.text))

    def _on_frame_error(self, _memory: VisualMemory, error: Exception) -> None:
        self._fault = f'frame refused: {error}'


class _ClosedError(Exception):
    """Closed while the model was loading."""


class Device(Source):
    """The pictures of a video device, stamped as they come; OSError when there are none."""

    kind = 'device'

    def _shots(self) -> Iterator[Shot]:
        capture = cv2.VideoCapture(str(self.path))
        try:
            more, frame = capture.read()
            if not more:
                raise OSError(f'{self.path}: OpenCV gets no picture from this device')
            while more:
                yield Shot(time.time_ns(), cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
                more, frame = capture.read()
        finally:
            capture.release()
