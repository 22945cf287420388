"""The one thread that owns an engine: newest frames first, answers in between."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import islice
from weakref import WeakKeyDictionary

import numpy as np

from .engine import Frame, StreamingEngine
from .memory import VisualMemory
from .sampling import Sampling
from .tickets import FrameCounts, Lane, Outcome, QueueFullError, Ticket, new_ticket

# While frames come faster than they can be taken, answers get this part of the time.
ANSWER_SHARE = 0.25
CLOSE_TIMEOUT = 10.0  # seconds

logger = logging.getLogger(__name__)

# A frame, or a function that makes it from room for one of a shape: only frames that are taken are
# ever decoded, and where the device reads them.
FrameSource = np.ndarray | Callable[[Callable[[tuple[int, int, int]], np.ndarray]], np.ndarray]


class Scheduler:
    """Runs an engine on a thread of its own. All methods may be called from any thread.

    Per memory the newest frame waits in a slot, an older one that was not taken is counted as
    dropped. Questions queue, at most `max_questions`; so do checks, the node's own questions, at
    most `max_checks`, and each memory may have a caption in the making. These are lanes that take
    turns, so that none keeps another waiting. Each ticket ends by its last word, its deadline or
    its cancellation.
    `on_frame(memory)` follows every frame taken, `on_frame_error(memory, error)` every one
    refused, and `on_failure(error)` what is not a frame's or a question's fault but the engine's;
    all run on the scheduler's thread and must not block.

    `answers` counts the questions answered; `answer_seconds` is how long the last of them took.
    """

    def __init__(
        self,
        engine: StreamingEngine,
        max_questions: int = 8,
        on_frame: Callable[[VisualMemory], None] | None = None,
        on_frame_error: Callable[[VisualMemory, Exception], None] | None = None,
        on_failure: Callable[[Exception], None] | None = None,
        max_checks: int = 8,
    ):
        """The engine must have a branch for questions, checks and each memory's captions."""
        self._engine = engine
        self._most = {'questions': max_questions, 'checks': max_checks}
        self._on_frame, self._on_frame_error = on_frame, on_frame_error
        self._on_failure = on_failure
        self.answers, self.answer_seconds = 0, 0.0
        self._wake = threading.Condition()
        self._frames: dict[VisualMemory, tuple[FrameSource, int]] = {}
        self._counts: WeakKeyDictionary[VisualMemory, FrameCounts] = WeakKeyDictionary()
        self._calls: deque[Callable[[], None]] = deque()
        self._questions, self._checks = Lane(), Lane()
        self._captions: dict[VisualMemory, Lane] = {}
        self._lanes = deque((self._questions, self._checks))  # the next one's turn is first
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
        client: str = '',
    ) -> Ticket:
        """Queue a question; it is asked of what the memory holds when its turn comes.

        Clients take turns, those without a name as one. `timeout` [s] counts from now. Raises
        QueueFullError at once when no more fit; a client that has fewer waiting than another
        takes a place of that one's instead.
        """
        ticket = new_ticket(memory, question, sampling, timeout, on_done, on_piece, client)
        return self._queue('questions', ticket)

    def check(
        self,
        memory: VisualMemory,
        question: str,
        on_done: Callable[[Outcome], None],
        sampling: Sampling | None = None,
        timeout: float = 60.0,
    ) -> Ticket:
        """Queue a question of the node's own, beside those of others; see `ask`."""
        ticket = new_ticket(memory, question, sampling, timeout, on_done)
        return self._queue('checks', ticket)

    def caption(
        self,
        memory: VisualMemory,
        prompt: str,
        on_done: Callable[[Outcome], None],
        sampling: Sampling | None = None,
        timeout: float = 60.0,
    ) -> Ticket:
        """Begin a caption of what `memory` holds now. Only for `on_frame` to call.

        It so is about the same frames however fast they come. Raises QueueFullError while the
        caption before it is in the making, ValueError for a prompt that cannot be asked.
        """
        if memory in self._captions:
            raise QueueFullError('the one before is still in the making')
        ticket = new_ticket(memory, prompt, sampling, timeout, on_done)
        lane = Lane(deque((ticket,)), self._engine.ask(memory, prompt, ticket.sampling))
        with self._wake:
            self._captions[memory] = lane
            self._lanes.append(lane)
        return ticket

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
        """Forget all that came for `memory` up to now, also a frame that waits to be taken.

        `on_done(frames)` tells how many it held. Raises RuntimeError when closing.
        """
        self.drop_waiting(memory)
        self.call(lambda: on_done(_emptied(memory)))

    def forget(self, memory: VisualMemory) -> int:
        """What `reset` does, for functions that are on the scheduler's thread already."""
        self.drop_waiting(memory)
        return _emptied(memory)

    def drop_waiting(self, memory: VisualMemory) -> None:
        """Drop the frame that waits to be taken, if there is one."""
        with self._wake:
            waiting = self._frames.pop(memory, None) is not None
            self._counts.setdefault(memory, FrameCounts()).dropped += waiting

    def end_all(self, message: str) -> None:
        """End every question, check and caption with this message, soon."""
        self.call(lambda: self._end_every(message))

    def counts(self, memory: VisualMemory) -> FrameCounts:
        return self._counts.get(memory, FrameCounts())

    @property
    def waiting(self) -> int:
        """Questions that wait or are being answered."""
        return len(self._questions.tickets)

    def close(self) -> None:
        """End every question and the thread; a step that hangs is waited for CLOSE_TIMEOUT."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(CLOSE_TIMEOUT)
        if self._thread.is_alive():
            logger.error(f'the engine is still in a step after {CLOSE_TIMEOUT:.0f} s: left behind')

    def _queue(self, kind: str, ticket: Ticket) -> Ticket:
        lane = self._questions if kind == 'questions' else self._checks
        with self._wake:
            if self._closing:
                raise QueueFullError('shutting down')
            if not lane.add(ticket, self._most[kind]):
                raise QueueFullError(f'{self._most[kind]} {kind} are waiting already')
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
        self._end_every('the node is shutting down')
        while self._calls:
            _guarded(self._calls.popleft())

    def _take_frames(self, waiting: list[tuple[VisualMemory, FrameSource, int]]) -> None:
        """Frames of different memories, together."""
        began = time.monotonic()
        frames = []
        for place, (memory, source, stamp) in enumerate(waiting):
            new = partial(self._engine.room_for_frame, memory, place=place, of=len(waiting))
            try:
                pixels = source(new) if callable(source) else source
                self._engine.check_frame(memory, pixels)
            except Exception as error:  # a bad frame must not end the stream
                self._refuse(memory, error)
            else:
                frames.append(Frame(memory, pixels, stamp))
        try:
            self._engine.ingest_together(frames)
        except Exception as error:  # the frames are good, so this is the engine's
            for frame in frames:
                self._refuse(frame.memory, error)
            self._fail(error)
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

    def _end_every(self, message: str) -> None:
        for lane in list(self._lanes):
            while lane.tickets:
                self._end(lane, lane.tickets[0], message)

    def _fail(self, error: Exception) -> None:
        logger.error('the engine failed', exc_info=error)
        if self._on_failure:
            _guarded(self._on_failure, error)

    def _end_overdue(self) -> None:
        """Also those that still wait: their places are free again at once."""
        for lane in list(self._lanes):
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
                answer = self._engine.ask(ticket.memory, ticket.question, ticket.sampling)
                with self._wake:
                    lane.begin(ticket, answer)
            piece = lane.answer.step()
        except Exception as error:  # the client is told, whoever's fault it is
            self._end(lane, ticket, str(error) or type(error).__name__)
            if not isinstance(error, ValueError):
                self._fail(error)
        else:
            if piece and ticket.on_piece:
                _guarded(ticket.on_piece, piece)
            if finish := lane.answer.finish:
                cut = finish == 'length' and ticket.sampling.json_schema
                self._end(lane, ticket, 'the JSON is longer than max_tokens' if cut else '')
        self._owed -= time.monotonic() - began

    def _end(self, lane: Lane, ticket: Ticket, message: str) -> None:
        """Close a ticket and its answer, if that has begun. No message means success."""
        answer = None
        with self._wake:
            if ticket is lane.tickets[0]:
                answer, lane.answer = lane.answer, None
            lane.tickets.remove(ticket)
            if lane is self._captions.get(ticket.memory):
                del self._captions[ticket.memory]
                self._lanes.remove(lane)
        seconds = time.monotonic() - ticket.began
        if answer is None:
            memory = ticket.memory  # as it is: nothing of it was read
            seen = memory.frames, memory.first_stamp, memory.newest_stamp
            outcome = Outcome(False, '', message, 0, seconds, *seen)
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
        if lane is self._questions and outcome.success:
            self.answers += 1
            self.answer_seconds = seconds
        _guarded(ticket.on_done, outcome)


def _emptied(memory: VisualMemory) -> int:
    """Reset a memory; returns how many frames it held."""
    frames = memory.frames
    memory.reset()
    return frames


def _guarded(function: Callable[..., None], *arguments: object) -> None:
    """Call what others handed in: their mistakes are logged and do not end the thread."""
    try:
        function(*arguments)
    except BaseException:
        logger.exception('a callback failed')
