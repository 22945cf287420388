"""The rendered world as training data: worlds whose visits are put together to endless patrols.

Worlds are painted once, as a few hundred frames of visits to all their rooms, and any number of
patrols of any length are then put together from those visits. The scenes themselves are those of
infinitevl_ros.world, which `./dev demo` shows. All of it follows from seeds.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import cv2
import numpy as np

from infinitevl_ros.world.patrol import Patrol, Route, Visit, furnish, visit
from infinitevl_ros.world.questions import Observer, Question, ask
from infinitevl_ros.world.scene import Room, View
from infinitevl_ros.world.wordings import MEMORY, PRESENT

# How often each kind is asked, beside 1 for the others: what is hard to learn, often.
WEIGHTS = {
    'view': 4, 'sign': 6, 'colour': 3, 'what': 2, 'room': 0.4, 'count': 0.6, 'light': 0.3,
    'door': 0.3, 'person': 0.5, 'where': 5, 'seen': 3, 'rooms': 1.5, 'light then': 1.5,
    'sign then': 2, 'first room': 0.5, 'room before': 0.5, 'person then': 0.5,
}  # fmt: skip
CAPTIONS = 0.1
TRIES = 8


@dataclass(frozen=True)
class World:
    """Rooms and some visits to each; `first` are the visits' first frames among all painted."""

    seed: int
    rooms: list[Room]
    visits: list[Visit]
    first: list[int]
    views: list[list[View]]


@functools.lru_cache(maxsize=4096)
def make_world(seed: int, frames: int) -> World:
    """A world with `frames` frames of visits, and the truth about each of them."""
    rng = np.random.default_rng(seed)
    most = min(12, max(2, frames // 16))
    rooms = furnish(rng, rooms=int(rng.integers(2, most + 1)))
    order = rng.permutation(len(rooms)).tolist()
    visits, first, filled = [], [], 0
    while filled < frames:
        room = order[len(visits)] if len(visits) < len(order) else int(rng.integers(len(rooms)))
        left = frames - filled
        one = visit(rng, room)
        if one.frames > left or left - one.frames < 4:
            one = visit(rng, room, left)
        visits.append(one)
        first.append(filled)
        filled += one.frames
    patrol = Patrol(rooms, visits)
    return World(seed, rooms, visits, first, [patrol.views(one) for one in visits])


def paint(world: World, size: int) -> np.ndarray:
    """All frames of a world, uint8 [frames, size, size, 3]."""
    cv2.setNumThreads(1)
    patrol = Patrol(world.rooms, world.visits, world.seed, size)
    return np.stack([picture for picture, _ in patrol])


def wander(world: World, frames: int, rng: np.random.Generator) -> list[int]:
    """Visits, by number, that fill at least `frames` frames."""
    by_room: dict[int, list[int]] = {}
    for number, one in enumerate(world.visits):
        by_room.setdefault(one.room, []).append(number)
    visited = list(by_room.values())
    route, chosen, filled = Route(rng, len(visited), frames), [], 0
    while filled < frames:
        chosen.append(int(rng.choice(visited[route.next(filled)])))
        filled += world.visits[chosen[-1]].frames
    return chosen


def interview(
    world: World,
    chosen: list[int],
    points: np.ndarray,
    memory: float,
    rng: np.random.Generator,
) -> list[Question]:
    """A question at each of `points`, in rising order: how many frames have been seen then.

    `memory` is the part of questions that are about the past.
    """
    observer, questions = Observer(), []
    waiting = iter(points.tolist())
    due = next(waiting)
    for number in chosen:
        for index, view in enumerate(world.views[number]):
            observer.see(view, index == 0)
            while observer.frame + 1 == due:
                questions.append(_question(observer, memory, rng))
                due = next(waiting, None)
            if due is None:
                return questions
    raise ValueError('a question is asked after the last frame')


def _question(observer: Observer, memory: float, rng: np.random.Generator) -> Question:
    for _ in range(TRIES):
        draw = rng.random()
        kinds = ['caption']
        if draw >= CAPTIONS:
            kinds = list(MEMORY if draw < CAPTIONS + (1 - CAPTIONS) * memory else PRESENT)
        weights = np.array([WEIGHTS.get(kind, 1) for kind in kinds], float)
        kind = kinds[rng.choice(len(kinds), p=weights / weights.sum())]
        question = ask(observer, rng, kind)
        if question:
            return question
    return ask(observer, rng, 'room')
