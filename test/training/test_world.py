"""Training's worlds: patrols put together from visits, with questions whose truth is theirs."""

import numpy as np
import pytest

from infinitevl_ros.world.wordings import MEMORY
from training.world import interview, make_world, paint, wander

FRAMES = 96


@pytest.fixture(scope='module', params=range(6))
def world(request):
    return make_world(request.param, FRAMES)


def test_a_world_has_the_frames_it_was_asked_for_and_a_truth_for_each(world):
    assert sum(one.frames for one in world.visits) == FRAMES
    assert [len(views) for views in world.views] == [one.frames for one in world.visits]
    assert world.first == np.cumsum([0, *(one.frames for one in world.visits[:-1])]).tolist()
    for one, views in zip(world.visits, world.views, strict=True):
        assert {view.room for view in views} == {world.rooms[one.room].name}


def test_painting_gives_one_picture_a_frame_and_the_same_ones_again():
    world = make_world(3, 16)
    pictures = paint(world, 32)
    assert pictures.shape == (16, 32, 32, 3)
    np.testing.assert_array_equal(pictures, paint(world, 32))


def test_a_patrol_goes_on_as_long_as_it_is_asked_to(world):
    chosen = wander(world, 1000, np.random.default_rng(0))
    lengths = [world.visits[number].frames for number in chosen]
    assert sum(lengths) >= 1000 > sum(lengths[:-1])


def test_questions_are_those_of_the_frames_they_are_asked_at(world):
    rng = np.random.default_rng(1)
    chosen = wander(world, 200, rng)
    points = np.array([4, 4, 60, 200])
    questions = interview(world, chosen, points, 0.5, rng)
    assert len(questions) == 4
    rooms = [view.room for number in chosen for view in world.views[number]]
    for question, seen in zip(questions, points, strict=True):
        assert question.age is None or 0 <= question.age < seen
        if question.kind == 'room':
            assert question.answer == rooms[seen - 1]


def test_the_share_of_questions_about_the_past_is_as_asked(world):
    rng = np.random.default_rng(2)
    chosen = wander(world, 400, rng)
    points = np.full(300, 400)
    for share in (0.0, 1.0):
        kinds = [question.kind for question in interview(world, chosen, points, share, rng)]
        past = sum(kind in MEMORY for kind in kinds) / sum(kind != 'caption' for kind in kinds)
        assert past == pytest.approx(share, abs=0.1)


def test_a_question_after_the_last_frame_is_refused(world):
    with pytest.raises(ValueError, match='after the last frame'):
        interview(world, [0], np.array([500]), 0.5, np.random.default_rng(0))
