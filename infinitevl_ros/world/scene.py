"""What a patrol robot sees: rooms with coloured things, a sign, a door, a person; and the truth.

Lengths are metres: x to the right and z forward from the
middle of the wall behind the robot as it comes in, y up from the floor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

WIDTH, DEPTH, HEIGHT = 4.8, 5.0, 2.7
EYE = 0.8
FOCAL = 0.72  # focal length in picture widths: 70 degrees from side to side
NEAREST = 2.1  # the camera's least distance from the wall with the door
PERSON = (-0.5, 4.2)  # where a person stands: x, z; beside the middle of the door
# The lines of each digit in a square, from its upper left corner: no two OpenCVs have one font.
DIGITS = (
    [[(0.5, 0), (0.9, 0.12), (1, 0.5), (0.9, 0.88), (0.5, 1), (0.1, 0.88), (0, 0.5), (0.1, 0.12),
      (0.5, 0)]],
    [[(0.1, 0.22), (0.55, 0), (0.55, 1)], [(0.15, 1), (0.95, 1)]],
    [[(0, 0.25), (0.12, 0.06), (0.5, 0), (0.88, 0.08), (0.95, 0.3), (0.8, 0.5), (0, 1), (1, 1)]],
    [[(0, 0.1), (0.4, 0), (0.85, 0.07), (0.95, 0.25), (0.8, 0.44), (0.35, 0.47)],
     [(0.8, 0.44), (1, 0.62), (1, 0.8), (0.8, 0.96), (0.45, 1), (0, 0.9)]],
    [[(0.75, 1), (0.75, 0), (0, 0.7), (1, 0.7)]],
    [[(0.92, 0), (0.12, 0), (0.05, 0.45), (0.5, 0.38), (0.9, 0.5), (1, 0.7), (0.88, 0.92),
      (0.45, 1), (0, 0.88)]],
    [[(0.88, 0.04), (0.5, 0.06), (0.15, 0.3), (0, 0.65), (0.12, 0.92), (0.5, 1), (0.88, 0.92),
      (1, 0.7), (0.85, 0.48), (0.5, 0.42), (0.1, 0.55)]],
    [[(0, 0), (1, 0), (0.4, 1)]],
    [[(0.5, 0.46), (0.12, 0.34), (0.12, 0.12), (0.5, 0), (0.88, 0.12), (0.88, 0.34), (0.5, 0.46),
      (0.03, 0.64), (0.03, 0.87), (0.5, 1), (0.97, 0.87), (0.97, 0.64), (0.5, 0.46)]],
    [[(0.12, 0.96), (0.5, 0.94), (0.85, 0.7), (1, 0.35), (0.88, 0.08), (0.5, 0), (0.12, 0.08),
      (0, 0.3), (0.15, 0.52), (0.5, 0.58), (0.9, 0.45)]],
)  # fmt: skip
SIGN = (1.1, 1.35)  # the middle of the sign beside the door: x, y
READABLE = 3.7  # from this distance on its number can be read
STEADY = 0.1  # radians a frame: a camera that turns faster blurs numbers
PLACES = ((-1.6, 2.75), (-1.2, 3.95), (1.2, 3.95), (1.6, 2.75))  # where things stand: x, z

COLOURS = {
    'red': (208, 38, 38),
    'orange': (238, 112, 14),
    'yellow': (246, 212, 36),
    'green': (38, 150, 62),
    'blue': (34, 88, 208),
    'purple': (132, 54, 176),
}
# Each room has its own pair of wall and floor, by which it is known.
ROOMS = {
    'kitchen': ('yellow', 'checks'),
    'workshop': ('yellow', 'stripes'),
    'office': ('blue', 'planks'),
    'bathroom': ('blue', 'tiles'),
    'bedroom': ('pink', 'planks'),
    'nursery': ('pink', 'stripes'),
    'library': ('green', 'planks'),
    'pantry': ('green', 'checks'),
    'garage': ('grey', 'stripes'),
    'laboratory': ('grey', 'tiles'),
    'studio': ('purple', 'tiles'),
    'hall': ('purple', 'checks'),
}
WALLS = {
    'blue': (172, 197, 222),
    'yellow': (238, 224, 172),
    'green': (180, 209, 180),
    'pink': (232, 192, 196),
    'grey': (190, 192, 195),
    'purple': (203, 190, 222),
}
FLOORS = {  # the colour, and the part of the light that comes back from places x, z
    'checks': ((214, 212, 208), lambda x, z: np.where((x // 0.6 + z // 0.6) % 2, 0.62, 0.98)),
    'planks': ((190, 166, 140), lambda x, z: np.where(x % 0.3 < 0.03, 0.6, 0.9)),
    'tiles': ((196, 206, 206), lambda x, z: 0.9 - 0.3 * ((x % 0.5 < 0.04) | (z % 0.5 < 0.04))),
    'stripes': ((168, 160, 176), lambda x, z: np.where(z % 0.8 < 0.4, 0.72, 0.9)),
}


def arc(x: float, y: float, radius: float, flat: float = 1, start: float = 0) -> np.ndarray:
    """Points [32, 2] of an ellipse, `flat` times as high as wide, from `start` to 360 degrees."""
    angle = np.radians(np.linspace(start, 360, 32))
    return np.stack([x + radius * np.cos(angle), y + flat * radius * np.sin(angle)], 1)


def barrel(bottom: float, top: float, low: float, high: float) -> list:
    """Parts of an upright round body lit from the left: the radii and heights of its two ends."""
    parts = []
    for angle in range(180, 360, 15):
        outline = *arc(0, low, bottom, 0.22, angle), *arc(0, high, top, 0.22, angle)[::-1]
        parts.append((outline, 1.1 - 0.5 * (angle / 180 - 1) ** 2))
    return [*parts, (arc(0, high, top, 0.22), 1.15)]


# A kind is painted in parts, in this order: an outline around x = 0, the middle of the thing, and
# how much light its colour gets there, or a colour of the part's own.
KINDS = {
    'ball': [
        *((arc(-0.013 * s, 0.3 + 0.016 * s, 0.3 - 0.03 * s), 0.6 + 0.06 * s) for s in range(10)),
        (arc(-0.12, 0.44, 0.03), (255, 255, 255)),
    ],
    'box': [
        (((-0.36, 0.04), (0.14, -0.06), (0.14, 0.44), (-0.36, 0.54)), 1),
        (((0.14, -0.06), (0.36, 0.07), (0.36, 0.57), (0.14, 0.44)), 0.68),
        (((-0.36, 0.54), (0.14, 0.44), (0.36, 0.57), (-0.14, 0.65)), 1.2),
    ],
    'cup': [
        ((*arc(0.3, 0.32, 0.17), *arc(0.3, 0.32, 0.1)[::-1]), 0.8),
        *barrel(0.22, 0.3, 0.05, 0.6),
        (arc(0, 0.595, 0.265, 0.2), 0.5),
    ],
    'plant': [
        *(
            (arc(0, 0.35, 0.11, 3.2) @ ((1, 0), (s, 1 - 0.3 * s * s)) + (0, 0.4), (44, g, 52))
            for s, g in ((-1, 150), (1, 150), (-0.5, 130), (0.5, 130), (0, 110))
        ),
        *barrel(0.22, 0.31, 0.05, 0.43),
        (arc(0, 0.43, 0.27, 0.2), (70, 50, 38)),
    ],
    'chair': [
        (((-0.2, 0.12), (-0.14, 0.12), (-0.14, 0.45), (-0.2, 0.45)), 0.5),
        (((0.29, 0.12), (0.35, 0.12), (0.35, 0.45), (0.29, 0.45)), 0.45),
        (((-0.3, 0), (-0.24, 0), (-0.24, 0.4), (-0.3, 0.4)), 0.75),
        (((0.2, 0), (0.26, 0), (0.26, 0.4), (0.2, 0.4)), 0.7),
        (((-0.2, 0.5), (0.35, 0.5), (0.37, 1.12), (-0.18, 1.12)), 0.86),
        (((-0.12, 0.66), (0.28, 0.66), (0.3, 1.02), (-0.1, 1.02)), 1.05),
        (((-0.32, 0.4), (0.27, 0.4), (0.36, 0.53), (-0.22, 0.53)), 1.2),
        (((-0.32, 0.33), (0.27, 0.33), (0.27, 0.4), (-0.32, 0.4)), 0.9),
    ],
    'lamp': [
        (arc(0, 0.03, 0.17, 0.25), (92, 92, 98)),
        (((-0.022, 0.03), (0.022, 0.03), (0.022, 0.9), (-0.022, 0.9)), (70, 70, 76)),
        *barrel(0.34, 0.2, 0.82, 1.24),
        (arc(0, 1.24, 0.15, 0.2), (255, 244, 208)),
    ],
}


HALF_WIDTHS = {
    kind: max(abs(x) for outline, _ in parts for x, _ in outline) for kind, parts in KINDS.items()
}
# Dressed in no colour that a thing has.
FIGURE = [
    (((-0.15, 0), (-0.03, 0), (0, 0.85), (-0.16, 0.85)), (44, 46, 54)),
    (((0.03, 0), (0.15, 0), (0.16, 0.85), (0, 0.85)), (52, 54, 62)),
    (((-0.27, 0.8), (-0.19, 0.8), (-0.14, 1.42), (-0.22, 1.42)), (84, 86, 94)),
    (((0.19, 0.8), (0.27, 0.8), (0.22, 1.42), (0.14, 1.42)), (84, 86, 94)),
    (((-0.17, 0.8), (0.17, 0.8), (0.2, 1.45), (-0.2, 1.45)), (104, 106, 114)),
    (arc(0, 1.6, 0.105, 1.2), (226, 184, 154)),
    (arc(0, 1.63, 0.115, 1)[:17], (58, 42, 34)),
]


@dataclass(frozen=True)
class Thing:
    """One thing in a room and where it stands."""

    kind: str
    colour: str
    x: float
    z: float

    @property
    def name(self) -> str:
        return f'{self.colour} {self.kind}'


@dataclass(frozen=True)
class Room:
    """One room of a patrol; `sign` is the number beside the door that leads out of it."""

    name: str
    sign: int
    things: tuple[Thing, ...]


@dataclass(frozen=True)
class Camera:
    """Where the camera is in a room, and its heading in radians, positive to the right."""

    x: float
    z: float
    yaw: float

    def project(self, x: float, z: float) -> tuple[float, float]:
        """Depth in metres of a place, and its column in the picture (0 left edge, 1 right)."""
        dx, dz = x - self.x, z - self.z
        sin, cos = math.sin(self.yaw), math.cos(self.yaw)
        depth = dx * sin + dz * cos
        return depth, 0.5 + FOCAL * (dx * cos - dz * sin) / max(depth, 1e-3)


@dataclass(frozen=True)
class Moment:
    """All that may change in a room, at one instant; `turning` is the camera's, radians a frame.

    `exposure` scales the picture, `noise` is its standard deviation in steps of 255.
    """

    camera: Camera
    light: bool = True
    door_open: bool = False
    person: bool = False
    turning: float = 0.0
    exposure: float = 1.0
    noise: float = 2.0


@dataclass(frozen=True)
class Seen:
    """One visible thing and the third of the picture its middle is in: left, ahead or right.

    `sure` is false near the border of a third.
    """

    kind: str
    colour: str
    side: str
    sure: bool = True

    @property
    def name(self) -> str:
        return f'{self.colour} {self.kind}'


@dataclass(frozen=True)
class View:
    """What a picture shows; of `door_open`, `sign` and `person`, None is what cannot be told."""

    room: str
    light: bool
    door_open: bool | None
    sign: int | None
    person: bool | None
    objects: tuple[Seen, ...]
    partly: tuple[str, ...] = ()


def look(room: Room, moment: Moment) -> View:
    """The truth about the picture of a moment."""
    camera = moment.camera
    placed = sorted(
        (camera.project(thing.x, thing.z)[1], thing.kind, thing.colour, thing)
        for thing in room.things
    )
    objects, partly = [], []
    for column, _, _, thing in placed:
        visible = _is_visible(*camera.project(thing.x, thing.z), HALF_WIDTHS[thing.kind])
        if visible is None:
            partly.append(thing.name)
        elif visible:
            side = ('left', 'ahead', 'right')[min(2, int(3 * column))]
            border = min(abs(column - 1 / 3), abs(column - 2 / 3))
            objects.append(Seen(thing.kind, thing.colour, side, border > 0.035))
    distance, column = camera.project(SIGN[0], DEPTH)
    readable = distance < READABLE and 0.1 < column < 0.88 and abs(moment.turning) < STEADY
    person = _is_visible(*camera.project(*PERSON), 0.27) if moment.person else False
    door = _is_visible(*camera.project(0, DEPTH), 0.3)
    return View(
        room.name,
        moment.light,
        moment.door_open if door else None,
        room.sign if readable else None,
        person,
        tuple(objects),
        tuple(partly),
    )


def _is_visible(depth: float, column: float, half: float) -> bool | None:
    """Whether something `half` metres to each side is in the picture; None if only partly."""
    if depth > 0.9 and 0.05 < column < 0.95:
        return True
    if depth < 0.4:
        return False
    reach = FOCAL * half / depth
    return None if -reach < column < 1 + reach else False
