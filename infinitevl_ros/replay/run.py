"""A stream through the engine, frame by frame: captions and questions at their times.

Nothing is dropped and nothing waits for a clock: the same file gives the same words. They are
those of infinitevl_node for the same frames, since captions fall due by the same Schedule and are
asked, like questions, on a branch of the memory at that very frame.
"""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date

import torch
from tqdm import tqdm

from ..engine import Sampling, StreamingEngine, VisualMemory
from ..engine.engine import CAPTION_PROMPT
from ..engine.schedule import NANOSECONDS, Schedule
from ..media.source import Shot, Source
from .questions import Question
from .record import Answered, Record, Said, Taken

MAX_TOKENS = 64


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
    a warning. Raises ValueError for a question that cannot be asked, and for a stream that has no
    frame.
    """
    replay = _Replay(engine, source, captions, listener or Listener())
    waiting = sorted((q for q in questions if q.at is not None), key=lambda q: q.at)
    bar = tqdm(total=source.expected, unit=' frames', disable=not progress, leave=False)
    with bar:
        for shot in source:
            replay.take(shot)
            while waiting and waiting[0].at <= replay.elapsed:
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
    replay.record.warnings[:0] = source.warnings
    return replay.record


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
        self._schedule, self._said_until = Schedule(), 0
        self._first: int | None = None
        self.elapsed = 0.0
        self.record = Record(
            source=source.name,
            kind=source.kind,
            topic=source.topic,
            model=engine.name,
            device=str(engine.weights.device),
            date=date.today().isoformat(),
            versions=versions(),
        )

    def take(self, shot: Shot) -> None:
        if self._first is None:
            self._first = self._said_until = shot.stamp
        began = time.perf_counter()
        self._engine.ingest(self._memory, shot.pixels, shot.stamp)
        seconds = time.perf_counter() - began
        self.elapsed = (shot.stamp - self._first) / NANOSECONDS
        self.record.frames.append(Taken(shot.stamp, seconds, self._memory.nbytes))
        self._listener.frame(shot)
        captions = self._captions
        if captions and self._schedule.due(shot.stamp, int(captions.every * NANOSECONDS)):
            self._caption(captions, shot.stamp)

    def _caption(self, captions: Captioning, stamp: int) -> None:
        sampling = Sampling(max_tokens=captions.max_tokens)
        answer = self._engine.caption(self._memory, captions.prompt, sampling)
        for _ in answer:
            pass
        said = Said(stamp, self._said_until, answer.text, answer.seconds)
        self._said_until = stamp
        self.record.captions.append(said)
        self._listener.caption(said)

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
    return {'python': platform.python_version(), **dict(_installed())}


def _installed() -> Iterator[tuple[str, str]]:
    yield 'torch', torch.__version__
    for name in ('numpy', 'opencv-python-headless', 'opencv-python', 'tokenizers'):
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
