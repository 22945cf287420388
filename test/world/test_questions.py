"""Questions about a patrol have the answers that the truth about its frames gives."""

import numpy as np
import pytest
from views import answers, asked, fill, shows, watched, words_of

from infinitevl_ros.world.questions import THINGS, ask
from infinitevl_ros.world.scene import COLOURS
from infinitevl_ros.world.wordings import MEMORY, PRESENT, WORDINGS

BALL_THEN_CUP = [
    *2 * [shows('kitchen', 'red ball left', sign=42)],
    *5 * [shows('kitchen', light=False)],
    *3 * [shows('office', 'blue cup right', sign=17, person=True)],
]
EVERYTHING = watched(
    *BALL_THEN_CUP, shows('office', 'blue cup right', 'red box left', door=True, sign=17)
)


def test_where_is_the_room_that_had_the_thing():
    observer = watched(*BALL_THEN_CUP)
    assert asked(observer, 'where') == {
        ('Which room was the red ball in?', 'kitchen', 8),
        ('Which room was the blue cup in?', 'office', 0),
    }


def test_where_is_not_asked_of_a_thing_that_was_glimpsed_or_in_view_for_one_frame():
    glimpses = 3 * [shows('kitchen', partly=['red ball'])]
    moment = shows('kitchen', 'blue cup left')
    assert asked(watched(*glimpses, moment), 'where') == set()
    twice = watched(*glimpses, moment, *glimpses, moment, shows('kitchen'))
    assert asked(twice, 'where') == {('Which room was the blue cup in?', 'kitchen', 1)}


def test_old_things_are_asked_for_as_often_as_the_many_recent_ones():
    recent = [f'{colour} {kind} left' for kind in ('cup', 'box') for colour in COLOURS]
    views = [*2 * [shows('kitchen', 'red ball left')], *60 * [shows('hall', *recent)]]
    observer, rng = watched(*views), np.random.default_rng(0)
    old = sum(ask(observer, rng, 'where').answer == 'kitchen' for _ in range(400))
    assert 150 < old < 250


def test_seen_is_yes_for_what_was_in_view_and_no_for_what_never_was():
    observer = watched(*BALL_THEN_CUP)
    questions = asked(observer, 'seen', tries=1500)
    yes = {question for question in questions if question[1] == 'yes'}
    assert yes == {
        ('Did you ever see a red ball?', 'yes', 8),
        ('Did you ever see a blue cup?', 'yes', 0),
    }
    never = set(THINGS) - {'red ball', 'blue cup'}
    never = {f'an {name}' if name.startswith('orange') else f'a {name}' for name in never}
    assert questions - yes == {(f'Did you ever see {name}?', 'no', None) for name in never}


def test_nobody_asks_whether_a_thing_was_seen_that_was_only_glimpsed_or_for_one_frame():
    observer = watched(shows('kitchen', 'red ball left', partly=['blue cup']), shows('kitchen'))
    questions = asked(observer, 'seen', tries=1500)
    asked_for = {words_of(text, 'seen')['thing'] for text, _, _ in questions}
    assert asked_for == set(THINGS) - {'red ball', 'blue cup'}


def test_yes_and_no_are_about_as_frequent():
    observer, rng = watched(*BALL_THEN_CUP), np.random.default_rng(0)
    yes = sum(ask(observer, rng, 'seen').answer == 'yes' for _ in range(400))
    assert 150 < yes < 250


@pytest.mark.parametrize(('kind', 'answer'), [('first', 'red ball'), ('last', 'blue cup')])
def test_of_two_things_it_is_asked_which_came_first_or_last(kind, answer):
    questions = asked(watched(*BALL_THEN_CUP), kind)
    order = f'What was {kind}, the {{}} or the {{}}?'
    both = order.format('red ball', 'blue cup'), order.format('blue cup', 'red ball')
    assert questions == {(text, answer, 8) for text in both}


def test_first_and_last_are_about_different_frames_of_the_same_things():
    ball, cup = shows('kitchen', 'red ball left'), shows('office', 'blue cup left')
    observer = watched(*6 * [ball], *6 * [cup], *6 * [ball], shows('hall'))
    assert answers(observer, 'first') == {('red ball', 7)}
    assert answers(observer, 'last') == {('red ball', 7)}
    for frame in range(6):
        observer.see(cup, frame == 0)
    assert answers(observer, 'first') == {('red ball', 7)}
    assert answers(observer, 'last') == {('blue cup', 7)}


@pytest.mark.parametrize('kind', ['first', 'last'])
def test_no_order_is_asked_of_what_came_close_together_or_is_in_one_room(kind):
    ball, cup = (
        2 * [shows(*each)] for each in (('hall', 'red ball left'), ('office', 'blue cup left'))
    )
    assert answers(watched(*ball, *2 * [shows('hall')], *cup), kind) == set()
    assert answers(watched(*ball, *3 * [shows('hall')], *cup), kind) != set()
    same = 2 * [shows('hall', 'blue cup left')]
    assert answers(watched(*ball, *9 * [shows('hall')], *same), kind) == set()


@pytest.mark.parametrize('kind', ['first', 'last'])
def test_no_order_is_asked_of_what_was_glimpsed_or_in_view_for_one_frame(kind):
    ball = 2 * [shows('hall', 'red ball left')]
    once = shows('office', 'blue cup left')
    away = 9 * [shows('office', partly=['green box'])]
    assert answers(watched(*ball, *away, once), kind) == set()
    assert answers(watched(*ball, *away, once, once), kind) != set()


def test_which_came_first_is_not_asked_when_a_glimpse_makes_it_doubtful():
    views = [
        *2 * [shows('hall', partly=['red ball'])],
        *8 * [shows('office', 'blue cup left')],
        *2 * [shows('hall', 'red ball left')],
    ]
    assert answers(watched(*views), 'first') == set()


def test_which_came_last_is_not_asked_when_a_glimpse_makes_it_doubtful():
    views = [
        *2 * [shows('hall', 'red ball left')],
        *8 * [shows('office', 'blue cup left')],
        *8 * [shows('hall', partly=['red ball'])],
    ]
    assert answers(watched(*views), 'last') == set()


def test_the_first_room_is_the_one_the_patrol_began_in():
    observer = watched(*BALL_THEN_CUP, shows('hall'))
    assert asked(observer, 'first room') == {('What room did you see first?', 'kitchen', 4)}
    observer.see(shows('kitchen'), True)
    assert answers(observer, 'first room') == {('kitchen', 0)}


def test_the_room_before_is_the_one_that_was_left_for_this_one():
    assert asked(watched(*2 * [shows('hall')]), 'room before') == set()
    observer = watched(*BALL_THEN_CUP)
    text = 'What room came before this one?'
    assert asked(observer, 'room before') == {(text, 'kitchen', 3)}
    observer.see(shows('hall'), True)
    assert asked(observer, 'room before') == {(text, 'office', 1)}
    observer.see(shows('kitchen'), True)
    observer.see(shows('kitchen'))
    assert asked(observer, 'room before') == {(text, 'hall', 2)}


def test_a_room_entered_anew_from_itself_is_not_its_room_before():
    observer = watched(shows('hall'), shows('office'), shows('office'))
    observer.see(shows('office'), True)
    assert answers(observer, 'room before') == {('hall', 3)}


def test_rooms_are_counted_once_each():
    observer = watched(*BALL_THEN_CUP)
    assert asked(observer, 'rooms') == {('How many rooms did you see so far?', '2', 3)}
    observer.see(shows('kitchen'), True)
    assert answers(observer, 'rooms') == {('2', 1)}
    observer.see(shows('hall'), True)
    assert answers(observer, 'rooms') == {('3', 2)}


def test_light_then_is_how_it_was_when_another_room_was_seen_last():
    observer = watched(*BALL_THEN_CUP)
    text = 'Was the light in the kitchen on then?'
    assert asked(observer, 'light then') == {(text, 'no', 3)}
    for view in (shows('kitchen', light=True), shows('hall'), shows('hall')):
        observer.see(view, observer.view.room != view.room)
    assert asked(observer, 'light then') == {
        (text, 'yes', 2),
        ('Was the light in the office on then?', 'yes', 3),
    }
    assert asked(watched(*3 * [shows('hall')]), 'light then') == set()


def test_sign_then_is_the_number_of_any_room_whose_sign_was_read():
    observer = watched(*BALL_THEN_CUP, shows('office'), shows('hall'))
    assert asked(observer, 'sign then') == {
        ('In the kitchen, which number was on the sign?', '42', 10),
        ('In the office, which number was on the sign?', '17', 2),
    }
    assert asked(watched(shows('hall'), shows('office')), 'sign then') == set()


def test_person_then_is_the_room_where_a_person_was_seen_last():
    observer = watched(*BALL_THEN_CUP, shows('hall'))
    told = {('In what room did you last see a person?', 'office', 1)}
    assert asked(observer, 'person then') == told
    for view in (*2 * [shows('kitchen', person=True)], *4 * [shows('hall')]):
        observer.see(view, observer.view.room != view.room)
    assert answers(observer, 'person then') == {('kitchen', 4)}
    assert asked(watched(shows('hall', person=None), shows('hall')), 'person then') == set()


def test_where_a_person_was_last_is_not_asked_when_a_glimpse_makes_it_doubtful():
    views = [*3 * [shows('hall', person=True)], *3 * [shows('office', person=None)]]
    assert asked(watched(*views, shows('kitchen')), 'person then') == set()


def test_where_a_person_was_last_is_not_asked_of_one_who_was_in_view_for_one_frame():
    moment, away = shows('hall', person=True), 3 * [shows('office')]
    assert asked(watched(moment, *away), 'person then') == set()
    assert answers(watched(moment, moment, *away), 'person then') == {('hall', 3)}


def test_the_view_is_told_with_room_number_and_things():
    view = shows('hall', 'red ball left', 'blue cup ahead', 'green box right', sign=42)
    told = 'the hall, number 42, a red ball on the left, a blue cup straight ahead, '
    assert asked(watched(view), 'view') == {
        (WORDINGS['view'][-1], told + 'a green box on the right', 0)
    }
    assert answers(watched(shows('office')), 'view') == {('the office', 0)}


@pytest.mark.parametrize('kind', ['view', 'what'])
def test_sides_are_not_told_when_one_is_unsure_or_something_is_partly_in_view(kind):
    assert asked(watched(shows('hall', 'red ball left', 'blue cup right?')), kind) == set()
    assert asked(watched(shows('hall', 'red ball left', partly=['blue cup'])), kind) == set()
    assert asked(watched(shows('hall', 'red ball left', 'blue cup right')), kind) != set()


def test_the_room_is_the_one_in_view():
    assert asked(watched(*BALL_THEN_CUP), 'room') == {('Which room are you in?', 'office', 0)}


def test_a_side_is_asked_of_each_thing_whose_side_is_sure():
    view = shows('hall', 'red ball left', 'blue cup ahead', 'green box right?', partly=['red cup'])
    assert asked(watched(view), 'side') == {
        ('On which side do you see the red ball now?', 'left', 0),
        ('On which side do you see the blue cup now?', 'ahead', 0),
    }
    assert asked(watched(shows('hall', 'red ball left?')), 'side') == set()


def test_a_colour_is_asked_of_each_thing_in_view():
    view = shows('hall', 'red ball left', 'blue cup right?')
    assert asked(watched(view), 'colour') == {
        ('What is the colour of the ball now?', 'red', 0),
        ('What is the colour of the cup now?', 'blue', 0),
    }
    assert asked(watched(shows('hall', 'red ball left', partly=['blue cup'])), 'colour') == set()
    assert asked(watched(shows('hall')), 'colour') == set()


def test_what_is_all_that_is_on_a_side_or_nothing():
    view = shows('hall', 'red ball left', 'blue cup left', 'green box right')
    assert asked(watched(view), 'what', tries=200) == {
        ('Tell me what you see on the left.', 'a red ball and a blue cup', 0),
        ('Tell me what you see straight ahead.', 'nothing', 0),
        ('Tell me what you see on the right.', 'a green box', 0),
    }
    assert answers(watched(shows('hall')), 'what') == {('nothing', 0)}


def test_the_count_is_of_the_things_in_view_unless_one_is_only_partly():
    text = 'How many objects can you see?'
    view = shows('hall', 'red ball left', 'blue cup right?')
    assert asked(watched(view), 'count') == {(text, '2', 0)}
    assert asked(watched(view, shows('hall')), 'count') == {(text, '0', 0)}
    assert asked(watched(shows('hall', 'red ball left', partly=['red cup'])), 'count') == set()


def test_the_sign_is_asked_for_only_when_it_can_be_read():
    text = 'What number do you see on the sign now?'
    assert asked(watched(shows('hall', sign=73)), 'sign') == {(text, '73', 0)}
    assert asked(watched(shows('hall', sign=73), shows('hall')), 'sign') == set()


@pytest.mark.parametrize(('on', 'answer'), [(True, 'yes'), (False, 'no')])
def test_light_door_and_person_are_told_as_they_are_now(on, answer):
    observer = watched(
        shows('hall', light=not on, door=not on, person=not on),
        shows('hall', light=on, door=on, person=on),
    )
    assert asked(observer, 'light') == {('Is the light in this room on?', answer, 0)}
    assert asked(observer, 'door') == {('Is the door in this room open?', answer, 0)}
    assert asked(observer, 'person') == {('Is a person in view now?', answer, 0)}


@pytest.mark.parametrize('kind', ['door', 'person'])
def test_what_cannot_be_told_of_a_door_or_a_person_is_not_asked(kind):
    observer = watched(shows('hall', door=True, person=True), shows('hall', person=None))
    assert asked(observer, kind) == set()


def test_memory_present_and_captions_are_all_kinds():
    assert sorted([*MEMORY, *PRESENT, 'caption']) == sorted(WORDINGS)


def test_no_wording_is_used_twice():
    every = [wording for wordings in WORDINGS.values() for wording in wordings]
    assert len(set(every)) == len(every)


@pytest.mark.parametrize('kind', WORDINGS)
def test_the_last_wording_is_for_held_out_questions_only(kind):
    def used(held_out):
        rngs = map(np.random.default_rng, range(100))
        texts = [ask(EVERYTHING, rng, kind, held_out).text for rng in rngs]
        return {w for w in WORDINGS[kind] for text in texts if fill(text, w) is not None}

    *others, last = WORDINGS[kind]
    assert used(held_out=True) == {last}
    assert used(held_out=False) == set(others)


@pytest.mark.parametrize('kind', WORDINGS)
def test_every_wording_of_a_question_has_all_its_blanks_filled(kind):
    for seed in range(100):
        for held_out in (False, True):
            text = ask(EVERYTHING, np.random.default_rng(seed), kind, held_out).text
            assert words_of(text, kind) is not None, text
            assert text[-1] in '?.'


def test_the_same_rng_asks_the_same():
    for kind in WORDINGS:
        one, other = (ask(EVERYTHING, np.random.default_rng(7), kind) for _ in range(2))
        assert one == other
