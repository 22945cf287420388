"""What a picture of a room shows, and that the truth about it says the same."""

from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest
from scenery import (
    BEFORE_THE_SIGN,
    DRIVES,
    ENTRANCE,
    THIRDS,
    changed,
    even_light,
    furnished,
    only_within,
    paint,
    pixels_of,
    third,
)

from infinitevl_ros.world.paint import Painter
from infinitevl_ros.world.patrol import Patrol, Visit, furnish, plan
from infinitevl_ros.world.scene import (
    COLOURS,
    KINDS,
    PLACES,
    ROOMS,
    Camera,
    Moment,
    Room,
    Thing,
    look,
)


@pytest.fixture(scope='module', params=range(3))
def patrol(request):
    rooms = furnish(np.random.default_rng(request.param), 4, 12)
    visits = [Visit(room, 24, swing=1 - 2 * (room % 2)) for room in range(4)]
    return Patrol(rooms, visits, seed=request.param)


@pytest.fixture(scope='module')
def frames(patrol):
    return [(*frame, patrol.rooms[i // 24].things) for i, frame in enumerate(patrol)]


def test_same_seed_gives_the_same_pictures_and_the_same_truth():
    for (one, seen), (other, also_seen) in zip(plan(3, 40), plan(3, 40), strict=True):
        np.testing.assert_array_equal(one, other)
        assert seen == also_seen


def test_another_seed_is_another_world():
    one, other = plan(1, 1), plan(2, 1)
    assert one.rooms != other.rooms
    first, second = (even_light(next(iter(world))[0]) for world in (one, other))
    assert np.abs(first - second).mean() > 0.05


def test_what_is_described_is_there(frames):
    checked = 0
    for picture, view, _ in frames:
        for thing in (thing for thing in view.objects if thing.sure):
            mask = pixels_of(picture, thing.colour)
            assert third(mask, thing.side).sum() > 35, (view, thing)
            checked += 1
    assert checked > 60


def test_a_thing_takes_most_room_in_the_third_it_is_said_to_be_in():
    checked = 0
    for place in PLACES:
        room = Room('garage', 42, (Thing('ball', 'red', *place),))
        painter = Painter(room)
        for moment in DRIVES:
            picture = painter.picture(replace(moment, turning=0.0), np.random.default_rng(0))
            for seen in look(room, moment).objects:
                if seen.sure:
                    mask = pixels_of(picture, 'red')
                    assert seen.side == max(THIRDS, key=lambda side: third(mask, side).sum())
                    checked += 1
    assert checked > 60


def test_no_thing_at_the_side_has_its_colour_at_the_other_side(frames):
    opposite = {'left': 'right', 'right': 'left'}
    checked = 0
    for picture, view, _ in frames:
        for thing in view.objects:
            if thing.side in opposite and thing.colour != 'green':  # a plant's leaves are green
                mask = pixels_of(picture, thing.colour)
                assert third(mask, opposite[thing.side]).sum() < 20, (view, thing)
                checked += 1
    assert checked > 40


def test_no_picture_has_a_colour_that_nothing_in_the_room_has(frames):
    for picture, view, things in frames:
        present = {thing.colour for thing in things}
        present |= {'green'} if any(thing.kind == 'plant' for thing in things) else set()
        for colour in COLOURS.keys() - present:
            assert pixels_of(picture, colour).sum() < 10, (view, colour)


@pytest.mark.parametrize('name', ROOMS)
def test_no_bare_room_has_a_colour_that_things_have(name):
    painter = Painter(Room(name, 42, ()))
    for moment in DRIVES[::6]:
        for is_open in (False, True):
            moment = replace(moment, door_open=is_open, person=True)
            picture = painter.picture(moment, np.random.default_rng(0))
            for colour in COLOURS:
                assert pixels_of(picture, colour).sum() < 10, (moment, colour)


def test_a_visit_shows_all_things_of_the_room_and_at_different_sides(patrol):
    sides = set()
    for one, room in zip(patrol.visits, patrol.rooms, strict=True):
        seen = [thing for view in patrol.views(one) for thing in view.objects]
        assert {thing.name for thing in seen} == {thing.name for thing in room.things}
        sides |= {thing.side for thing in seen}
    assert sides == set(THIRDS)


def test_a_visit_shows_the_sign_and_the_door(patrol):
    for one, room in zip(patrol.visits, patrol.rooms, strict=True):
        views = patrol.views(one)
        assert {view.sign for view in views} == {None, room.sign}
        assert False in {view.door_open for view in views}


def test_objects_are_told_from_left_to_right(patrol):
    for one in patrol.visits:
        for view in patrol.views(one):
            sides = [THIRDS.index(thing.side) for thing in view.objects]
            assert sides == sorted(sides)


def test_a_thing_near_the_border_of_a_third_is_not_sure():
    room = Room('garage', 42, (Thing('ball', 'red', 0.0, 4.0),))
    yaws = np.linspace(-0.4, 0.4, 161)
    seen = [look(room, Moment(Camera(0.0, 0.0, yaw))).objects[0] for yaw in yaws]
    for before, after in pairwise(seen):
        assert before.side == after.side or not (before.sure or after.sure)
    assert [side for side in THIRDS if any(s.sure and s.side == side for s in seen)] == [*THIRDS]


@pytest.mark.parametrize('kind', KINDS)
def test_what_is_neither_an_object_nor_partly_there_is_not_in_the_picture(kind):
    out_of_sight = 0
    for place in PLACES:
        room = Room('garage', 42, (Thing(kind, 'red', *place),))
        painter = Painter(room)
        for moment in DRIVES:
            view = look(room, moment)
            if not view.objects and not view.partly:
                moment = replace(moment, turning=0.0)
                picture = painter.picture(moment, np.random.default_rng(0))
                mask = pixels_of(picture, 'red') | pixels_of(picture, 'green')  # a plant's leaves
                assert not mask.any(), (place, moment.camera, mask.sum())
                out_of_sight += 1
    assert out_of_sight > 20


def test_what_only_reaches_into_the_picture_is_partly_there():
    room = furnished('red ball')
    yaws = np.linspace(0, 0.5, 51)
    views = [look(room, Moment(Camera(0.0, 0.0, yaw))) for yaw in yaws]
    told = [(len(view.objects), len(view.partly)) for view in views]
    assert sorted(told, reverse=True) == told
    assert set(told) == {(1, 0), (0, 1), (0, 0)}
    view = next(view for view in views if view.partly)
    assert view.partly == ('red ball',)
    moment = Moment(Camera(0.0, 0.0, float(yaws[told.index((0, 1))])), noise=0)
    mask = pixels_of(paint(room, moment), 'red')
    assert mask[:, :20].sum() > 20
    assert not mask[:, 20:].any()


def test_a_thing_behind_the_camera_is_not_seen():
    room = furnished('red ball')
    view = look(room, Moment(Camera(-1.6, 3.5, 0.0)))
    assert (view.objects, view.partly) == ((), ())


def test_without_light_the_picture_is_dark_and_the_truth_the_same(patrol):
    room = patrol.rooms[0]
    for moment in DRIVES[:24:4]:
        dark = replace(moment, light=False)
        assert look(room, dark) == replace(look(room, moment), light=False)
        assert look(room, moment).light
        assert paint(room, dark).mean() < 0.5 * paint(room, moment).mean()


def test_in_the_dark_things_are_still_to_be_seen():
    dark = replace(ENTRANCE, light=False, noise=2)
    with_things, without = furnished('red ball', 'blue cup', 'green box'), furnished()
    pictures = [paint(room, dark).astype(int) for room in (with_things, without)]
    differ = np.abs(pictures[0] - pictures[1]).max(axis=2) > 20
    for seen in look(with_things, dark).objects:
        assert third(differ, seen.side).sum() > 100


def test_an_open_door_looks_different_from_a_closed_one_where_it_stands():
    shut, ajar = (replace(ENTRANCE, door_open=is_open) for is_open in (False, True))
    room = furnished()
    assert (look(room, shut).door_open, look(room, ajar).door_open) == (False, True)
    mask = changed(paint(room, shut), paint(room, ajar))
    half = 0.72 * 0.6 / 5
    rows = 0.5 - 0.72 * (2.1 - 0.8) / 5, 0.5 + 0.72 * 0.8 / 5
    assert only_within(mask, (0.5 - half, 0.5 + half), rows)
    assert mask.sum() > 300


def test_of_a_door_out_of_the_picture_nothing_is_told():
    for is_open in (False, True):
        away = Moment(Camera(0.0, 2.0, 0.9), door_open=is_open)
        assert look(furnished(), away).door_open is None


def test_whether_the_door_is_open_is_told_only_where_the_picture_tells_it():
    room = furnished()
    painter = Painter(room)
    for moment in DRIVES:
        moments = [replace(moment, door_open=is_open, turning=0.0) for is_open in (False, True)]
        if look(room, moments[0]).door_open is not None:
            pictures = [painter.picture(each, np.random.default_rng(0)) for each in moments]
            assert changed(*pictures).sum() > 150, moment


def test_a_person_changes_the_picture_exactly_where_she_stands():
    nobody, somebody = (replace(ENTRANCE, person=there, noise=3) for there in (False, True))
    room = furnished('red ball')
    assert (look(room, nobody).person, look(room, somebody).person) == (False, True)
    mask = changed(paint(room, nobody), paint(room, somebody))
    middle, half = 0.5 - 0.72 * 0.5 / 4.2, 0.72 * 0.27 / 4.2
    rows = 0.5 - 0.72 * (1.76 - 0.8) / 4.2, 0.5 + 0.72 * 0.8 / 4.2
    assert only_within(mask, (middle - half, middle + half), rows)
    assert mask.sum() > 150


def test_a_person_changes_the_picture_unless_she_is_said_to_be_out_of_it():
    room = furnished('red ball', 'blue cup')
    painter, told = Painter(room), set()
    turned = [Moment(Camera(0.0, 2.5, float(yaw)), noise=0) for yaw in np.linspace(-1, 1, 41)]
    for moment in (*DRIVES[::3], *turned):
        moments = [replace(moment, person=there, turning=0.0) for there in (False, True)]
        pictures = [painter.picture(each, np.random.default_rng(0)) for each in moments]
        assert look(room, moments[0]).person is False
        person = look(room, moments[1]).person
        area = changed(*pictures).sum()
        assert area > 100 if person else person is None or area == 0, (moment, area)
        told.add(person)
    assert told == {True, None, False}


def test_two_signs_that_differ_give_pictures_that_differ_only_there():
    names = 'red ball', 'blue cup'
    one, other = furnished(*names, sign=18), furnished(*names, sign=73)
    assert [look(room, BEFORE_THE_SIGN).sign for room in (one, other)] == [18, 73]
    mask = changed(paint(one, BEFORE_THE_SIGN), paint(other, BEFORE_THE_SIGN))
    columns = [0.5 + 0.72 * x / 3.5 for x in (1.1 - 0.36, 1.1 + 0.36)]
    rows = [0.5 - 0.72 * (y - 0.8) / 3.5 for y in (1.35 + 0.27, 1.35 - 0.27)]
    assert only_within(mask, columns, rows)
    assert mask.sum() > 30


def test_every_two_digits_look_different_wherever_the_sign_can_be_read():
    moment = Moment(Camera(0.0, 1.32, 0.0), noise=0)
    pictures = []
    for digit in range(10):
        room = furnished(sign=10 + digit)
        assert look(room, moment).sign == 10 + digit
        pictures.append(paint(room, moment).astype(int))
    for digit, picture in enumerate(pictures):
        for other in pictures[:digit]:
            assert (np.abs(picture - other) > 40).any(axis=2).sum() >= 3


def test_signs_need_no_font_of_opencv_which_differ_between_its_versions(monkeypatch):
    pictures = [paint(furnished(sign=36), BEFORE_THE_SIGN)]
    for name in ('putText', 'getTextSize'):
        monkeypatch.delattr(cv2, name)
    pictures.append(paint(furnished(sign=36), BEFORE_THE_SIGN))
    assert np.array_equal(*pictures)
    assert (pictures[0] != paint(furnished(sign=63), BEFORE_THE_SIGN)).any()


@pytest.mark.parametrize(
    'moment',
    [
        Moment(Camera(0.0, 1.0, 0.0)),
        Moment(Camera(0.0, 1.5, 0.0), turning=0.2),
        Moment(Camera(0.0, 1.5, 0.0), turning=-0.2),
        Moment(Camera(0.0, 1.5, -0.5)),
        Moment(Camera(0.0, 1.5, 1.0)),
    ],
    ids=['far', 'turns right', 'turns left', 'looks left', 'looks right'],
)
def test_no_sign_is_read_from_far_or_while_turning_or_looking_away(moment):
    assert look(furnished(), moment).sign is None
    assert look(furnished(), BEFORE_THE_SIGN).sign == 42


def test_a_camera_that_turns_fast_blurs():
    room = furnished('red box')
    turned = [replace(BEFORE_THE_SIGN, turning=turning) for turning in (0.0, 0.1, 0.2)]
    pictures = [paint(room, moment).astype(float) for moment in turned]
    sharpness = [np.abs(np.diff(picture, axis=1)).mean() for picture in pictures]
    assert sharpness == sorted(sharpness, reverse=True)
    assert len(set(sharpness)) == 3


def test_exposure_scales_the_picture_and_noise_roughens_it():
    room = furnished()
    plain = paint(room, ENTRANCE).astype(float)
    dim = paint(room, replace(ENTRANCE, exposure=0.5))
    noise = paint(room, replace(ENTRANCE, noise=4.0)) - plain
    assert np.abs(dim - plain / 2).max() <= 1
    assert 3.5 < noise.std() < 4.2
    assert abs(noise.mean()) < 0.5


def test_the_rooms_of_a_patrol_can_be_told_apart_by_their_walls_and_floors():
    assert len(set(ROOMS.values())) == len(ROOMS)
    pictures = [even_light(paint(Room(name, 42, ()), ENTRANCE)) for name in ROOMS]
    for number, picture in enumerate(pictures):
        for other in pictures[:number]:
            assert np.abs(picture - other).mean() > 0.015


def test_a_room_looks_alike_when_it_is_seen_again():
    rooms = furnish(np.random.default_rng(5), 2, 6)
    visits = [
        Visit(room, 3, end=0.1, exposure=light) for room, light in ((0, 1), (1, 1), (0, 0.9))
    ]
    first, elsewhere, again = (
        even_light(next(Patrol(rooms, [one]).frames(0, one))[0]) for one in visits
    )
    assert np.abs(first - again).mean() < 0.02
    assert np.abs(first - elsewhere).mean() > 0.05


def test_the_picture_moves_but_does_not_jump():
    rooms = furnish(np.random.default_rng(6), 2, 6)
    visits = [Visit(0, 96), Visit(1, 96)]
    pictures = [even_light(picture) for picture, _ in Patrol(rooms, visits)]
    steps = [np.abs(now - then).mean() for then, now in pairwise(pictures)]
    into_next_room = steps.pop(95)
    assert max(steps) < into_next_room / 2
    assert np.abs(pictures[24] - pictures[48]).mean() > 0.03


@pytest.mark.parametrize('size', [75, 300])
def test_other_sizes_show_the_same_view(size):
    room = furnished('red ball', 'blue cup', 'green box')
    picture = paint(room, ENTRANCE, size=size)
    assert picture.shape == (size, size, 3)
    assert picture.dtype == np.uint8
    shrunk = [
        cv2.resize(each, (32, 32), interpolation=cv2.INTER_AREA).astype(int)
        for each in (picture, paint(room, ENTRANCE))
    ]
    assert np.abs(shrunk[0] - shrunk[1]).mean() < 5


def test_a_tiny_picture_is_refused():
    with pytest.raises(ValueError, match='at least 16 pixels a side, not 15'):
        Painter(furnished(), size=15)
    assert paint(furnished(), ENTRANCE, size=16).shape == (16, 16, 3)
