"""Patrols: how rooms are furnished, what happens on a visit, which room comes next."""

import math
from itertools import pairwise

import numpy as np
import pytest

from infinitevl_ros.world.patrol import (
    Patrol,
    Route,
    Visit,
    drive,
    furnish,
    plan,
    story,
    visit,
)
from infinitevl_ros.world.scene import DEPTH, NEAREST, PLACES, ROOMS, WIDTH

SEEDS = range(40)


@pytest.fixture(scope='module', params=range(10))
def rooms(request):
    return furnish(np.random.default_rng(request.param))


def unplanned(count=300, **given):
    rng = np.random.default_rng(0)
    return [visit(rng, room=3, **given) for _ in range(count)]


def moments(one):
    return [one.moment(index) for index in range(one.frames)]


def test_rooms_differ_in_name_and_sign(rooms):
    assert len({room.name for room in rooms}) == len({room.sign for room in rooms}) == len(rooms)
    assert all(room.name in ROOMS and 10 <= room.sign <= 99 for room in rooms)


def test_no_thing_comes_twice_in_a_world(rooms):
    names = [thing.name for room in rooms for thing in room.things]
    assert len(set(names)) == len(names)


def test_no_kind_and_no_colour_comes_twice_in_a_room(rooms):
    for room in rooms:
        assert len({thing.kind for thing in room.things}) == len(room.things)
        assert len({thing.colour for thing in room.things}) == len(room.things)


def test_no_thing_has_the_colour_of_its_wall(rooms):
    for room in rooms:
        assert ROOMS[room.name][0] not in {thing.colour for thing in room.things}


def test_things_stand_near_different_places(rooms):
    for room in rooms:
        near = [
            place
            for thing in room.things
            for place in PLACES
            if abs(thing.x - place[0]) <= 0.1 and abs(thing.z - place[1]) <= 0.1
        ]
        assert len(set(near)) == len(near) == len(room.things)


def test_worlds_have_from_2_rooms_to_all_and_from_few_things_to_many():
    worlds = [furnish(np.random.default_rng(seed)) for seed in range(200)]
    assert {len(world) for world in worlds} == set(range(2, 13))
    things = {sum(len(room.things) for room in world) for world in worlds}
    assert min(things) < 6
    assert 30 < max(things) <= 36


@pytest.mark.parametrize(
    ('rooms', 'things'),
    [(1, 0), (1, 4), (2, 8), (6, 15), (6, 24), (12, 0), (12, 30), (7, 28), (9, 36), (12, 36)],
)
def test_there_are_as_many_rooms_and_things_as_asked_for(rooms, things):
    for seed in SEEDS:
        world = furnish(np.random.default_rng(seed), rooms, things)
        assert len(world) == rooms
        assert sum(len(room.things) for room in world) == things, seed


@pytest.mark.parametrize('rooms', [-1, 0, 13])
def test_too_few_or_too_many_rooms_are_refused(rooms):
    with pytest.raises(ValueError, match=f'1 to 12 rooms, not {rooms}'):
        furnish(np.random.default_rng(0), rooms)


@pytest.mark.parametrize(
    ('rooms', 'things', 'most'), [(1, 5, 4), (3, -1, 12), (3, 13, 12), (12, 37, 36)]
)
def test_too_few_or_too_many_things_are_refused(rooms, things, most):
    with pytest.raises(ValueError, match=f'{rooms} rooms have 0 to {most} things, not {things}'):
        furnish(np.random.default_rng(0), rooms, things)


def test_a_drive_leads_from_the_entrance_to_the_door_without_turning_back():
    cameras = [drive(phase, 1.0) for phase in np.linspace(0, 1, 101)]
    assert (cameras[0].x, cameras[0].z, cameras[0].yaw) == (0, 0, 0)
    assert cameras[-1].z == pytest.approx(DEPTH - NEAREST)
    assert cameras[-1].yaw == pytest.approx(0)
    assert all(now.z > then.z for then, now in pairwise(cameras))
    assert all(abs(camera.x) < WIDTH / 2 for camera in cameras)


def test_on_its_way_the_robot_looks_to_both_sides_first_to_that_of_the_swing():
    right, left = ([drive(phase, s).yaw for phase in np.linspace(0, 1, 101)] for s in (-1, 1))
    assert math.degrees(max(right)) > 15
    assert math.degrees(min(right)) < -15
    assert np.argmax(right) < np.argmin(right)
    np.testing.assert_allclose(right, np.negative(left))


def test_a_visit_begins_and_ends_at_its_phases():
    one = Visit(0, 9, swing=0.9, begin=0.3, end=0.7)
    first, *_, last = moments(one)
    assert first.camera == drive(0.3, 0.9)
    assert (last.camera.x, last.camera.z) == pytest.approx((drive(0.7, 0.9).x, drive(0.7, 0.9).z))


def test_a_visit_may_last_a_single_frame():
    assert Visit(0, 1, begin=0.2).moment(0).camera == drive(0.2, 1.0)


def test_turning_is_how_far_the_camera_has_turned_since_the_frame_before():
    every = moments(Visit(0, 15, swing=-1.1))
    for before, now in pairwise(every):
        assert now.turning == pytest.approx(now.camera.yaw - before.camera.yaw)
    assert max(abs(each.turning) for each in every) > 0.1


@pytest.mark.parametrize('light', [True, False])
def test_the_light_changes_once_at_its_phase_and_else_never(light):
    steady = moments(Visit(0, 11, light=light))
    assert {each.light for each in steady} == {light}
    changing = [each.light for each in moments(Visit(0, 11, light=light, light_change=0.45))]
    assert changing == 5 * [light] + 6 * [not light]


def test_a_person_is_there_between_her_times_and_else_nobody():
    assert not any(each.person for each in moments(Visit(0, 11)))
    there = [each.person for each in moments(Visit(0, 11, person=(0.25, 0.65)))]
    assert there == 3 * [False] + 4 * [True] + 4 * [False]
    assert all(each.person for each in moments(Visit(0, 11, person=(-0.1, 1.1))))


def test_the_door_the_noise_and_about_the_exposure_are_those_of_the_visit():
    for is_open in (False, True):
        for each in moments(Visit(0, 11, door_open=is_open, noise=3.5, exposure=0.8)):
            assert (each.door_open, each.noise) == (is_open, 3.5)
            assert each.exposure == pytest.approx(0.8, rel=0.05)


def test_an_unplanned_visit_is_to_the_room_asked_for_and_as_long_as_asked():
    assert {one.room for one in unplanned()} == {3}
    assert {one.frames for one in unplanned(20, frames=5)} == {5}
    lengths = [one.frames for one in unplanned()]
    assert min(lengths) == 7
    assert 40 < max(lengths) <= 48


def test_an_unplanned_visit_is_sometimes_cut_short_but_never_to_a_glance():
    visits = unplanned()
    assert all(0 <= one.begin < one.end <= 1 for one in visits)
    assert all(one.end - one.begin >= 0.35 for one in visits)
    whole = sum((one.begin, one.end) == (0, 1) for one in visits)
    assert 150 < whole < 220


def test_anything_may_go_on_in_an_unplanned_visit():
    visits = unplanned()
    for happens in (
        lambda one: one.light,
        lambda one: one.door_open,
        lambda one: one.light_change is not None,
        lambda one: one.person is not None,
        lambda one: one.swing > 0,
    ):
        assert 20 < sum(map(happens, visits)) < 280
    assert all(one.person[0] + 0.3 <= one.person[1] for one in visits if one.person)


@pytest.mark.parametrize('seed', range(8))
def test_a_route_never_has_a_room_twice_in_a_row_when_there_are_others(seed):
    for rooms in (2, 3, 7):
        route = Route(np.random.default_rng(seed), rooms, 500)
        rooms_of = [route.next(frame) for frame in range(0, 1000, 10)]
        assert all(now != then for then, now in pairwise(rooms_of))


def test_a_route_through_one_room_stays_there():
    route = Route(np.random.default_rng(0), 1, 100)
    assert [route.next(frame) for frame in (0, 50, 200)] == [0, 0, 0]


@pytest.mark.parametrize('seed', range(6))
def test_rooms_drop_out_for_good_and_two_never_do(seed):
    route = Route(np.random.default_rng(seed), 6, 500)
    open_at = [{route.next(frame) for _ in range(300)} for frame in range(0, 1000, 50)]
    assert len(open_at[0]) > len(open_at[-1]) == 2
    assert all(later <= earlier for earlier, later in pairwise(open_at))


def test_which_rooms_stay_is_left_to_chance():
    stay = set()
    for seed in range(30):
        route = Route(np.random.default_rng(seed), 3, 100)
        stay.add(frozenset(route.next(10**6) for _ in range(4)))
    assert stay == {frozenset(pair) for pair in ((0, 1), (0, 2), (1, 2))}


@pytest.mark.parametrize('frames', [1, 7, 50, 333])
def test_a_plan_has_exactly_the_frames_asked_for(frames):
    for seed in SEEDS:
        patrol = plan(seed, frames)
        assert len(patrol) == sum(one.frames for one in patrol.visits) == frames
        assert all(one.frames > 0 for one in patrol.visits)


def test_iterating_gives_as_many_frames_as_the_patrol_is_long():
    patrol = plan(4, 33, size=32)
    pictures = [picture for picture, _ in patrol]
    assert len(pictures) == len(patrol) == 33
    assert {picture.shape for picture in pictures} == {(32, 32, 3)}


@pytest.mark.parametrize('seed', range(3))
def test_the_same_seed_plans_the_same_patrol(seed):
    one, same, other = plan(seed, 90), plan(seed, 90), plan(seed + 1, 90)
    assert (one.rooms, one.visits) == (same.rooms, same.visits)
    assert one.rooms != other.rooms
    assert one.visits != other.visits


@pytest.mark.parametrize('make', [plan, story])
def test_the_truth_without_pictures_is_that_of_the_pictures(make):
    patrol = make(8, 70, size=16)
    views = [view for one in patrol.visits for view in patrol.views(one)]
    assert views == [view for _, view in patrol]
    assert [view.room for view in views] == [
        patrol.rooms[one.room].name for one in patrol.visits for _ in range(one.frames)
    ]


def test_a_visit_is_painted_the_same_whenever_it_is_asked_for():
    patrol = plan(2, 60, size=32)
    every = [picture for picture, _ in patrol]
    skipped = sum(one.frames for one in patrol.visits[:1])
    again = [picture for picture, _ in patrol.frames(1, patrol.visits[1])]
    np.testing.assert_array_equal(every[skipped : skipped + len(again)], again)


def test_two_visits_to_a_room_that_are_alike_differ_in_their_noise():
    rooms = furnish(np.random.default_rng(0), 1, 2)
    one, other = (picture for picture, _ in Patrol(rooms, 2 * [Visit(0, 1)], size=64))
    assert 0 < np.abs(one.astype(int) - other).mean() < 6


def test_a_plan_has_the_rooms_and_things_asked_for():
    patrol = plan(0, 60, rooms=1, things=3)
    assert [len(room.things) for room in patrol.rooms] == [3]
    assert {one.room for one in patrol.visits} == {0}


@pytest.mark.parametrize('frames', [60, 480, 1000])
def test_a_story_shows_its_first_three_rooms_in_its_first_three_visits_only(frames):
    for seed in SEEDS:
        first, later = story(seed, frames).visits[:3], story(seed, frames).visits[3:]
        assert [one.room for one in first] == [0, 1, 2]
        assert {one.room for one in later} == ({3, 4} if len(later) == 2 else {3, 4, 5})


def test_a_story_never_stays_in_a_room_for_two_visits():
    rooms = [one.room for one in story(0, 900).visits]
    assert all(now != then for then, now in pairwise(rooms))


def test_a_story_tells_about_a_dozen_whole_visits_of_one_length():
    for seed in SEEDS:
        visits = story(seed, 480).visits
        assert len(visits) == 12
        assert {(one.frames, one.begin, one.end) for one in visits} == {(40, 0.0, 1.0)}


@pytest.mark.parametrize('frames', [5, 60, 100, 480, 1000])
def test_a_story_lasts_as_long_as_asked_and_at_most_one_visit_longer(frames):
    patrol = story(1, frames)
    assert frames <= len(patrol) < frames + patrol.visits[0].frames


def test_in_a_story_the_light_of_a_room_stays_as_it_is_during_a_visit():
    lit = {one.light for seed in SEEDS for one in story(seed, 480).visits}
    changes = {one.light_change for seed in SEEDS for one in story(seed, 480).visits}
    assert (lit, changes) == ({True, False}, {None})
