"""A stream through the engine, frame by frame: captions and questions at their times.

Nothing is dropped and nothing waits for a clock: the same file gives the same words. They are
those of infinitevl_node for the same frames and settings, since captions fall due by the same
Schedule and are asked, like questions, on a branch of the memory at that very frame.

Stream time is the memory's: it goes on by the stamps, and a jump back, or of more than an hour,
counts as none.
"""

from __future__ import annotations

import importlib.metadata
import platform
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date

import torch
from tqdm import tqdm

from ..engine import Sampling, StreamingEngine, VisualMemory
from ..engine.engine import CAPTION_PROMPT
from ..engine.memory import LONGEST_GAP
from ..engine.schedule import JUMP, NANOSECONDS, Schedule
from ..media.source import Shot, Source
from ..version import package_version
from .pace import Pace
from .questions import MAX_TOKENS, Question
from .record import Answered, Record, Said, Taken


@dataclass(frozen=True)
class Captioning:
    """Captions every so many seconds of stream time."""

    every: float
    prompt: str = CAPTION_PROMPT
    max_tokens: int = MAX_TOKENS


@dataclass(frozen=True)
class Listener:
    """Who hears of what happens, as it happens; all may be left out.

    `frame` gets every picture, `piece` what an answer says bit by bit, `caption` and `answer` what
    is complete.
    """

    frame: Callable[[Shot], None] = lambda _: None
    piece: Callable[[Question, str], None] = lambda *_: None
    caption: Callable[[Said], None] = lambda _: None
    answer: Callable[[Answered], None] = lambda _: None


class Interrupted(KeyboardInterrupt):
    """Ctrl-C in a run; `record` is what there was until then."""

    def __init__(self, record: Record):
        super().__init__()
        self.record = record


def run(
    engine: StreamingEngine,
    source: Source,
    questions: Sequence[Question] = (),
    captions: Captioning | None = None,
    listener: Listener | None = None,
    progress: bool = False,
) -> Record:
    """All frames of `source` into a new memory; what was said on the way.

    A question for a time is asked after the first frame of at least that stream time, one without
    a time after the last. One for a time that the stream does not reach is asked at its end, with
    a warning. Raises ValueError for a question that cannot be asked, with the first frame, and for
    a stream that has no frame; Interrupted at Ctrl-C.
    """
    replay = _Replay(engine, source, captions, listener or Listener())
    try:
        _run(replay, source, questions, progress)
    except KeyboardInterrupt:
        raise Interrupted(replay.record) from None
    finally:
        replay.record.warnings[:0] = [*source.warnings, *replay.jumps]
    return replay.record


def _run(replay: _Replay, source: Source, questions: Sequence[Question], progress: bool) -> None:
    waiting = sorted((q for q in questions if q.at is not None), key=lambda q: q.at)
    bar = tqdm(total=source.expected, unit=' frames', disable=not progress, leave=False)
    with bar:
        for shot in source:
            replay.take(shot)
            if replay.begins:
                replay.check(questions)
            while waiting and replay.seen and replay.has_come(waiting[0].at):
                replay.ask(waiting.pop(0))
            bar.update()
    if not replay.record.frames:
        raise ValueError(': '.join([source.name, 'no frame could be read', *source.warnings]))
    for question in waiting:
        replay.record.warnings.append(
            f'"{question.text}" was to be asked at {question.at:g} s, but the stream ends at '
            f'{replay.elapsed:.1f} s: it was asked there'
        )
    for question in (*waiting, *(q for q in questions if q.at is None)):
        replay.ask(question)


class _Replay:
    """A run under way."""

    def __init__(
        self,
        engine: StreamingEngine,
        source: Source,
        captions: Captioning | None,
        listener: Listener,
    ):
        self._engine, self._captions, self._listener = engine, captions, listener
        self._memory = engine.new_memory()
        self._schedule = Schedule()
        self._pace = Pace()
        self._jumps: dict[str, tuple[str, int]] = {}  # the first of each way, and how many
        # Stamp of the newest frame in the caption before, and its stream time.
        self._since: int | None = None
        self._since_at = 0.0
        self.begins = False
        self.record = Record(
            source=source.name,
            kind=source.kind,
            topic=source.topic,
            model=engine.name,
            device=str(engine.weights.device),
            date=date.today().isoformat(),
            versions=versions(),
        )

    @property
    def elapsed(self) -> float:
        """Stream time of the newest frame."""
        return self._memory.elapsed / NANOSECONDS

    def has_come(self, seconds: float) -> bool:
        """Whether stream time has got there, to the nanosecond that stamps are written in."""
        return round(seconds * NANOSECONDS) <= self._memory.elapsed

    @property
    def seen(self) -> bool:
        """Whether there is a picture to ask about; with two frames a grid the first one waits."""
        return self._memory.frames > len(self._memory.waiting)

    def take(self, shot: Shot) -> None:
        """Take a frame, and caption if it is time; `begins` is set with the first one seen."""
        before, seen = self._memory.newest_stamp, self.seen
        began = time.perf_counter()
        self._engine.ingest(self._memory, shot.pixels, shot.stamp)
        seconds = time.perf_counter() - began
        self.begins = self.seen and not seen
        self._warn_of_jump(before, shot.stamp)
        self.record.frames.append(Taken(shot.stamp, seconds, self._memory.nbytes))
        self._pace.add(self.elapsed, seconds)
        self.record.dropped_live = self._pace.dropped
        self._listener.frame(shot)
        if self._since is None or shot.stamp < self._since:
            self._since, self._since_at = shot.stamp, self.elapsed
        captions = self._captions
        if captions and self._schedule.due(shot.stamp, int(captions.every * NANOSECONDS)):
            self._caption(captions, shot.stamp)

    def _caption(self, captions: Captioning, stamp: int) -> None:
        sampling = Sampling(max_tokens=captions.max_tokens)
        answer = self._engine.caption(self._memory, captions.prompt, sampling)
        for _ in answer:
            pass
        since, self._since = self._since, stamp
        since_at, self._since_at = self._since_at, self.elapsed
        said = Said(stamp, since, answer.text, answer.seconds, since_at, self._since_at)
        self.record.captions.append(said)
        self._listener.caption(said)

    def _warn_of_jump(self, before: int | None, stamp: int) -> None:
        gap = 0 if before is None else stamp - before
        if not -JUMP <= gap <= LONGEST_GAP:
            way = 'back' if gap < 0 else 'ahead'
            first, count = self._jumps.get(way, ('', 0))
            first = first or (
                f'frame {self._memory.frames}: stamps jump {way} by '
                f'{abs(gap) / NANOSECONDS:.1f} s, which counts as no time'
            )
            self._jumps[way] = first, count + 1

    @property
    def jumps(self) -> list[str]:
        """Warnings of stamps that jump, one for each direction."""
        return [
            first if count == 1 else f'{first}; {count - 1} more do so'
            for first, count in self._jumps.values()
        ]

    def check(self, questions: Sequence[Question]) -> None:
        """Begin every question and ask none: what is wrong with one is told before an hour."""
        asked = [(question.text, question.sampling) for question in questions]
        if self._captions:
            asked.append((self._captions.prompt, Sampling(self._captions.max_tokens)))
        for text, sampling in asked:
            try:
                self._engine.ask(self._memory, text, sampling).close()
            except ValueError as error:
                raise ValueError(f'"{textwrap.shorten(text, 60)}": {error}') from None

    def ask(self, question: Question) -> None:
        answered = asked(self._engine, self._memory, question, self.elapsed, self._listener.piece)
        self.record.answers.append(answered)
        self._listener.answer(answered)


def asked(
    engine: StreamingEngine,
    memory: VisualMemory,
    question: Question,
    elapsed: float = 0.0,
    on_piece: Callable[[Question, str], None] = lambda *_: None,
) -> Answered:
    """Ask a question of a memory, `elapsed` seconds of stream time after its first frame."""
    began, first = time.perf_counter(), 0.0
    answer = engine.ask(memory, question.text, question.sampling)
    for piece in answer:
        first = first or time.perf_counter() - began
        on_piece(question, piece)
    expected = question.expected
    return Answered(
        question=question.text,
        at=elapsed,
        stamp=answer.newest_stamp,
        text=answer.text,
        tokens=answer.tokens,
        seconds=answer.seconds,
        first_token=first,
        frames=answer.frames,
        finish=answer.finish,
        expected=str(expected) if expected else '',
        right=expected.met_by(answer.text) if expected else None,
    )


def versions() -> dict[str, str]:
    """Of what has a say in the words."""
    ours = {'infinitevl_ros': package_version(), 'python': platform.python_version()}
    return {**ours, **dict(_installed())}


def _installed() -> Iterator[tuple[str, str]]:
    yield 'torch', torch.__version__
    for name in ('numpy', 'opencv-python-headless', 'opencv-python', 'tokenizers', 'rosbags'):
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
