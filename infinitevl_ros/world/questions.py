"""Questions about a patrol with their exact answers, from what a perfect observer would remember.

An Observer is told the truth about every frame in order; `ask` then makes up a question of a kind
that can be answered without doubt at this moment.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from .scene import COLOURS, KINDS, View
from .wordings import WORDINGS

SIDES = {'left': 'on the left', 'ahead': 'straight ahead', 'right': 'on the right'}
CLOSE = 4  # frames: what came this close together is not asked for its order
SHORTEST = 2  # frames that something is in view before it counts as seen
THINGS = tuple(f'{colour} {kind}' for kind in KINDS for colour in COLOURS)


def with_article(name: str) -> str:
    """'a red ball', 'an orange cup'."""
    return f'an {name}' if name[0] in 'aeiou' else f'a {name}'


@dataclass(frozen=True)
class Question:
    """A question, its answer, and how many frames ago the newest evidence for it was in view.

    `age` is 0 for what is in view, None where nothing was ever there ('seen' answered by no);
    `things` are those that it names.
    """

    kind: str
    text: str
    answer: str
    age: int | None = 0
    things: tuple[str, ...] = ()


@dataclass
class _Track:
    """When something was in view: its room, and the first and newest of its frames."""

    room: str
    first: int
    last: int
    frames: int = 1

    def extend(self, frame: int) -> None:
        self.last = frame
        self.frames += 1


@dataclass
class _RoomTrack:
    """The room when it was last seen: frames in it, its light, and what its sign said when."""

    first: int
    last: int
    light: bool = True
    sign: tuple[int, int] | None = None


@dataclass
class Observer:
    """Remembers all of a patrol. `frame` is the number of the newest frame, from 0."""

    frame: int = -1
    view: View | None = None
    event: str = ''
    event_things: tuple[str, ...] = ()
    event_frame: int = 0
    things: dict[str, _Track] = field(default_factory=dict)
    glimpses: dict[str, _Track] = field(default_factory=dict)
    rooms: dict[str, _RoomTrack] = field(default_factory=dict)
    previous_room: str = ''
    previous_room_frame: int = 0
    person: _Track | None = None
    person_glimpse: _Track | None = None
    person_here: bool = False

    def see(self, view: View, enters: bool = False) -> None:
        """Take in the truth about the next frame; `enters` when a visit begins with it."""
        self.frame += 1
        before, self.view = self.view, view
        enters |= before is None
        if enters and before is not None and before.room != view.room:
            self.previous_room, self.previous_room_frame = before.room, self.frame - 1
        self._note_event(None if enters else before, view)
        room = self.rooms.setdefault(view.room, _RoomTrack(self.frame, self.frame))
        room.last, room.light = self.frame, view.light
        if view.sign is not None:
            room.sign = view.sign, self.frame
        if view.person:
            if self.person is None or self.person.room != view.room:
                self.person = _Track(view.room, self.frame, self.frame, 0)
            self.person.extend(self.frame)
        elif view.person is None:
            self.person_glimpse = _Track(view.room, self.frame, self.frame)
        in_view = (seen.name for seen in view.objects)
        for tracks, names in ((self.things, in_view), (self.glimpses, view.partly)):
            for name in names:
                track = tracks.setdefault(name, _Track(view.room, self.frame, self.frame, 0))
                track.extend(self.frame)

    def with_glimpses(self, name: str) -> _Track:
        """When a thing was in view at least partly."""
        track, glimpse = self.things[name], self.glimpses.get(name)
        if glimpse is None:
            return track
        first, last = min(track.first, glimpse.first), max(track.last, glimpse.last)
        return _Track(track.room, first, last)

    def _note_event(self, before: View | None, view: View) -> None:
        names = tuple(seen.name for seen in view.objects)
        if before is None:
            event, things = f'entered the {view.room}', names
            self.person_here = bool(view.person)
        else:
            known = {seen.name for seen in before.objects}
            things, changes = tuple(name for name in names if name not in known), []
            if before.light != view.light:
                changes.append(f'the light went {"on" if view.light else "off"}')
            if view.person not in (None, self.person_here):
                changes.append(f'a person {"came into" if view.person else "went out of"} view')
            event = ' and '.join(changes)
        if view.person is not None:
            self.person_here = view.person
        if things:
            listed = ' and '.join(map(with_article, things))
            event = f'{event}, {listed} in view' if event else f'{listed} came into view'
        if event:
            self.event, self.event_things, self.event_frame = event, things, self.frame


def ask(
    observer: Observer, rng: np.random.Generator, kind: str, held_out: bool = False
) -> Question | None:
    """A question of a kind of WORDINGS; None when there is none to ask at this moment."""
    found = None if observer.view is None else _ASK[kind](observer, rng)
    if found is None:
        return None
    answer, age, words = found
    *wordings, last = WORDINGS[kind]
    text = last if held_out else wordings[rng.integers(len(wordings))]
    things = tuple(words[name] for name in ('thing', 'other') if name in words)
    if things:
        words = {**words, 'a_thing': with_article(things[0])}
    return Question(kind, text.format(**words), answer, age, things)


Found = tuple[str, int | None, dict[str, str]] | None


def _caption(o: Observer, rng: np.random.Generator) -> Found:
    if o.view.partly or o.view.person is None:
        return None
    return o.event, o.frame - o.event_frame, {}


def _view(o: Observer, rng: np.random.Generator) -> Found:
    if o.view.partly or not all(seen.sure for seen in o.view.objects):
        return None
    listed = [f'{with_article(seen.name)} {SIDES[seen.side]}' for seen in o.view.objects]
    parts = [f'the {o.view.room}', *listed]
    if o.view.sign is not None:
        parts.insert(1, f'number {o.view.sign}')
    return ', '.join(parts), 0, {}


def _room(o: Observer, rng: np.random.Generator) -> Found:
    return o.view.room, 0, {}


def _side(o: Observer, rng: np.random.Generator) -> Found:
    seen = _pick(rng, [seen for seen in o.view.objects if seen.sure])
    return seen and (seen.side, 0, {'thing': seen.name})


def _colour(o: Observer, rng: np.random.Generator) -> Found:
    seen = _pick(rng, o.view.objects) if not o.view.partly else None
    return seen and (seen.colour, 0, {'kind': seen.kind})


def _what(o: Observer, rng: np.random.Generator) -> Found:
    if o.view.partly or not all(seen.sure for seen in o.view.objects):
        return None
    sides = [seen.side for seen in o.view.objects]
    side = _pick(rng, sides) if sides and rng.random() < 0.8 else _pick(rng, list(SIDES))
    there = [with_article(seen.name) for seen in o.view.objects if seen.side == side]
    return ' and '.join(there) or 'nothing', 0, {'side': SIDES[side]}


def _count(o: Observer, rng: np.random.Generator) -> Found:
    return (str(len(o.view.objects)), 0, {}) if not o.view.partly else None


def _sign(o: Observer, rng: np.random.Generator) -> Found:
    return None if o.view.sign is None else (str(o.view.sign), 0, {})


def _light(o: Observer, rng: np.random.Generator) -> Found:
    return _yes(o.view.light), 0, {}


def _door(o: Observer, rng: np.random.Generator) -> Found:
    return None if o.view.door_open is None else (_yes(o.view.door_open), 0, {})


def _person(o: Observer, rng: np.random.Generator) -> Found:
    return None if o.view.person is None else (_yes(o.view.person), 0, {})


def _where(o: Observer, rng: np.random.Generator) -> Found:
    name = _pick_old(rng, {name: o.frame - track.last for name, track in _well_seen(o).items()})
    return name and (o.things[name].room, o.frame - o.things[name].last, {'thing': name})


def _seen(o: Observer, rng: np.random.Generator) -> Found:
    if rng.random() < 0.5:
        found = _where(o, rng)
        return found and ('yes', *found[1:])
    never = [name for name in THINGS if name not in o.things and name not in o.glimpses]
    name = _pick(rng, never)
    return name and ('no', None, {'thing': name})


def _first(o: Observer, rng: np.random.Generator) -> Found:
    return _order(o, rng, lambda track: -track.first)


def _last(o: Observer, rng: np.random.Generator) -> Found:
    return _order(o, rng, lambda track: track.last)


def _order(o: Observer, rng: np.random.Generator, key: Callable[[_Track], int]) -> Found:
    """Of two things, the one with the larger key; the age is that of the older one's evidence."""
    tracks = _well_seen(o)
    one = _pick_old(rng, {name: o.frame - track.last for name, track in tracks.items()})
    if one is None:
        return None
    others = [
        name
        for name, track in tracks.items()
        if abs(key(track) - key(tracks[one])) > CLOSE and track.room != tracks[one].room
    ]
    two = _pick(rng, others)
    if two is None:
        return None
    answer = max(one, two, key=lambda name: key(tracks[name]))
    # With what was only partly in view the order must be the same.
    if answer != max(one, two, key=lambda name: key(o.with_glimpses(name))):
        return None
    age = o.frame - min(tracks[one].last, tracks[two].last)
    thing, other = (one, two) if rng.random() < 0.5 else (two, one)
    return answer, age, {'thing': thing, 'other': other}


def _first_room(o: Observer, rng: np.random.Generator) -> Found:
    name = min(o.rooms, key=lambda name: o.rooms[name].first)
    return name, o.frame - o.rooms[name].last, {}


def _room_before(o: Observer, rng: np.random.Generator) -> Found:
    if not o.previous_room:
        return None
    return o.previous_room, o.frame - o.previous_room_frame, {}


def _rooms(o: Observer, rng: np.random.Generator) -> Found:
    return str(len(o.rooms)), o.frame - min(room.last for room in o.rooms.values()), {}


def _light_then(o: Observer, rng: np.random.Generator) -> Found:
    name = _other_room(o, rng)
    return name and (_yes(o.rooms[name].light), o.frame - o.rooms[name].last, {'room': name})


def _sign_then(o: Observer, rng: np.random.Generator) -> Found:
    signs = {name: room.sign for name, room in o.rooms.items() if room.sign}
    name = _pick_old(rng, {name: o.frame - sign[1] for name, sign in signs.items()})
    return name and (str(signs[name][0]), o.frame - signs[name][1], {'room': name})


def _person_then(o: Observer, rng: np.random.Generator) -> Found:
    person, glimpse = o.person, o.person_glimpse
    if person is None or person.frames < SHORTEST:
        return None
    if glimpse and glimpse.last > person.last and glimpse.room != person.room:
        return None
    return person.room, o.frame - person.last, {}


_ASK: dict[str, Callable[[Observer, np.random.Generator], Found]] = {
    'caption': _caption,
    'view': _view,
    'room': _room,
    'side': _side,
    'colour': _colour,
    'what': _what,
    'count': _count,
    'sign': _sign,
    'light': _light,
    'door': _door,
    'person': _person,
    'where': _where,
    'seen': _seen,
    'first': _first,
    'last': _last,
    'first room': _first_room,
    'room before': _room_before,
    'rooms': _rooms,
    'light then': _light_then,
    'sign then': _sign_then,
    'person then': _person_then,
}


def _yes(fact: bool) -> str:
    return 'yes' if fact else 'no'


def _well_seen(o: Observer) -> dict[str, _Track]:
    return {name: track for name, track in o.things.items() if track.frames >= SHORTEST}


def _other_room(o: Observer, rng: np.random.Generator) -> str | None:
    rooms = {name: o.frame - room.last for name, room in o.rooms.items() if name != o.view.room}
    return _pick_old(rng, rooms)


def _pick(rng: np.random.Generator, options: list | tuple):
    return options[rng.integers(len(options))] if len(options) else None


def _pick_old(rng: np.random.Generator, ages: dict[str, int]) -> str | None:
    """One of the names, the old ones as often as the many recent ones: even over log age."""
    if not ages:
        return None
    by_age: dict[int, list[str]] = {}
    for name, age in ages.items():
        by_age.setdefault((age // 8).bit_length(), []).append(name)
    return _pick(rng, _pick(rng, list(by_age.values())))
