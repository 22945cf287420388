"""A file run without ROS gives the words of the node."""

import pytest
from conftest import SECOND, counts, until

from infinitevl_ros.engine.loading import load_engine
from infinitevl_ros.media.source import Shot, Source
from infinitevl_ros.model.default import default_checkpoint
from infinitevl_ros.replay.questions import Question
from infinitevl_ros.replay.run import Captioning, run
from infinitevl_ros.ros import stamps
from infinitevl_ros.world.patrol import story

QUESTIONS = 'Which room is this?', 'Where were you before this?'
PERIOD = 1.5


class Shots(Source):
    """Frames of a patrol, ten a second; for a while one behind the other's stamp, then back."""

    kind, name = 'video', 'patrol'

    def __init__(self):
        self.warnings = []

    def __iter__(self):
        patrol = story(seed=2**32 + 7, frames=60, size=112)
        for number, (pixels, _) in enumerate(patrol):
            swapped = number + (-1) ** number if 20 <= number < 30 else number
            begin = 100 if number < 40 else 20
            yield Shot(begin * SECOND + swapped * SECOND // 10, pixels)


@pytest.fixture(scope='module')
def record():
    """Also of what is asked in the middle."""
    questions = [Question(text, at) for text in QUESTIONS for at in (3.0, None)]
    return run(load_engine(default_checkpoint()), Shots(), questions, Captioning(PERIOD))


def test_captions_and_answers_are_the_nodes(host, connect, record):
    node = host(model=str(default_checkpoint()), caption_period=PERIOD)
    client = connect()
    said, answers = [], []
    for number, shot in enumerate(Shots(), start=1):
        client.publish(client.image(shot.pixels, shot.stamp))
        assert until(lambda number=number: counts(node).taken == number)
        # The node leaves a caption out while the one before is in the making.
        if len(said) < len(record.captions) and record.captions[len(said)].stamp == shot.stamp:
            assert until(lambda: len(client.captions) > len(said))
            said.append(client.captions[len(said)])
        if number in {answer.frames for answer in record.answers}:
            answers += [client.ask(question) for question in QUESTIONS]
    assert [
        (one.text, stamps.nanoseconds(one.first_stamp), stamps.nanoseconds(one.last_stamp))
        for one in said
    ] == [(one.text, one.first_stamp, one.stamp) for one in record.captions]
    assert len(said) == len(client.captions) == 3
    assert [(one.answer, one.frames_seen) for one in answers] == [
        (one.text, one.frames) for one in record.answers
    ]
