"""Bags and videos as regression tests of perception, for pytest.

    from infinitevl_ros.testing import replay

    def test_the_patrol_is_remembered():
        record = replay('patrol.mcap', 'patrol.yaml', model='/path/to/checkpoint')
        assert len(record.frames) == 900

The questions and what is expected of their answers are a YAML file, see
infinitevl_ros/replay/questions.py, or a list of Question:

    from infinitevl_ros.testing import Expectation, Question, replay

    def test_the_door_was_seen():
        replay('patrol.mcap', [
            Question('Is the door open?', at=12.5, expected=Expectation('exact', ('yes',))),
            Question('What did you see?', expected=Expectation('contains', ('ball',))),
        ], topic='/front/image_raw', threshold=0.5)

On a CPU the same file gives the same answers bit for bit. On a GPU sums are rounded in another
order from one kind of card to the next, so that a word may change where two were about as likely:
leave room in the threshold.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from .engine import StreamingEngine
from .engine.loading import load_engine
from .media.source import open_source
from .model.default import default_checkpoint
from .replay.questions import Expectation, Question, load_questions
from .replay.record import Record
from .replay.run import run
from .replay.score import passes, table

__all__ = ['Expectation', 'Question', 'Record', 'replay']


def replay(
    path: str | Path,
    questions: str | Path | Sequence[Question],
    *,
    model: str | Path | None = None,
    topic: str = '',
    threshold: float | None = None,
    device: str = 'cpu',
) -> Record:
    """Run a bag or video through the engine and hold the answers to what is expected.

    `questions` is a YAML file or a list, `model` a checkpoint folder (default: the small one of
    the package), `topic` the bag's where it has several with images. `threshold` is the part of
    the expectations that must be met, 0 to 1; left out it is the file's, else all. Returns what
    the run brought. Raises AssertionError with a table when too few are met, ValueError when the
    bag or the questions are at fault. A model is loaded once in a process.
    """
    if isinstance(questions, str | Path):
        listed = load_questions(questions)
        threshold = listed.threshold if threshold is None else threshold
        questions = listed.questions
    threshold = 1.0 if threshold is None else threshold
    if not 0 <= threshold <= 1:
        raise ValueError(f'threshold is {threshold}, expected 0 to 1')
    if not any(question.expected for question in questions):
        raise ValueError('no question says what is expected, so nothing would be checked')
    folder = Path(model or default_checkpoint()).expanduser().resolve()
    record = run(_engine(folder, device), open_source(path, topic), questions)
    if not passes(record, threshold):
        raise AssertionError(f'under the threshold of {threshold:g}:\n{table(record)}')
    return record


@functools.cache
def _engine(folder: Path, device: str) -> StreamingEngine:
    """Loaded once in a process."""
    return load_engine(folder, device)
