"""A robot's patrol through made-up rooms: visits one after another, each frame with its truth."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from .paint import Painter
from .scene import (
    COLOURS,
    DEPTH,
    KINDS,
    NEAREST,
    PLACES,
    ROOMS,
    Camera,
    Moment,
    Room,
    Thing,
    View,
    look,
)


@dataclass(frozen=True)
class Visit:
    """One drive through room number `room`, from its entrance at phase `begin` to phase `end`.

    `swing` is how far it looks around, and to which side first. The light changes at phase
    `light_change`, the person is there between the phases of `person`; None is never.
    """

    room: int
    frames: int
    swing: float = 1.0
    begin: float = 0.0
    end: float = 1.0
    light: bool = True
    light_change: float | None = None
    door_open: bool = False
    person: tuple[float, float] | None = None
    exposure: float = 1.0
    noise: float = 2.0

    def moment(self, index: int) -> Moment:
        """What frame number `index` of the visit shows."""
        step = (self.end - self.begin) / max(1, self.frames - 1)
        phase = self.begin + step * index
        camera = drive(phase, self.swing)
        changed = self.light_change is not None and phase >= self.light_change
        return Moment(
            camera,
            self.light != changed,
            self.door_open,
            self.person is not None and self.person[0] <= phase < self.person[1],
            camera.yaw - drive(phase - step, self.swing).yaw,
            self.exposure * (1 + 0.05 * math.sin(9 * phase)),
            self.noise,
        )


def drive(phase: float, swing: float) -> Camera:
    """Where the robot is at `phase` of a visit, 0 to 1; on its way to the door it looks around."""
    turn, lead = 2 * math.pi, 0.9
    way = phase + 0.85 / turn * (math.sin(turn * phase + lead) - math.sin(lead))
    turned = min(max((phase - 0.08) / 0.57, 0), 1)
    swing = swing * math.sin(turn * turned) * math.sin(math.pi * turned) ** 0.5
    return Camera(x=-0.2 * swing, z=(DEPTH - NEAREST) * way, yaw=-math.radians(24) * swing)


def furnish(
    rng: np.random.Generator, rooms: int | None = None, things: int | None = None
) -> list[Room]:
    """Makes up rooms that differ in name and sign, with things of which there is one each.

    `rooms` (default: 2 to 12) and `things` in all (default: up to four a room, at most 36). In one
    room no kind and no colour comes twice.
    """
    names = rng.permutation(list(ROOMS)).tolist()
    rooms = int(rng.integers(2, len(names) + 1)) if rooms is None else rooms
    if not 1 <= rooms <= len(names):
        raise ValueError(f'a patrol has 1 to {len(names)} rooms, not {rooms}')
    most = min(len(PLACES) * rooms, len(KINDS) * len(COLOURS))
    things = int(rng.integers(min(rooms, 4), most + 1)) if things is None else things
    if not 0 <= things <= most:
        raise ValueError(f'{rooms} rooms have 0 to {most} things, not {things}')
    signs = rng.permutation(range(10, 100)).tolist()
    stands = _spread(rng, names[:rooms], things)
    furnished = []
    for name, sign, chosen in zip(names, signs, stands, strict=False):
        places = rng.permutation(PLACES)[: len(chosen)]
        x, z = (places + rng.uniform(-0.1, 0.1, places.shape)).T.tolist()
        objects = (Thing(*what, *at) for what, *at in zip(chosen, x, z, strict=True))
        furnished.append(Room(name, sign, tuple(objects)))
    return furnished


def _spread(
    rng: np.random.Generator, names: list[str], things: int
) -> list[list[tuple[str, str]]]:
    """Kinds and colours of the things of each room."""
    every = [(kind, colour) for kind in KINDS for colour in COLOURS]
    waiting = [tuple(thing) for thing in rng.permutation(every).tolist()]
    stands: list[list[tuple[str, str]]] = [[] for _ in names]
    while sum(map(len, stands)) < things:
        thing = waiting.pop()
        allowed = [
            stand for name, stand in zip(names, stands, strict=True) if ROOMS[name][0] != thing[1]
        ]
        if not allowed:
            continue
        fitting = [
            stand
            for stand in allowed
            if len(stand) < len(PLACES) and not any(set(thing) & set(other) for other in stand)
        ]
        if not fitting:  # then it takes the place of those that it cannot stand beside
            stand = allowed[rng.integers(len(allowed))]
            away = [other for other in stand if set(thing) & set(other)] or stand[:1]
            stand[:] = [other for other in stand if other not in away]
            for other in away:
                waiting.insert(int(rng.integers(len(waiting) + 1)), other)
            fitting = [stand]
        fitting[rng.integers(len(fitting))].append(thing)
    return stands


def visit(rng: np.random.Generator, room: int, frames: int | None = None) -> Visit:
    """A visit that nobody planned: of any length, sometimes cut short, with anything going on."""

    def maybe(chance: float) -> bool:
        return bool(rng.random() < chance)

    if frames is None:
        frames = int(rng.integers(20, 49) if maybe(0.15) else rng.integers(7, 20))
    whole = maybe(0.6)
    begin = 0.0 if whole else float(rng.uniform(0, 0.3))
    comes = float(rng.uniform(-0.2, 0.7))
    return Visit(
        room,
        frames,
        swing=float(rng.uniform(0.75, 1.1) * rng.choice((-1, 1))),
        begin=begin,
        end=1.0 if whole else float(rng.uniform(begin + 0.35, 1)),
        light=maybe(0.7),
        light_change=float(rng.uniform(0.2, 0.9)) if maybe(0.15) else None,
        door_open=maybe(0.5),
        person=(comes, comes + float(rng.uniform(0.3, 0.8))) if maybe(0.35) else None,
        exposure=float(rng.uniform(0.8, 1.12)),
        noise=float(rng.uniform(1, 5)),
    )


class Route:
    """Which room comes next; rooms drop out for good one after another, except for two.

    So some of what has been seen gets as old as the patrol, which lasts about `frames` frames.
    """

    def __init__(self, rng: np.random.Generator, rooms: int, frames: int):
        self._rng, self._here = rng, -1
        self._leaves = frames * rng.uniform(0.02, 1.6, rooms)
        self._leaves[rng.permutation(rooms)[:2]] = math.inf

    def next(self, frame: int) -> int:
        """The room that is visited from this frame on."""
        rooms = [r for r, end in enumerate(self._leaves) if r != self._here and end >= frame]
        self._here = int(self._rng.choice(rooms or [self._here]))
        return self._here


def plan(
    seed: int, frames: int, rooms: int | None = None, things: int | None = None, size: int = 112
) -> Patrol:
    """A patrol of `frames` frames in which every visit is a new one; see `furnish`."""
    rng = np.random.default_rng(seed)
    furnished = furnish(rng, rooms, things)
    route, visits, filled = Route(rng, len(furnished), frames), [], 0
    while filled < frames:
        one = visit(rng, route.next(filled))
        visits.append(replace(one, frames=min(one.frames, frames - filled)))
        filled += one.frames
    return Patrol(furnished, visits, seed, size)


def story(seed: int, frames: int, size: int = 224) -> Patrol:
    """A patrol of about a dozen visits: through three rooms once, then to and fro among others.

    What was in the first three rooms is long out of sight at the end.
    """
    rng = np.random.default_rng(seed)
    rooms = furnish(rng, 6, 15)
    length = min(45, max(6, frames // 12))
    visits: list[Visit] = []
    while length * len(visits) < frames:
        number = len(visits)
        one = visit(rng, number if number < 3 else 3 + number % 3, length)
        part = min(length, frames - length * number)
        light = bool(rng.random() < 0.8)
        visits.append(
            replace(one, frames=part, begin=0.0, end=part / length, light=light, light_change=None)
        )
    return Patrol(rooms, visits, seed, size)


class Patrol:
    """Visits one after another through furnished rooms, in pictures of `size` x `size` pixels."""

    def __init__(self, rooms: list[Room], visits: list[Visit], seed: int = 0, size: int = 112):
        self.rooms, self.visits = rooms, visits
        self._seed, self._size = seed, size
        self._painters: dict[int, Painter] = {}

    def __len__(self) -> int:
        return sum(visit.frames for visit in self.visits)

    def __iter__(self) -> Iterator[tuple[np.ndarray, View]]:
        """Frame after frame, with the truth about each."""
        for number, one in enumerate(self.visits):
            yield from self.frames(number, one)

    def frames(self, number: int, one: Visit) -> Iterator[tuple[np.ndarray, View]]:
        """The frames of visit `number`; the same whenever they are asked for."""
        rng = np.random.default_rng((self._seed, number))
        painter = self._painters.get(one.room)
        if painter is None:
            painter = self._painters[one.room] = Painter(self.rooms[one.room], self._size)
        for index in range(one.frames):
            moment = one.moment(index)
            yield painter.picture(moment, rng), look(self.rooms[one.room], moment)

    def truth(self) -> Iterator[tuple[View, bool]]:
        """The truth about every frame in order, and whether a visit begins with it."""
        for one in self.visits:
            for index, view in enumerate(self.views(one)):
                yield view, index == 0

    def views(self, one: Visit) -> list[View]:
        """The truth about each frame of a visit, without painting it."""
        return [look(self.rooms[one.room], one.moment(index)) for index in range(one.frames)]
