"""What the demo plans to ask, and every question of whole patrols held to all views."""

import numpy as np
import pytest
from views import words_of

from infinitevl_ros.cli.story import plan_questions
from infinitevl_ros.world.patrol import plan, story
from infinitevl_ros.world.questions import Observer, ask
from infinitevl_ros.world.wordings import MEMORY, WORDINGS


def rederive(kind, words, views):
    """Answer and age of a question of memory, by searching all views there were."""
    now, here = len(views) - 1, views[-1].room

    def frames(holds):
        return [frame for frame, view in enumerate(views) if holds(view)]

    def sights(name):
        return frames(lambda view: name in [f'{o.colour} {o.kind}' for o in view.objects])

    def sure(name):
        found = sights(name)
        assert len(found) >= 2
        assert len({views[frame].room for frame in found}) == 1
        return found

    if kind == 'where':
        last = sure(words['thing'])[-1]
        return views[last].room, now - last
    if kind == 'seen':
        if sights(words['thing']):
            return 'yes', now - sure(words['thing'])[-1]
        assert not frames(lambda view: words['thing'] in view.partly)
        return 'no', None
    if kind in ('first', 'last'):
        ball, cup = sure(words['thing']), sure(words['other'])
        end = 0 if kind == 'first' else -1
        assert abs(ball[end] - cup[end]) > 4
        assert views[ball[0]].room != views[cup[0]].room
        thing_wins = (ball[end] < cup[end]) == (kind == 'first')
        return words['thing' if thing_wins else 'other'], now - min(ball[-1], cup[-1])
    if kind == 'first room':
        first = views[0].room
        return first, now - frames(lambda view: view.room == first)[-1]
    if kind == 'room before':
        last = frames(lambda view: view.room != here)[-1]
        return views[last].room, now - last
    if kind == 'rooms':
        rooms = {view.room for view in views}
        oldest = min(frames(lambda view, room=room: view.room == room)[-1] for room in rooms)
        return str(len(rooms)), now - oldest
    if kind == 'light then':
        assert words['room'] != here
        last = frames(lambda view: view.room == words['room'])[-1]
        return 'yes' if views[last].light else 'no', now - last
    if kind == 'sign then':
        last = frames(lambda view: view.room == words['room'] and view.sign is not None)[-1]
        return str(views[last].sign), now - last
    if kind == 'person then':
        last = frames(lambda view: view.person)[-1]
        return views[last].room, now - last
    assert kind == 'room'
    return here, 0


@pytest.mark.parametrize('seed', range(10))
def test_every_question_of_memory_has_the_answer_that_all_views_give(seed):
    patrol, rng = plan(seed, 160 + 20 * seed), np.random.default_rng(seed)
    observer, views, kinds = Observer(), [], set()
    for one in patrol.visits:
        for index, view in enumerate(patrol.views(one)):
            observer.see(view, index == 0)
            views.append(view)
            if len(views) % 9:
                continue
            for kind in MEMORY:
                question = ask(observer, rng, kind, held_out=rng.random() < 0.5)
                if question is not None:
                    words = words_of(question.text, kind)
                    expected = rederive(kind, words, views)
                    assert (question.answer, question.age) == expected, question
                    kinds.add(kind)
    assert kinds >= set(MEMORY) - {'person then', 'first', 'last'}


def everything_seen(patrol):
    return [view for one in patrol.visits for view in patrol.views(one)]


@pytest.fixture(scope='module', params=range(5))
def told(request):
    """A story and the questions planned about it."""
    patrol = story(request.param, 480)
    return patrol, plan_questions(patrol, request.param)


def kind_of(planned):
    kinds = [kind for kind in WORDINGS if words_of(planned.question, kind) is not None]
    assert len(kinds) == 1, planned
    return kinds[0]


def test_planned_questions_are_all_different():
    for seed in range(12):
        questions = [one.question for one in plan_questions(story(seed, 240), seed)]
        assert len(set(questions)) == len(questions) == 10


def test_no_thing_is_asked_for_twice_in_other_words(told):
    things = [
        words_of(one.question, kind_of(one))['thing']
        for one in told[1]
        if kind_of(one) in ('where', 'seen')
    ]
    assert len(set(things)) == len(things)


def test_the_truth_about_planned_questions_is_what_all_views_give(told):
    patrol, planned = told
    views = everything_seen(patrol)
    for one in planned:
        kind = kind_of(one)
        expected = rederive(kind, words_of(one.question, kind), views[: one.frame])
        assert (one.truth, one.age) == expected, one


def test_questions_are_planned_on_the_way_and_at_the_end(told):
    patrol, planned = told
    asked_for = [kind_of(one) for one in planned]
    assert asked_for[:3] == ['room', 'room before', 'where']
    at_the_end = ['where', 'where', 'seen', 'seen', 'first room', 'sign then', 'light then']
    assert asked_for[3:] == at_the_end
    *way, end = [one.frame for one in planned[:4]]
    assert [frame % 40 for frame in way] == [20, 20, 20]
    assert way == sorted(way)
    assert {one.frame for one in planned[3:]} == {end} == {len(patrol)}


def test_the_demo_asks_for_what_was_never_there_and_then_for_what_was(told):
    truths = [one.truth for one in told[1] if kind_of(one) == 'seen']
    assert truths == ['no', 'yes']


def test_at_the_end_the_demo_asks_where_something_was_that_is_long_out_of_sight(told):
    patrol, planned = told
    ages = [one.age for one in planned if kind_of(one) == 'where' and one.frame == len(patrol)]
    assert max(ages) > 300


def test_planning_again_gives_the_same_questions():
    assert plan_questions(story(3, 480), 5) == plan_questions(story(3, 480), 5)
    assert plan_questions(story(3, 480), 5) != plan_questions(story(3, 480), 6)


def test_a_planned_question_has_the_truth_of_whenever_it_is_asked():
    patrol = story(3, 240)
    first = plan_questions(patrol)[0]
    rooms = [view.room for one in patrol.visits for view in patrol.views(one)]
    assert first.kind == 'room'
    for frame in (1, 20, 21, 100, 240):
        assert first.at(patrol, frame).truth == rooms[frame - 1]
    assert first.at(patrol, first.frame) == first
