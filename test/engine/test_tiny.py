"""The small trained model that comes with the package says what is there."""

import pytest

from infinitevl_ros.engine import StreamingEngine
from infinitevl_ros.model.default import default_checkpoint
from infinitevl_ros.world.patrol import story

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
