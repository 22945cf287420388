"""An example: a bag as a regression test of what the robot sees and remembers.

Copy this beside a bag of yours; the model would be the one that runs on the robot.
"""

from pathlib import Path

import pytest

from infinitevl_ros.media.bag_writer import write_bag
from infinitevl_ros.media.source import Shot
from infinitevl_ros.testing import Expectation, Question, replay
from infinitevl_ros.world.patrol import story

QUESTIONS = Path(__file__).parent / 'patrol.yaml'


@pytest.fixture(scope='module')
def bag(tmp_path_factory):
    """Yours would be recorded; this one is rendered, so that the example needs no file."""
    folder = tmp_path_factory.mktemp('bag') / 'patrol'
    frames = enumerate(story(seed=2**32 + 7, frames=180, size=112))
    write_bag(folder, '/camera', (Shot(i * 100_000_000, pixels) for i, (pixels, _) in frames))
    return folder


def test_the_patrol_is_remembered(bag):
    record = replay(bag, QUESTIONS)
    assert len(record.frames) == 180


def test_a_wrong_answer_fails_with_a_table(bag):
    wrong = [Question('Is the light on?', expected=Expectation('exact', ('a zebra',)))]
    with pytest.raises(AssertionError, match=r'WRONG  Is the light on\?[^$]*0 of 1 right'):
        replay(bag, wrong)


def test_a_test_that_checks_nothing_is_refused(bag):
    with pytest.raises(ValueError, match='nothing would be checked'):
        replay(bag, [Question('Is the light on?')])
