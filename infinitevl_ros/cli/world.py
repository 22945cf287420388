"""A rendered patrol: what a robot's camera sees as it drives from room to room, and what is there.

A room is a box whose walls and floor are one texture, cast per pixel from the camera's place; the
things in it are painted over that. Lengths are metres: x to the right and z forward from the
middle of the wall behind the robot as it comes in, y up from the floor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

WIDTH, DEPTH, HEIGHT = 4.8, 5.0, 2.7
EYE = 0.8
FOCAL = 0.72  # focal length in picture widths: 70 degrees from side to side
NEAREST = 0.85  # the camera's least distance from the door, which fills the picture then
VISIT_S = 6.0
PLACES = ((-1.6, 2.75), (-1.2, 3.95), (1.2, 3.95), (1.6, 2.75))  # where things stand: x, z

COLOURS = {
    'red': (208, 38, 38),
    'orange': (238, 112, 14),
    'yellow': (246, 212, 36),
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

    wall: str
    floor: str
    door: int
    things: tuple[Thing, ...]


@dataclass(frozen=True)
class Seen:
    """One visible thing, and the third of the picture its middle is in: left, ahead or right."""

    kind: str
    colour: str
    side: str


@dataclass(frozen=True)
class View:
    """What a picture shows: the room, the number on its door, the things from left to right."""

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
        """A thing's depth in metres, and the column of its middle (0 left edge, 1 right)."""
        dx, dz = thing.x - self.x, thing.z - self.z
        sin, cos = math.sin(self.yaw), math.cos(self.yaw)
        depth = dx * sin + dz * cos
        return depth, 0.5 + FOCAL * (dx * cos - dz * sin) / max(depth, 1e-3)


def draw_room(room: Room, scale: int) -> np.ndarray:
    """The walls in a row, left to right, and the floor below them; `scale` is pixels per metre."""
    deep, wide, high = round(DEPTH * scale), round(WIDTH * scale), round(HEIGHT * scale)
    texture = np.full((high + deep, 2 * deep + wide, 3), 150.0)
    y, x = np.mgrid[high:0:-1, 0 : 2 * deep + wide] / scale
    corner = np.minimum.reduce([abs(x - DEPTH), abs(x - DEPTH - WIDTH), HEIGHT - y])
    light = np.select([x < DEPTH, x < DEPTH + WIDTH], [0.84, 0.98], 0.9) * (0.93 + 0.03 * y)
    light *= 1 - 0.16 * np.exp(-corner / 0.3)
    paint = np.where(y[..., None] < 0.12, (236, 234, 228), WALLS[room.wall])
    texture[:high] = paint * light[..., None]

    z, x = np.mgrid[deep:0:-1, 0:wide] / scale
    colour, pattern = FLOORS[room.floor]
    edge = np.minimum.reduce([x, WIDTH - x, z, DEPTH - z])
    light = pattern(x, z) * (1 - 0.3 * np.exp(-edge / 0.25))
    for thing in room.things:
        away = np.hypot(x - WIDTH / 2 - thing.x - 0.05, z - thing.z)
        light *= 1 - 0.6 * np.exp(-((away / 0.27) ** 2))  # its shadow
    texture[high:, :wide] = light[..., None] * colour
    texture = texture.astype(np.uint8)

    middle = deep + wide // 2
    for half, low, top, colour in (
        (0.70, 0, 2.2, (246, 246, 242)),
        (0.60, 0, 2.1, (150, 114, 84)),
        (0.46, 0.82, 1.48, (20, 24, 30)),
        (0.43, 0.85, 1.45, (252, 252, 250)),
    ):
        rows = slice(round((HEIGHT - top) * scale), round((HEIGHT - low) * scale))
        texture[rows, middle - round(half * scale) : middle + round(half * scale)] = colour
    text, font, thick = str(room.door), cv2.FONT_HERSHEY_DUPLEX, max(1, round(0.06 * scale))
    size = 0.42 * scale / cv2.getTextSize(text, font, 1, 1)[0][1]
    corner = middle - cv2.getTextSize(text, font, size, thick)[0][0] // 2, round(1.76 * scale)
    cv2.putText(texture, text, corner, font, size, (20, 24, 30), thick, cv2.LINE_AA)
    return texture


def furnish(rng: np.random.Generator) -> Iterator[Room]:
    """Makes up rooms that differ in walls and door; in one room no kind or colour comes twice."""
    doors = rng.permutation(range(10, 100)).tolist()
    floors = rng.permutation(list(FLOORS)).tolist()
    for index, wall in enumerate(rng.permutation(list(WALLS)).tolist()):
        places = rng.permutation(PLACES)[rng.integers(2) :]
        x, z = (places + rng.uniform(-0.1, 0.1, places.shape)).T.tolist()
        kinds = rng.permutation(list(KINDS)).tolist()
        colours = rng.permutation([colour for colour in COLOURS if colour != wall]).tolist()
        things = tuple(map(Thing, kinds, colours, x, z))
        yield Room(wall, floors[index % len(floors)], doors[index], things)


def drive(phase: float) -> Camera:
    """Where the robot is at `phase` of a visit, 0 to 1; on its way to the door it looks around."""
    turn, lead = 2 * math.pi, 0.9
    way = phase + 0.85 / turn * (math.sin(turn * phase + lead) - math.sin(lead))
    look = min(max((phase - 0.08) / 0.57, 0), 1)
    swing = math.sin(turn * look) * math.sin(math.pi * look) ** 0.5
    return Camera(x=-0.2 * swing, z=(DEPTH - NEAREST) * way, yaw=-math.radians(24) * swing)


class PatrolWorld:
    """An endless patrol through `rooms` rooms (1 to 6), in pictures of `size` x `size` pixels.

    Pictures and descriptions depend on the seed and the time alone.
    """

    def __init__(self, seed: int = 0, rooms: int = 4, size: int = 224):
        if not 1 <= rooms <= len(WALLS):
            raise ValueError(f'a patrol has 1 to {len(WALLS)} rooms, not {rooms}')
        if size < 16:
            raise ValueError(f'a picture has at least 16 pixels a side, not {size}')
        rng = np.random.default_rng(seed)
        self.rooms = list(furnish(rng))[:rooms]
        self.size = size
        self._canvas = 2 * size  # drawn at twice the size, against jagged edges
        self._scale = size // 2
        self._textures = [draw_room(room, self._scale) for room in self.rooms]
        self._noise = rng.normal(0, 2.2, (7, size, size, 3)).round().astype(np.int16)

    def render(self, seconds: float) -> np.ndarray:
        """The picture at a time: [size, size, 3] uint8 RGB."""
        index, camera = self._where(seconds)
        picture = self._cast(self._textures[index], camera)
        for thing in sorted(self.rooms[index].things, key=lambda thing: -thing.z):
            self._paint(picture, thing, camera)
        picture = cv2.resize(picture, (self.size, self.size), interpolation=cv2.INTER_AREA)
        exposure = 1 + 0.06 * math.sin(seconds / 2.7)
        noise = self._noise[round(seconds * 1000) % len(self._noise)]
        return cv2.addWeighted(picture, exposure, noise, 1, 0, dtype=cv2.CV_8U)

    def describe(self, seconds: float) -> View:
        """What can be seen at a time: a thing counts while its middle is in the picture."""
        index, camera = self._where(seconds)
        room, seen = self.rooms[index], []
        for thing in sorted(room.things, key=lambda thing: camera.project(thing)[1]):
            depth, column = camera.project(thing)
            if depth > 1 and 0.03 < column < 0.97:
                side = ('left', 'ahead', 'right')[int(3 * column)]
                seen.append(Seen(thing.kind, thing.colour, side))
        return View(f'{room.wall} room', room.door, tuple(seen))

    def _where(self, seconds: float) -> tuple[int, Camera]:
        visit, phase = divmod(float(seconds) / VISIT_S, 1)
        return int(visit) % len(self.rooms), drive(phase)

    def _cast(self, texture: np.ndarray, camera: Camera) -> np.ndarray:
        """The bare room: [canvas, canvas, 3] uint8.

        As the camera is level, a column meets one wall, at one distance; below that wall the
        distance of the floor depends on the row alone. What is above it lies outside the texture.
        """
        slope = ((np.arange(self._canvas, dtype=np.float32) + 0.5) / self._canvas - 0.5) / FOCAL
        sin, cos, row = math.sin(camera.yaw), math.cos(camera.yaw), slope[:, None]
        dx, dz = slope * cos + sin, cos - slope * sin
        to_side = (np.copysign(np.float32(WIDTH / 2), dx) - camera.x) / dx
        to_front = (DEPTH - camera.z) / dz
        to_wall = np.minimum(to_front, to_side)
        x, z = camera.x + to_wall * dx, camera.z + to_wall * dz
        along = np.where(dx < 0, z, 2 * DEPTH + WIDTH - z)
        along = np.where(to_front < to_side, DEPTH + WIDTH / 2 + x, along)

        to_floor = EYE / np.maximum(row, 1e-6)
        wall, down = to_wall < to_floor, to_wall * row + (HEIGHT - EYE)
        u = np.where(wall, along, to_floor * dx + (camera.x + WIDTH / 2))
        v = np.where(wall, down, HEIGHT + DEPTH - camera.z - to_floor * dz)
        u, v = u * np.float32(self._scale), v * np.float32(self._scale)
        return cv2.remap(texture, u, v, cv2.INTER_LINEAR, borderValue=(226, 226, 226))

    def _paint(self, picture: np.ndarray, thing: Thing, camera: Camera) -> None:
        """Paints a thing into a picture, in perspective."""
        depth, column = camera.project(thing)
        if depth < 0.5:
            return
        zoom = FOCAL * self._canvas / depth
        foot = column * self._canvas, self._canvas / 2 + zoom * EYE
        for outline, light in KINDS[thing.kind]:
            colour = light
            if not isinstance(light, tuple):
                colour = [min(255, light * channel) for channel in COLOURS[thing.colour]]
            corners = np.multiply(outline, (zoom, -zoom)) + foot
            cv2.fillPoly(picture, [(16 * corners).astype(np.int32)], colour, shift=4)
