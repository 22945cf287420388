"""Views of rooms written by hand, and what is asked of those who saw them."""

import re

import numpy as np

from infinitevl_ros.world.questions import SIDES, Observer, ask
from infinitevl_ros.world.scene import KINDS, ROOMS, Seen, View
from infinitevl_ros.world.wordings import WORDINGS

WORDS = {
    'thing': '[a-z]+ [a-z]+',
    'a_thing': 'an? [a-z]+ [a-z]+',
    'other': '[a-z]+ [a-z]+',
    'kind': '|'.join(KINDS),
    'room': '|'.join(ROOMS),
    'side': '|'.join(SIDES.values()),
}


def shows(room, *objects, light=True, door=None, sign=None, person=False, partly=()):
    """A view of a room and in it, for example, 'red ball left'; 'red ball left?' is not sure."""
    seen = []
    for each in objects:
        colour, kind, side = each.split()
        seen.append(Seen(kind, colour, side.rstrip('?'), not side.endswith('?')))
    return View(room, light, door, sign, person, tuple(seen), tuple(partly))


def watched(*views):
    """An observer of views, of which each in another room than the one before begins a visit."""
    observer, room = Observer(), None
    for view in views:
        observer.see(view, view.room != room)
        room = view.room
    return observer


def asked(observer, kind, tries=60):
    """All questions of a kind, in the wording held out of training: {(text, answer, age)}."""
    found = [ask(observer, np.random.default_rng(i), kind, held_out=True) for i in range(tries)]
    assert all(question is None or question.kind == kind for question in found)
    return {(each.text, each.answer, each.age) for each in found if each}


def answers(observer, kind):
    return {(answer, age) for _, answer, age in asked(observer, kind)}


def fill(text, wording):
    """What the blanks of a wording are filled with in a text; None if it is another wording."""
    pattern = re.escape(wording)
    for word, shape in WORDS.items():
        pattern = pattern.replace(rf'\{{{word}\}}', f'(?P<{word}>{shape})')
    found = re.fullmatch(pattern, text)
    if found is None:
        return None
    words = found.groupdict()
    if 'a_thing' in words:
        words['thing'] = words['a_thing'].split(' ', 1)[1]
    return words


def words_of(text, kind):
    """What the blanks of a text of a kind are filled with; None if it is of another kind."""
    filled = (fill(text, wording) for wording in WORDINGS[kind])
    return next((words for words in filled if words is not None), None)
