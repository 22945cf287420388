"""A rendered patrol: what a robot's camera sees as it drives from room to room, and what is there.

A room is a box whose surfaces are one texture (an atlas), cast per pixel from the camera's place; things
are sprites that stand on its floor. Lengths are metres: x to the right and z forward from the middle of
the wall that the robot comes in through, y up from the floor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

WIDTH, DEPTH, HEIGHT = 4.8, 5.0, 2.7
DOOR_WIDTH, DOOR_HEIGHT = 1.2, 2.1
EYE = 0.8
FOCAL = 0.72  # focal length in picture widths: 70 degrees from side to side
DOORWAY = 0.98 * FOCAL * DOOR_WIDTH  # nearer than this only the next room fits into the picture
VISIT_S = 6.0

COLOURS = {
    'red': (208, 38, 38),
    'orange': (244, 128, 20),
    'yellow': (246, 208, 30),
    'green': (38, 150, 62),
    'blue': (34, 88, 208),
    'purple': (132, 54, 176),
}
WALLS = {
    'blue': (172, 197, 222),
    'yellow': (238, 224, 172),
    'green': (180, 209, 180),
    'pink': (232, 192, 196),
    'grey': (190, 192, 195),
    'purple': (203, 190, 222),
    'white': (238, 237, 232),
    'brown': (196, 172, 152),
}
# A floor's colour, and how much light it gives back at places x, z.
FLOORS = {
    'checks': ((214, 212, 208), lambda x, z: np.where((x // 0.6 + z // 0.6) % 2, 0.62, 0.98)),
    'planks': (
        (190, 166, 140),
        lambda x, z: 0.8 + 0.12 * np.sin(37.7 * (x // 0.3) + 21.1 * (z // 1.6)),
    ),
    'tiles': (
        (196, 206, 206),
        lambda x, z: np.where((x % 0.5 < 0.04) | (z % 0.5 < 0.04), 0.6, 0.9),
    ),
    'stripes': ((168, 160, 176), lambda x, z: np.where(z % 0.8 < 0.4, 0.72, 0.9)),
}
PLACES = ((-1.6, 2.75), (-1.2, 3.95), (1.2, 3.95), (1.6, 2.75))  # where things stand: x, z


@dataclass(frozen=True)
class Thing:
    """One thing in a room and where it stands."""

    kind: str
    colour: str
    x: float
    z: float


@dataclass(frozen=True)
class Room:
    """One room of the patrol; `door` is the number on the door that leads out of it."""

    name: str
    door: int
    wall: str
    floor: str
    things: tuple[Thing, ...]


@dataclass(frozen=True)
class Seen:
    """One visible thing; `side`, the third of the picture with its middle: left, ahead or right."""

    kind: str
    colour: str
    side: str


@dataclass(frozen=True)
class View:
    """What a picture shows: the room, its door's number, and the things in view from left to right."""

    room: str
    door: int
    objects: tuple[Seen, ...]


@dataclass(frozen=True)
class Camera:
    """Where the camera is in a room, and its heading in radians, positive to the right."""

    x: float
    z: float
    yaw: float

    def project(self, thing: Thing) -> tuple[float, float]:
        """A thing's depth in metres, and the column of its middle (0 left edge, 1 right edge)."""
        dx, dz, sin, cos = (
            thing.x - self.x,
            thing.z - self.z,
            math.sin(self.yaw),
            math.cos(self.yaw),
        )
        depth = dx * sin + dz * cos
        return depth, 0.5 + FOCAL * (dx * cos - dz * sin) / max(depth, 1e-3)


def arc(
    x: float, y: float, rx: float, ry: float, start: float = 0, stop: float = 360
) -> np.ndarray:
    """Points [48, 2] on an ellipse around x, y between two angles in degrees, anticlockwise."""
    angle = np.radians(np.linspace(start, stop, 48))
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], 1)


class Pen:
    """Draws one thing, lit from the left, as an RGBA picture with premultiplied alpha.

    The picture is SIDE metres wide and high; x = 0 is its middle, and the lowest BELOW metres are y < 0.
    """

    SIDE, BELOW = 1.6, 0.2

    def __init__(self, scale: int, colour: str):
        self.scale, self.colour = scale, COLOURS[colour]
        self.pixels = np.zeros((round(self.SIDE * scale), round(self.SIDE * scale), 4), np.uint8)
        self.polygon(arc(0.04, 0, 0.34, 0.09), colour=(0, 0, 0))
        self.pixels = cv2.GaussianBlur(self.pixels // 2, None, 0.035 * scale)

    def polygon(
        self, points, light: float = 1, colour: tuple[int, int, int] | None = None
    ) -> None:
        """Fills an outline of points x, y with the thing's or another colour."""
        corners = (
            np.asarray(points) * (1, -1) + (self.SIDE / 2, self.SIDE - self.BELOW)
        ) * self.scale
        paint = [min(255, channel * light) for channel in colour or self.colour]
        cv2.fillPoly(self.pixels, [np.round(corners).astype(np.int32)], (*paint, 255))

    def barrel(self, bottom: float, top: float, low: float, high: float, **colour) -> None:
        """An upright round body: its radii at the bottom and the top, and their heights."""
        for angle in range(180, 360, 6):
            base = arc(0, low, bottom, 0.22 * bottom, angle, 360)
            rim = arc(0, high, top, 0.22 * top, 360, angle)
            edge = math.cos(math.radians(angle)) + 0.4
            self.polygon([*base, *rim], 1 - 0.3 * edge * abs(edge), **colour)
        self.polygon(arc(0, high, top, 0.22 * top), 1.12, **colour)


def ball(pen: Pen) -> None:
    for step in np.linspace(0, 1, 40):
        radius = 0.3 * (1 - step)
        pen.polygon(arc(-0.11 * step, 0.3 + 0.13 * step, radius, radius), 0.62 + 0.58 * step**0.6)
    pen.polygon(arc(-0.11, 0.44, 0.03, 0.025), colour=(255, 255, 255))


def box(pen: Pen) -> None:
    pen.polygon([(-0.36, 0.04), (0.14, -0.06), (0.14, 0.44), (-0.36, 0.54)])
    pen.polygon([(0.14, -0.06), (0.36, 0.07), (0.36, 0.57), (0.14, 0.44)], 0.68)
    pen.polygon([(-0.36, 0.54), (0.14, 0.44), (0.36, 0.57), (-0.14, 0.65)], 1.2)


def cup(pen: Pen) -> None:
    pen.polygon([*arc(0.3, 0.32, 0.17, 0.18), *arc(0.3, 0.32, 0.1, 0.11, 360, 0)], 0.8)
    pen.barrel(0.22, 0.3, 0.05, 0.6)
    pen.polygon(arc(0, 0.595, 0.265, 0.052), 0.5)


def plant(pen: Pen) -> None:
    for turn in (-75, 75, -48, 48, -22, 22, 0):
        sin, cos = math.sin(math.radians(turn)), math.cos(math.radians(turn))
        leaf = arc(0, 0.33, 0.085, 0.33) @ [[cos, -sin], [sin, cos]] + (0, 0.4)
        pen.polygon(leaf, colour=(44, 112 + abs(turn) // 2, 52))
    pen.barrel(0.22, 0.31, 0.05, 0.43)
    pen.polygon(arc(0, 0.43, 0.27, 0.05), colour=(70, 50, 38))


def chair(pen: Pen) -> None:
    for x, y, light in ((-0.2, 0.12, 0.5), (0.29, 0.12, 0.45), (-0.3, 0, 0.75), (0.2, -0.02, 0.7)):
        pen.polygon([(x, y), (x + 0.06, y), (x + 0.06, 0.45), (x, 0.45)], light)
    pen.polygon([(-0.2, 0.5), (0.35, 0.5), (0.37, 1.12), (-0.18, 1.12)], 0.86)
    pen.polygon([(-0.12, 0.66), (0.28, 0.66), (0.3, 1.02), (-0.1, 1.02)], 1.05)
    pen.polygon([(-0.32, 0.4), (0.27, 0.4), (0.36, 0.53), (-0.22, 0.53)], 1.2)
    pen.polygon([(-0.32, 0.33), (0.27, 0.33), (0.27, 0.4), (-0.32, 0.4)], 0.9)


def lamp(pen: Pen) -> None:
    pen.barrel(0.17, 0.15, 0.02, 0.06, colour=(92, 92, 98))
    pen.polygon([(-0.022, 0.06), (0.022, 0.06), (0.022, 0.9), (-0.022, 0.9)], colour=(70, 70, 76))
    pen.barrel(0.34, 0.2, 0.82, 1.24)
    pen.polygon(arc(0, 1.24, 0.15, 0.03), colour=(255, 244, 208))


KINDS = {draw.__name__: draw for draw in (ball, box, cup, plant, chair, lamp)}


def draw_thing(thing: Thing, scale: int) -> np.ndarray:
    """The sprite of a thing, [1.6 scale, 1.6 scale, 4] uint8, with `scale` pixels per metre."""
    pen = Pen(4 * scale, thing.colour)
    KINDS[thing.kind](pen)
    return cv2.resize(pen.pixels, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)


def draw_room(room: Room, scale: int) -> np.ndarray:
    """The atlas: the left, front and right wall in a row, below it the floor and then the ceiling."""
    deep, wide, high = round(DEPTH * scale), round(WIDTH * scale), round(HEIGHT * scale)
    atlas = np.full((high + deep, 2 * deep + wide, 3), 226.0)
    y, x = np.mgrid[high:0:-1, 0 : 2 * deep + wide] / scale
    atlas[:high] = WALLS[room.wall]
    atlas[:high][y < 0.14] = (120, 120, 118)
    atlas[:high][y < 0.12] = (236, 234, 228)
    corner = np.minimum.reduce([abs(x - DEPTH), abs(x - DEPTH - WIDTH), HEIGHT - y])
    facing = np.select([x < DEPTH, x < DEPTH + WIDTH], [0.84, 0.98], 0.9)
    atlas[:high] *= (facing * (0.93 + 0.03 * y) * (1 - 0.16 * np.exp(-corner / 0.3)))[..., None]

    z, x = np.mgrid[deep:0:-1, 0:wide] / scale
    colour, pattern = FLOORS[room.floor]
    edge = np.minimum.reduce([x, WIDTH - x, z, DEPTH - z])
    atlas[high:, :wide] = (pattern(x, z) * (1 - 0.3 * np.exp(-edge / 0.25)))[..., None] * colour
    atlas[high + deep // 2 : high + 3 * deep // 4, wide + wide // 3 : wide + 2 * wide // 3] = 255
    draw_door(atlas[:high, deep : deep + wide], room.door, scale)
    return np.clip(atlas, 0, 255).astype(np.uint8)


def draw_door(wall: np.ndarray, number: int, scale: int) -> None:
    """Draws a door with a sign on it into the middle of a front wall."""
    middle, floor = wall.shape[1] / 2, wall.shape[0]
    for half, low, high, colour in (
        (0.70, 0, DOOR_HEIGHT + 0.1, (246, 246, 242)),
        (0.60, 0, DOOR_HEIGHT, (112, 84, 62)),
        (0.57, 0, DOOR_HEIGHT - 0.03, (150, 114, 84)),
        (0.44, 0.14, 0.8, (138, 103, 75)),
        (0.46, 1.04, 1.7, (40, 44, 52)),
        (0.43, 1.07, 1.67, (252, 252, 250)),
    ):
        rows = slice(round(floor - high * scale), round(floor - low * scale))
        wall[rows, round(middle - half * scale) : round(middle + half * scale)] = colour
    text, font, thickness = str(number), cv2.FONT_HERSHEY_DUPLEX, max(1, round(0.06 * scale))
    size = 0.42 * scale / cv2.getTextSize(text, font, 1, 1)[0][1]
    width = cv2.getTextSize(text, font, size, thickness)[0][0]
    corner = round(middle - width / 2), round(floor - 1.16 * scale)
    sign = np.ascontiguousarray(wall, np.uint8)
    cv2.putText(sign, text, corner, font, size, (20, 24, 30), thickness, cv2.LINE_AA)
    wall[:] = sign
