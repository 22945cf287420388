"""Captions of a patrol tell what came into view, and what changed."""

from views import answers, asked, shows, watched

from infinitevl_ros.engine.engine import CAPTION_PROMPT
from infinitevl_ros.world.wordings import WORDINGS


def caption(*views):
    questions = asked(watched(*views), 'caption')
    assert {text for text, _, _ in questions} <= {'What has just happened?'}
    assert len(questions) <= 1
    return next(((answer, age) for _, answer, age in questions), None)


def test_a_caption_tells_of_entering_a_room_and_of_what_is_in_view_then():
    assert caption(shows('hall')) == ('entered the hall', 0)
    view = shows('hall', 'red ball left', 'blue cup right')
    entered = 'entered the hall, a red ball and a blue cup in view'
    assert caption(view) == (entered, 0)
    assert caption(shows('office'), view, view, view) == (entered, 2)


def test_a_caption_tells_of_entering_the_same_room_anew():
    observer = watched(*3 * [shows('hall')])
    observer.see(shows('hall', 'red ball left'), True)
    assert answers(observer, 'caption') == {('entered the hall, a red ball in view', 0)}


def test_a_caption_tells_of_things_that_come_into_view_and_not_of_those_that_go():
    ball, cup = 'red ball left', 'blue cup right'
    views = [shows('hall'), shows('hall', ball)]
    assert caption(*views) == ('a red ball came into view', 0)
    views += [shows('hall', ball, cup)]
    assert caption(*views) == ('a blue cup came into view', 0)
    views += 2 * [shows('hall')]
    assert caption(*views) == ('a blue cup came into view', 2)
    views += [shows('hall', ball, cup)]
    assert caption(*views) == ('a red ball and a blue cup came into view', 0)


def test_a_caption_tells_of_the_light():
    views = [shows('hall'), shows('hall', light=False)]
    assert caption(*views) == ('the light went off', 0)
    views += [shows('hall', light=False), shows('hall', 'red ball left')]
    assert caption(*views) == ('the light went on, a red ball in view', 0)
    assert caption(shows('hall'), shows('office', light=False)) == ('entered the office', 0)


def test_a_caption_tells_of_a_person_who_comes_and_goes():
    views = [shows('hall'), shows('hall', person=True), shows('hall', person=True)]
    assert caption(*views) == ('a person came into view', 1)
    views += [shows('hall', 'red ball left')]
    assert caption(*views) == ('a person went out of view, a red ball in view', 0)


def test_a_caption_leaves_out_neither_the_light_nor_a_person_when_both_change_at_once():
    told = caption(shows('hall'), shows('hall', light=False, person=True))
    assert told is None or ('the light went off' in told[0] and 'a person came' in told[0])


def test_a_person_who_is_there_already_does_not_come_into_view():
    views = [shows('office'), *2 * [shows('hall', person=True)]]
    assert caption(*views) == ('entered the hall', 1)
    assert caption(*views, shows('hall')) == ('a person went out of view', 0)
    assert caption(*views, shows('office')) == ('entered the office', 0)


def test_a_person_comes_and_goes_once_though_partly_in_view_between():
    unclear = shows('hall', person=None)
    coming = [shows('hall'), unclear, unclear, shows('hall', person=True)]
    assert caption(*coming) == ('a person came into view', 0)
    staying = [*coming, unclear, shows('hall', person=True)]
    assert caption(*staying) == ('a person came into view', 2)
    assert caption(*staying, unclear, shows('hall')) == ('a person went out of view', 0)


def test_a_person_of_the_room_before_does_not_go_out_of_view_in_this_one():
    views = [*2 * [shows('office', person=True)], shows('hall', person=None), shows('hall')]
    assert caption(*views) == ('entered the hall', 1)
    assert caption(*views[:3], shows('hall', person=True)) == ('a person came into view', 0)


def test_no_caption_is_asked_for_while_something_is_partly_in_view():
    assert caption(shows('hall', 'red ball left', partly=['blue cup'])) is None
    assert caption(shows('hall'), shows('hall', person=None)) is None


def test_the_default_caption_prompt_is_one_that_the_model_is_trained_with():
    assert CAPTION_PROMPT in WORDINGS['caption'][:-1]
