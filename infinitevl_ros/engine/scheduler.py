"""The one thread that owns an engine: newest frames first, answers in between."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from weakref import WeakKeyDictionary

import numpy as np

from .engine import Answer, Frame, StreamingEngine
from .memory import VisualMemory
from .sampling import Sampling

# While frames come faster than they can be taken, answers get this part of the time.
ANSWER_SHARE = 0.25

logger = logging.getLogger(__name__)

# A frame, or a function that makes it: only frames that are taken are ever decoded.
FrameSource = np.ndarray | Callable[[], np.ndarray]


class QueueFullError(RuntimeError):
    """As many questions wait as the scheduler holds."""


@dataclass(frozen=True)
class Outcome:
    """How a question ended.

    `message` says why when `success` is false; `text` then is what had been said. `seconds` counts
    from the question's arrival; stamps (nanoseconds) and `frames` tell what the answer has seen.
    """

    success: bool
    text: str = ''
    message: str = ''
    tokens: int = 0
    seconds: float = 0.0
    frames: int = 0
    first_stamp: int | None = None
    newest_stamp: int | None = None


@dataclass(eq=False)
class Ticket:
    """A question on its way. Both callbacks run on the scheduler's thread and must not block."""

    memory: VisualMemory
    question: str
    sampling: Sampling
    deadline: float
    on_done: Callable[[Outcome], None]
    on_piece: Callable[[str], None] | None = None
    began: float = field(default_factory=time.monotonic)
    cancelled: bool = False

    def cancel(self) -> None:
        """End it before the next token, or where it waits; `on_done` is called as ever."""
        self.cancelled = True

    @property
    def overdue(self) -> str:
        """Why it must end now; '' when it need not."""
        if self.cancelled:
            return 'cancelled'
        if time.monotonic() > self.deadline:
            return f'no answer within {self.deadline - self.began:.1f} s'
        return ''


@dataclass
class FrameCounts:
    """Frames of one memory: offered, taken into it, dropped for a newer one, refused as broken."""

    received: int = 0
    taken: int = 0
    dropped: int = 0
    failed: int = 0
    seconds: float = 0.0  # wall time the newest frame took


@dataclass
class Lane:
    """Tickets that are answered one after the other; `answer` is the first one's, once begun."""

    tickets: deque[Ticket] = field(default_factory=deque)
    answer: Answer | None = None


class Scheduler:
    """Runs an engine on a thread of its own. All methods may be called from any thread.

    Per memory the newest frame waits in a slot, an older one that was not taken is counted as
    dropped. Questions queue, at most `max_questions`; captions have a lane of their own, so that
    neither keeps the other waiting. Each ends by its last word, its deadline or its cancellation.
    `on_frame(memory)` follows every frame taken and `on_frame_error(memory, error)` every one
    refused; both run on the scheduler's thread and must not block.
    """

    def __init__(
        self,
        engine: StreamingEngine,
        max_questions: int = 8,
        on_frame: Callable[[VisualMemory], None] | None = None,
        on_frame_error: Callable[[VisualMemory, Exception], None] | None = None,
    ):
        """The engine must have a branch for each of the two lanes."""
        self._engine = engine
        self._max_questions = max_questions
        self._on_frame, self._on_frame_error = on_frame, on_frame_error
        self._wake = threading.Condition()
        self._frames: dict[VisualMemory, tuple[FrameSource, int]] = {}
        self._counts: WeakKeyDictionary[VisualMemory, FrameCounts] = WeakKeyDictionary()
        self._calls: deque[Callable[[], None]] = deque()
        self._questions, self._captions = Lane(), Lane()
        self._lanes = deque((self._questions, self._captions))  # the next one's turn is first
        self._owed = 0.0  # seconds of decoding due before the next frame
        self._closing = False
        self._thread = threading.Thread(target=self._run, name='infinitevl', daemon=True)
        self._thread.start()

    def offer(self, memory: VisualMemory, frame: FrameSource, stamp: int) -> None:
        """Hand over a frame (see StreamingEngine.ingest); one that still waits is dropped."""
        with self._wake:
            counts = self._counts.setdefault(memory, FrameCounts())
            counts.received += 1
            # The memory keeps its place in line: cameras take turns.
            counts.dropped += memory in self._frames
            self._frames[memory] = (frame, stamp)
            self._wake.notify()

    def ask(
        self,
        memory: VisualMemory,
        question: str,
        on_done: Callable[[Outcome], None],
        on_piece: Callable[[str], None] | None = None,
        sampling: Sampling | None = None,
        timeout: float = 60.0,
    ) -> Ticket:
        """Queue a question; it is asked of what the memory holds when its turn comes.

        `timeout` [s] counts from now. Raises QueueFullError at once when no more fit.
        """
        ticket = _ticket(memory, question, sampling, timeout, on_done, on_piece)
        return self._queue(self._questions, ticket)

    def caption(
        self,
        memory: VisualMemory,
        prompt: str,
        on_done: Callable[[Outcome], None],
        sampling: Sampling | None = None,
        timeout: float = 60.0,
    ) -> Ticket:
        """Queue a question of the node's own, beside those of others."""
        ticket = _ticket(memory, prompt, sampling, timeout, on_done, None)
        return self._queue(self._captions, ticket)

    def call(self, function: Callable[[], None]) -> None:
        """Run a function on the scheduler's thread soon, between frames and tokens.

        Raises RuntimeError when the scheduler is closing.
        """
        with self._wake:
            if self._closing:
                raise RuntimeError('shutting down')
            self._calls.append(function)
            self._wake.notify()

    def reset(self, memory: VisualMemory, on_done: Callable[[int], None]) -> None:
        """Forget all that `memory` holds, also a frame that waits to be taken.

        `on_done(frames)` tells how many there were. Raises RuntimeError when closing.
        """

        def reset() -> None:
            with self._wake:
                self._counts[memory].dropped += self._frames.pop(memory, None) is not None
            frames = memory.frames
            memory.reset()
            on_done(frames)

        self._counts.setdefault(memory, FrameCounts())
        self.call(reset)

    def counts(self, memory: VisualMemory) -> FrameCounts:
        return self._counts.get(memory, FrameCounts())

    @property
    def waiting(self) -> int:
        """Questions that wait or are being answered."""
        return len(self._questions.tickets)

    def close(self) -> None:
        """End every question and the thread."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    def _queue(self, lane: Lane, ticket: Ticket) -> Ticket:
        with self._wake:
            if self._closing:
                raise QueueFullError('shutting down')
            if len(lane.tickets) >= self._max_questions:
                raise QueueFullError(f'{len(lane.tickets)} questions are waiting already')
            lane.tickets.append(ticket)
            self._wake.notify()
        return ticket

    @property
    def _answering(self) -> bool:
        return any(lane.tickets for lane in self._lanes)

    def _run(self) -> None:
        while not self._closing:
            with self._wake:
                while not (self._closing or self._calls or self._frames or self._answering):
                    self._wake.wait()
                if self._closing:
                    break
                call = self._calls.popleft() if self._calls else None
                frames = []
                if call is None and not (self._answering and self._owed > 0):
                    memories = islice(self._frames, self._engine.frames_at_once)
                    frames = [(memory, *self._frames.pop(memory)) for memory in list(memories)]
            self._end_overdue()
            if call is not None:
                _guarded(call)
            elif frames:
                self._take_frames(frames)
            else:
                self._answer_step()
        for lane in self._lanes:
            while lane.tickets:
                self._end(lane, lane.tickets[0], 'the node is shutting down')
        while self._calls:
            _guarded(self._calls.popleft())

    def _take_frames(self, waiting: list[tuple[VisualMemory, FrameSource, int]]) -> None:
        """Frames of different memories, together."""
        began = time.monotonic()
        frames = []
        for memory, source, stamp in waiting:
            try:
                pixels = source() if callable(source) else source
                self._engine.check_frame(memory, pixels)
            except Exception as error:  # a bad frame must not end the stream
                self._refuse(memory, error)
            else:
                frames.append(Frame(memory, pixels, stamp))
        try:
            self._engine.ingest_together(frames)
        except Exception as error:
            for frame in frames:
                self._refuse(frame.memory, error)
            frames = []
        seconds = time.monotonic() - began
        for frame in frames:
            counts = self._counts[frame.memory]
            counts.taken += 1
            counts.seconds = seconds
            if self._on_frame:
                _guarded(self._on_frame, frame.memory)
        due = seconds * ANSWER_SHARE / (1 - ANSWER_SHARE)
        self._owed = due if self._answering else 0.0

    def _refuse(self, memory: VisualMemory, error: Exception) -> None:
        self._counts[memory].failed += 1
        if self._on_frame_error:
            _guarded(self._on_frame_error, memory, error)

    def _end_overdue(self) -> None:
        """Also those that still wait: their places are free again at once."""
        for lane in self._lanes:
            for ticket in list(lane.tickets):
                if reason := ticket.overdue:
                    self._end(lane, ticket, reason)

    def _answer_step(self) -> None:
        """One token of an answer, or one part of its question; the lanes take turns."""
        self._lanes.rotate(-1)
        lane = next((lane for lane in self._lanes if lane.tickets), None)
        if lane is None:
            return
        began = time.monotonic()
        ticket = lane.tickets[0]
        try:
            if lane.answer is None:
                lane.answer = self._engine.ask(ticket.memory, ticket.question, ticket.sampling)
            piece = lane.answer.step()
        except Exception as error:  # the question's fault or the engine's: the client is told
            self._end(lane, ticket, str(error) or type(error).__name__)
        else:
            if piece and ticket.on_piece:
                _guarded(ticket.on_piece, piece)
            if lane.answer.finish:
                self._end(lane, ticket, '')
        self._owed -= time.monotonic() - began

    def _end(self, lane: Lane, ticket: Ticket, message: str) -> None:
        """Close a ticket and its answer, if that has begun. No message means success."""
        answer = None
        with self._wake:
            if ticket is lane.tickets[0]:
                answer, lane.answer = lane.answer, None
            lane.tickets.remove(ticket)
        seconds = time.monotonic() - ticket.began
        if answer is None:
            outcome = Outcome(False, message=message, seconds=seconds, frames=ticket.memory.frames)
        else:
            answer.close()
            outcome = Outcome(
                not message,
                answer.text,
                message,
                answer.tokens,
                seconds,
                answer.frames,
                answer.first_stamp,
                answer.newest_stamp,
            )
        _guarded(ticket.on_done, outcome)


def _ticket(
    memory: VisualMemory,
    question: str,
    sampling: Sampling | None,
    timeout: float,
    on_done: Callable[[Outcome], None],
    on_piece: Callable[[str], None] | None,
) -> Ticket:
    deadline = time.monotonic() + timeout
    return Ticket(memory, question, sampling or Sampling(), deadline, on_done, on_piece)


def _guarded(function: Callable[..., None], *arguments: object) -> None:
    """Call what others handed in: their mistakes are logged and do not end the thread."""
    try:
        function(*arguments)
    except BaseException:
        logger.exception('a callback failed')
