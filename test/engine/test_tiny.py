"""The small trained model that comes with the package says what is there."""

from collections import defaultdict

import numpy as np
import pytest

from infinitevl_ros.engine import StreamingEngine
from infinitevl_ros.model.default import default_checkpoint
from infinitevl_ros.world.patrol import plan, story
from infinitevl_ros.world.questions import Observer, ask
from infinitevl_ros.world.wordings import WORDINGS

FRAME_NS = 100_000_000
FRAMES = 180


@pytest.fixture(scope='module')
def engine():
    return StreamingEngine.from_checkpoint(default_checkpoint())


def answer(engine, memory, question):
    return ''.join(engine.ask(memory, question))


def test_it_fits_on_any_disk():
    folder = default_checkpoint()
    assert (folder / 'model.safetensors').stat().st_size <= 14_000_000
    assert (folder / 'README.md').is_file()


def test_it_knows_where_it_is_and_where_it_was(engine):
    memory = engine.new_memory()
    patrol = story(seed=2**32 + 7, frames=FRAMES, size=112)
    rooms = []
    for number, (frame, view) in enumerate(patrol):
        engine.ingest(memory, frame, number * FRAME_NS)
        if not rooms or rooms[-1] != view.room:
            rooms.append(view.room)
    window = engine.weights.config.sliding_window // engine.tokens_per_frame
    assert 10 * window < FRAMES
    assert answer(engine, memory, 'Which room is this?') == rooms[-1]
    assert answer(engine, memory, 'Where were you before this?') == rooms[-2]
    assert answer(engine, memory, 'Which room came first?') == rooms[0]
    assert answer(engine, memory, 'Is the light on?') == ('yes' if view.light else 'no')


def test_it_answers_in_worlds_and_words_that_it_was_not_taught(engine):
    memory, observer, rng = engine.new_memory(), Observer(), np.random.default_rng(1)
    patrol = plan(2**32 + 99, 240)
    right = defaultdict(list)
    frames = zip(patrol, patrol.truth(), strict=True)
    for number, ((frame, _), (view, enters)) in enumerate(frames, 1):
        engine.ingest(memory, frame, number * FRAME_NS)
        observer.see(view, enters)
        if number % 40:
            continue
        for kind in WORDINGS:
            question = ask(observer, rng, kind, held_out=True)
            if question:
                said = answer(engine, memory, question.text)
                right[kind].append(said == question.answer)
    assert set(right) == set(WORDINGS)
    for kind in ('room', 'light', 'where', 'seen', 'first room', 'rooms', 'sign then'):
        assert np.mean(right[kind]) >= 0.8, (kind, right[kind])
    assert np.mean([one for answers in right.values() for one in answers]) >= 0.9
