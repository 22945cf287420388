from itertools import pairwise

import cv2
import numpy as np
import pytest

from infinitevl_ros.cli.world import COLOURS, VISIT_S, PatrolWorld

THIRDS = ('left', 'ahead', 'right')
LOOKING_AROUND = np.arange(0, 2 * VISIT_S, 0.4)


@pytest.fixture(scope='module', params=range(3))
def world(request):
    return PatrolWorld(seed=request.param, rooms=2)


def room_of(world, seconds):
    name = world.describe(seconds).room
    return next(room for room in world.rooms if name == f'{room.wall} room')


def pixels_of(picture, colour):
    """Where a picture has a colour under any light: [H, W] bool."""
    picture, colour = picture.astype(float), np.array(COLOURS[colour], float)
    brightness = np.linalg.norm(picture, axis=2)
    alike = picture @ colour / np.linalg.norm(colour) / np.maximum(brightness, 1)
    return (alike > 0.985) & (brightness > 60)


def third(mask, side):
    return np.array_split(mask, 3, axis=1)[THIRDS.index(side)]


def even_light(picture):
    return picture / picture.mean()


def test_same_seed_and_time_give_the_same_picture_and_description():
    one, other = PatrolWorld(seed=3), PatrolWorld(seed=3)
    one.render(17.0)
    for seconds in (0.0, 2.5, 9.25, 1_700_000_000.5):
        np.testing.assert_array_equal(one.render(seconds), other.render(seconds))
        assert one.describe(seconds) == other.describe(seconds)


def test_any_number_is_a_time():
    world = PatrolWorld(rooms=1)
    for number in (np.float64, np.float32, int):
        np.testing.assert_array_equal(world.render(number(2)), world.render(2.0))


def test_another_seed_is_another_world():
    one, other = PatrolWorld(seed=1, rooms=1), PatrolWorld(seed=2, rooms=1)
    assert one.rooms != other.rooms
    assert np.abs(even_light(one.render(1.0)) - even_light(other.render(1.0))).mean() > 0.05


def test_what_is_described_is_there(world):
    for seconds in LOOKING_AROUND:
        picture = world.render(seconds)
        for thing in world.describe(seconds).objects:
            mask = pixels_of(picture, thing.colour)
            assert third(mask, thing.side).sum() > 150, (seconds, thing)


def test_no_thing_at_the_side_has_its_colour_at_the_other_side(world):
    opposite = {'left': 'right', 'right': 'left'}
    checked = 0
    for seconds in LOOKING_AROUND:
        picture = world.render(seconds)
        for thing in world.describe(seconds).objects:
            if thing.side in opposite and thing.colour != 'green':  # a plant's leaves are green
                mask = pixels_of(picture, thing.colour)
                assert third(mask, opposite[thing.side]).sum() < 20, (seconds, thing)
                checked += 1
    assert checked > 20


def test_no_picture_has_a_colour_that_nothing_in_the_room_has(world):
    for seconds in LOOKING_AROUND:
        picture = world.render(seconds)
        present = {thing.colour for thing in room_of(world, seconds).things} | {'green'}
        for colour in COLOURS.keys() - present:
            assert pixels_of(picture, colour).sum() < 20, (seconds, colour)


def test_a_visit_shows_all_things_of_the_room_and_at_different_sides(world):
    things, sides = set(), set()
    for seconds in np.arange(0, VISIT_S, 0.1):
        for thing in world.describe(seconds).objects:
            things.add((thing.kind, thing.colour))
            sides.add(thing.side)
    assert things == {(thing.kind, thing.colour) for thing in world.rooms[0].things}
    assert sides == set(THIRDS)


def test_objects_are_told_from_left_to_right(world):
    for seconds in LOOKING_AROUND:
        sides = [THIRDS.index(thing.side) for thing in world.describe(seconds).objects]
        assert sides == sorted(sides)


def test_the_number_on_the_door_is_always_in_the_picture(world):
    for seconds in LOOKING_AROUND:
        ink = world.render(seconds).max(axis=2) < 60
        assert ink.sum() > 150, seconds


def test_the_rooms_of_a_patrol_differ_and_come_again_and_again():
    world = PatrolWorld(seed=5, rooms=3)
    visits = [world.describe(2 + VISIT_S * visit) for visit in range(7)]
    assert len({view.room for view in visits}) == len({view.door for view in visits}) == 3
    assert visits[:3] == visits[3:6]
    assert visits[0] == visits[6]


def test_a_room_looks_the_same_when_it_is_seen_again():
    world = PatrolWorld(seed=5, rooms=3)
    first = even_light(world.render(2.0))
    again = even_light(world.render(2.0 + 3 * VISIT_S))
    elsewhere = even_light(world.render(2.0 + VISIT_S))
    assert np.abs(first - again).mean() < 0.02
    assert np.abs(first - elsewhere).mean() > 0.05


def test_the_picture_moves_but_does_not_jump():
    world = PatrolWorld(seed=6)
    pictures = [even_light(world.render(seconds)) for seconds in np.arange(0, 4, 0.05)]
    steps = [np.abs(now - then).mean() for then, now in pairwise(pictures)]
    into_next_room = np.abs(even_light(world.render(5.99)) - even_light(world.render(6.01))).mean()
    assert max(steps) < into_next_room / 2
    assert np.abs(pictures[20] - pictures[40]).mean() > 0.03


@pytest.mark.parametrize('size', [75, 300])
def test_other_sizes_show_the_same_view(size):
    reference, world = PatrolWorld(seed=7, rooms=1), PatrolWorld(seed=7, rooms=1, size=size)
    picture = world.render(1.5)
    assert picture.shape == (size, size, 3)
    assert picture.dtype == np.uint8
    shrunk = [
        cv2.resize(view, (32, 32), interpolation=cv2.INTER_AREA).astype(int)
        for view in (picture, reference.render(1.5))
    ]
    assert np.abs(shrunk[0] - shrunk[1]).mean() < 5
    assert world.describe(1.5) == reference.describe(1.5)


@pytest.mark.parametrize('rooms', [0, 7])
def test_too_few_or_too_many_rooms_are_refused(rooms):
    with pytest.raises(ValueError, match=f'1 to 6 rooms, not {rooms}'):
        PatrolWorld(rooms=rooms)


def test_a_tiny_picture_is_refused():
    with pytest.raises(ValueError, match='at least 16 pixels'):
        PatrolWorld(size=8)
