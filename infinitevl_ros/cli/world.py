"""A rendered patrol: what a robot's camera sees as it drives from room to room, with the truth about each view.

Every room is the same box, told apart by its walls and floor. It is drawn as one texture atlas, cast per
pixel from the camera's place; things are sprites that stand on the floor. Lengths are metres, x to the right
and z forward from the middle of the wall that the robot comes in through.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

WIDTH, DEPTH, HEIGHT = 4.8, 5.0, 2.7
DOOR_WIDTH, DOOR_HEIGHT = 1.2, 2.1
EYE = 0.8  # of the camera above the floor
FOCAL = 0.72  # focal length in picture widths: 70 degrees from side to side
VISIT_S = 6.0
# Nearer than this the doorway is wider than the picture: only the next room is seen.
DOORWAY = 0.98 * FOCAL * DOOR_WIDTH
SUPERSAMPLING = 2

Colour = tuple[int, int, int]
COLOURS: dict[str, Colour] = {
    'red': (208, 38, 38),
    'orange': (244, 128, 20),
    'yellow': (246, 208, 30),
    'green': (38, 150, 62),
    'blue': (34, 88, 208),
    'purple': (132, 54, 176),
}
WALLS: dict[str, Colour] = {
    'blue': (172, 197, 222),
    'yellow': (238, 224, 172),
    'green': (180, 209, 180),
    'pink': (232, 192, 196),
    'grey': (190, 192, 195),
    'purple': (203, 190, 222),
    'white': (238, 237, 232),
    'brown': (196, 172, 152),
}
PLACES = ((-1.6, 2.75), (-1.2, 3.95), (1.2, 3.95), (1.6, 2.75))  # where things can stand: x, z


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
    """One visible thing; `side` is the third of the picture that its middle is in: left, ahead or right."""

    kind: str
    colour: str
    side: str


@dataclass(frozen=True)
class View:
    """What a picture shows: the room, the number on the door ahead, and the things in view, left to right."""

    room: str
    door: int
    objects: tuple[Seen, ...]


@dataclass(frozen=True)
class Camera:
    """Where the camera is in a room and where it looks: `yaw` in radians, positive to the right."""

    x: float
    z: float
    yaw: float

    def project(self, thing: Thing) -> tuple[float, float]:
        """The column of a thing's middle in picture widths (0 left, 1 right), and its depth in metres."""
        dx, dz = thing.x - self.x, thing.z - self.z
        depth = dx * np.sin(self.yaw) + dz * np.cos(self.yaw)
        aside = dx * np.cos(self.yaw) - dz * np.sin(self.yaw)
        return 0.5 + FOCAL * aside / max(depth, 1e-3), depth


def tint(colour: Colour, light: float) -> tuple[int, ...]:
    """The colour under more (> 1) or less light."""
    return tuple(int(min(255, channel * light)) for channel in colour)


class Sprite:
    """A drawing of one thing, 1.6 m wide and high, 4 bytes per pixel with premultiplied alpha.

    Its drawing methods take metres: x from the middle to the right, y up from the floor.
    """

    SIDE = 1.6
    FLOOR = 0.2  # below the floor line, for what bulges towards the camera and for the shadow

    def __init__(self, scale: float):
        self.scale = scale
        side = round(self.SIDE * scale)
        self.pixels = np.zeros((side, side, 4), np.uint8)

    def point(self, x: float, y: float) -> tuple[int, int]:
        return round((x + self.SIDE / 2) * self.scale), round((self.SIDE - self.FLOOR - y) * self.scale)

    def shadow(self, radius: float) -> None:
        alpha = np.zeros(self.pixels.shape[:2], np.uint8)
        axes = (round(radius * 1.1 * self.scale), round(radius * 0.3 * self.scale))
        cv2.ellipse(alpha, self.point(0.04, 0), axes, 0, 0, 360, 125, -1)
        self.pixels[..., 3] = cv2.GaussianBlur(alpha, None, 0.035 * self.scale)

    def polygon(self, points: list[tuple[float, float]], colour: tuple[int, ...]) -> None:
        cv2.fillPoly(self.pixels, [np.array([self.point(*p) for p in points])], (*colour, 255))

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: tuple[int, ...], turn: float = 0) -> None:
        axes = (round(rx * self.scale), round(ry * self.scale))
        cv2.ellipse(self.pixels, self.point(x, y), axes, turn, 0, 360, (*colour, 255), -1)

    def barrel(self, bottom: float, top: float, low: float, high: float, colour: Colour) -> None:
        """An upright round body, lit from the left: its radii at the bottom and the top, and their heights."""
        for edge in np.linspace(-1, 1, 32, endpoint=False):
            across = np.linspace(edge, 1, 24)
            dip = -0.22 * np.sqrt(1 - across**2)
            base = zip(across * bottom, low + dip * bottom, strict=True)
            rim = zip(across * top, high + dip * top, strict=True)
            self.polygon([*base, *reversed([*rim])], tint(colour, 1 - 0.3 * (edge + 0.4) * abs(edge + 0.4)))
        self.ellipse(0, high, top, 0.22 * top, tint(colour, 1.12))


def draw_ball(sprite: Sprite, colour: Colour) -> None:
    sprite.shadow(0.3)
    for step in np.linspace(0, 1, 40):
        radius = 0.3 * (1 - step)
        sprite.ellipse(-0.11 * step, 0.3 + 0.13 * step, radius, radius, tint(colour, 0.62 + 0.58 * step**0.6))
    sprite.ellipse(-0.11, 0.44, 0.035, 0.025, (255, 255, 255), turn=-30)


def draw_box(sprite: Sprite, colour: Colour) -> None:
    sprite.shadow(0.42)
    front, right = ((-0.36, 0.04), (0.14, -0.06)), (0.36, 0.07)
    for (x0, y0), (x1, y1), light in ((*front, 1.0), (front[1], right, 0.68)):
        sprite.polygon([(x0, y0), (x1, y1), (x1, y1 + 0.5), (x0, y0 + 0.5)], tint(colour, light))
    back = (-0.14, 0.15)
    sprite.polygon([(x, y + 0.5) for x, y in (*front, right, back)], tint(colour, 1.2))


def draw_cup(sprite: Sprite, colour: Colour) -> None:
    sprite.shadow(0.3)
    sprite.ellipse(0.3, 0.32, 0.17, 0.18, tint(colour, 0.8))
    hole = sprite.point(0.3, 0.32)
    cv2.ellipse(sprite.pixels, hole, (round(0.1 * sprite.scale), round(0.11 * sprite.scale)), 0, 0, 360, (0, 0, 0, 0), -1)
    sprite.barrel(0.22, 0.3, 0.05, 0.6, colour)
    sprite.ellipse(0, 0.595, 0.265, 0.052, tint(colour, 0.5))


def draw_plant(sprite: Sprite, colour: Colour) -> None:
    sprite.shadow(0.3)
    for turn in (-75, 75, -48, 48, -22, 22, 0):
        x, y = 0.3 * np.sin(np.radians(turn)), 0.42 + 0.36 * np.cos(np.radians(turn))
        sprite.ellipse(x, y, 0.085, 0.3, (44, 112 + abs(turn) // 2, 52), turn)
    sprite.barrel(0.22, 0.31, 0.05, 0.43, colour)
    sprite.ellipse(0, 0.43, 0.27, 0.05, (70, 50, 38))
    sprite.ellipse(0, 0.62, 0.07, 0.24, (58, 138, 62))


def draw_chair(sprite: Sprite, colour: Colour) -> None:
    sprite.shadow(0.34)
    for x, y, light in ((-0.2, 0.12, 0.5), (0.29, 0.12, 0.45), (-0.3, 0, 0.75), (0.2, -0.02, 0.7)):
        sprite.polygon([(x, y), (x + 0.06, y), (x + 0.06, 0.45), (x, 0.45)], tint(colour, light))
    sprite.polygon([(-0.2, 0.5), (0.35, 0.5), (0.37, 1.12), (-0.18, 1.12)], tint(colour, 0.86))
    sprite.polygon([(-0.12, 0.66), (0.28, 0.66), (0.3, 1.02), (-0.1, 1.02)], tint(colour, 1.05))
    sprite.polygon([(-0.32, 0.4), (0.27, 0.4), (0.36, 0.53), (-0.22, 0.53)], tint(colour, 1.2))
    sprite.polygon([(-0.32, 0.33), (0.27, 0.33), (0.27, 0.4), (-0.32, 0.4)], tint(colour, 0.9))


def draw_lamp(sprite: Sprite, colour: Colour) -> None:
    sprite.shadow(0.24)
    sprite.barrel(0.17, 0.15, 0.02, 0.06, (92, 92, 98))
    sprite.polygon([(-0.022, 0.06), (0.022, 0.06), (0.022, 0.9), (-0.022, 0.9)], (70, 70, 76))
    sprite.barrel(0.34, 0.2, 0.82, 1.24, colour)
    sprite.ellipse(0, 1.24, 0.15, 0.03, (255, 244, 208))


KINDS: dict[str, Callable[[Sprite, Colour], None]] = {
    'ball': draw_ball,
    'box': draw_box,
    'cup': draw_cup,
    'plant': draw_plant,
    'chair': draw_chair,
    'lamp': draw_lamp,
}


def draw_thing(kind: str, colour: str, scale: int) -> np.ndarray:
    """The sprite of a thing, [1.6 scale, 1.6 scale, 4] uint8, with `scale` pixels per metre."""
    sprite = Sprite(4 * scale)
    KINDS[kind](sprite, COLOURS[colour])
    side = round(Sprite.SIDE * scale)
    return cv2.resize(sprite.pixels, (side, side), interpolation=cv2.INTER_AREA)


def draw_floor(pattern: str, scale: int) -> np.ndarray:
    """The floor seen from above, [DEPTH scale, WIDTH scale, 3] uint8, far end on top."""
    z, x = np.mgrid[0 : round(DEPTH * scale), 0 : round(WIDTH * scale)] / scale
    if pattern == 'checks':
        light = np.where((x // 0.6 + z // 0.6) % 2, 0.62, 0.98)
    elif pattern == 'planks':
        row = x // 0.3
        light = 0.82 + 0.1 * np.sin(row * 37.7 + (z + row * 0.7) // 1.6 * 21.1)
        light[(x % 0.3 < 0.025) | ((z + row * 0.7) % 1.6 < 0.025)] = 0.55
    elif pattern == 'tiles':
        light = np.where((x % 0.5 < 0.04) | (z % 0.5 < 0.04), 0.6, 0.9)
    else:
        light = np.where(z % 0.8 < 0.4, 0.72, 0.9)
    base = {'checks': (214, 212, 208), 'planks': (190, 166, 140), 'tiles': (196, 206, 206)}
    edge = np.minimum.reduce([x, WIDTH - x, z, DEPTH - z])
    light = light * (1 - 0.3 * np.exp(-edge / 0.25))
    return (light[..., None] * base.get(pattern, (168, 160, 176))).astype(np.uint8)


FLOORS = ('checks', 'planks', 'tiles', 'stripes')


def draw_door(wall: np.ndarray, number: int, scale: int) -> None:
    """Draws a door with its sign into the middle of a front wall."""
    middle, bottom = wall.shape[1] / 2, HEIGHT * scale

    def rectangle(half: float, low: float, high: float, colour: Colour) -> None:
        top_left = round(middle - half * scale), round(bottom - high * scale)
        cv2.rectangle(wall, top_left, (round(middle + half * scale), round(bottom - low * scale)), colour, -1)

    half = DOOR_WIDTH / 2
    rectangle(half + 0.1, 0, DOOR_HEIGHT + 0.1, (246, 246, 242))
    rectangle(half, 0, DOOR_HEIGHT, (112, 84, 62))
    rectangle(half - 0.03, 0, DOOR_HEIGHT - 0.03, (150, 114, 84))
    rectangle(half - 0.16, 0.14, 0.8, (138, 103, 75))
    rectangle(0.46, 1.04, 1.7, (40, 44, 52))
    rectangle(0.43, 1.07, 1.67, (252, 252, 250))
    text, font = str(number), cv2.FONT_HERSHEY_DUPLEX
    thickness = max(1, round(0.06 * scale))
    size = 0.42 * scale / cv2.getTextSize(text, font, 1, 1)[0][1]
    width = cv2.getTextSize(text, font, size, thickness)[0][0]
    corner = round(middle - width / 2), round(bottom - 1.16 * scale)
    cv2.putText(wall, text, corner, font, size, (20, 24, 30), thickness, cv2.LINE_AA)
    cv2.circle(wall, (round(middle + 0.5 * scale), round(bottom - 0.95 * scale)), round(0.035 * scale), (225, 225, 220), -1)


def draw_room(room: Room, scale: int) -> np.ndarray:
    """The atlas of a room: the left, front and right wall in a row; below it the floor, and beside that the ceiling."""
    deep, wide, high = round(DEPTH * scale), round(WIDTH * scale), round(HEIGHT * scale)
    atlas = np.empty((high + deep, 2 * deep + wide, 3), np.uint8)
    y, x = np.mgrid[high:0:-1, 0 : 2 * deep + wide] / scale
    corner = np.minimum.reduce([abs(x - DEPTH), abs(x - DEPTH - WIDTH), HEIGHT - y])
    light = np.where(abs(x - DEPTH - WIDTH / 2) < WIDTH / 2, 1.0, np.where(x < DEPTH, 0.86, 0.92))
    light = light * (0.9 + 0.1 * y / HEIGHT) * (1 - 0.16 * np.exp(-corner / 0.3))
    atlas[:high] = np.minimum(light[..., None] * WALLS[room.wall], 255)
    skirting = round(0.12 * scale)
    atlas[high - skirting : high] = (light[high - skirting :, :, None] * (236, 234, 228)).astype(np.uint8)
    atlas[high - skirting - round(0.02 * scale) : high - skirting] //= 2
    draw_door(atlas[:high, deep : deep + wide], room.door, scale)
    atlas[high:, :wide] = draw_floor(room.floor, scale)
    atlas[high:, wide:] = (226, 226, 224)
    cv2.rectangle(atlas, (wide + wide // 3, high + deep // 4), (wide + 2 * wide // 3, high + deep // 2), (255, 255, 250), -1)
    return atlas


def furnish(rng: np.random.Generator, count: int) -> list[Room]:
    """Makes up rooms that differ in walls and door number; in one room no kind or colour comes twice."""
    walls = rng.permutation(list(WALLS))
    doors = rng.permutation(np.arange(10, 100))
    first_floor = rng.integers(len(FLOORS))
    rooms = []
    for index, (wall, door) in enumerate(zip(walls[:count], doors[:count], strict=True)):
        kinds = rng.permutation(list(KINDS))
        colours = rng.permutation([colour for colour in COLOURS if colour != wall])
        places = rng.permutation(PLACES)[: rng.integers(3, len(PLACES) + 1)] + rng.uniform(-0.1, 0.1, 2)
        things = tuple(
            Thing(str(kind), str(colour), float(x), float(z))
            for kind, colour, (x, z) in zip(kinds, colours, places, strict=False)
        )
        floor = FLOORS[(first_floor + index) % len(FLOORS)]
        rooms.append(Room(f'{wall} room', int(door), str(wall), floor, things))
    return rooms


def drive(phase: float) -> Camera:
    """Where the robot is at `phase` (0 comes in, 1 leaves) of a visit: it slows down to look left and right."""
    lead, slowing = 0.9, 0.85
    z = phase + slowing / (2 * np.pi) * (np.sin(2 * np.pi * phase + lead) - np.sin(lead))
    look = np.clip((phase - 0.08) / 0.57, 0, 1)
    swing = np.sin(2 * np.pi * look) * np.sin(np.pi * look) ** 0.5
    return Camera(x=-0.2 * swing, z=DEPTH * z, yaw=-np.radians(24) * swing)


class PatrolWorld:
    """An endless patrol through `rooms` rooms (1 to 8) in pictures of `size` x `size` pixels.

    Pictures and descriptions depend on the seed and the time alone.
    """

    def __init__(self, seed: int = 0, rooms: int = 4, size: int = 224):
        if not 1 <= rooms <= len(WALLS):
            raise ValueError(f'a patrol has 1 to {len(WALLS)} rooms, not {rooms}')
        if size < 16:
            raise ValueError(f'a picture needs at least 16 pixels a side, not {size}')
        rng = np.random.default_rng(seed)
        self.rooms = furnish(rng, rooms)
        self.size = size
        self._canvas = SUPERSAMPLING * size
        self._scale = max(16, round(0.25 * self._canvas))  # about one texel per pixel at 3 m
        self._atlases = [draw_room(room, self._scale) for room in self.rooms]
        self._sprites = {
            (thing.kind, thing.colour): draw_thing(thing.kind, thing.colour, self._scale)
            for room in self.rooms
            for thing in room.things
        }
        noise = rng.normal(0, 2.2, (7, size, size, 3))
        self._noise = list(noise.round().astype(np.int16))
        self._drift = rng.uniform(0, 2 * np.pi)

    def render(self, seconds: float) -> np.ndarray:
        """The picture at a time: [size, size, 3] uint8 RGB."""
        index, camera = self._where(seconds)
        picture = self._picture(index, camera)
        picture = cv2.resize(picture, (self.size, self.size), interpolation=cv2.INTER_AREA)
        gain = 1 + 0.06 * np.sin(2 * np.pi * seconds / 17 + self._drift)
        noise = self._noise[round(seconds * 1000) % len(self._noise)]
        return cv2.addWeighted(picture, gain, noise, 1, 0, dtype=cv2.CV_8U)

    def describe(self, seconds: float) -> View:
        """What can be seen at a time. What lies beyond an opening door is not yet told."""
        index, camera = self._where(seconds)
        room = self.rooms[index]
        placed = sorted((*camera.project(thing), thing) for thing in room.things)
        seen = [
            Seen(thing.kind, thing.colour, ('left', 'ahead', 'right')[int(column * 3)])
            for column, depth, thing in placed
            if 0.03 < column < 0.97 and depth > 1
        ]
        return View(room.name, room.door, tuple(seen))

    def _where(self, seconds: float) -> tuple[int, Camera]:
        """The room that is seen, and the camera in its coordinates (z < 0 while still in its doorway)."""
        visit, phase = divmod(seconds / VISIT_S, 1)
        camera = drive(phase)
        if DEPTH - camera.z < DOORWAY:
            visit, camera = visit + 1, Camera(camera.x, camera.z - DEPTH, camera.yaw)
        return int(visit) % len(self.rooms), camera

    def _picture(self, index: int, camera: Camera) -> np.ndarray:
        """A room with its things and what is seen through its door: [canvas, canvas, 3] uint8."""
        opening = float(np.clip((1.7 - (DEPTH - camera.z)) / (1.65 - DOORWAY), 0, 1))
        picture, doorway = self._cast(self._atlases[index], camera, opening)
        if opening > 0:
            beyond = Camera(camera.x, camera.z - DEPTH, camera.yaw)
            following = self._picture((index + 1) % len(self.rooms), beyond)
            cv2.copyTo(following, doorway, picture)
        things = self.rooms[index].things
        for thing in sorted(things, key=lambda thing: -camera.project(thing)[1]):
            self._stand(picture, thing, camera)
        return picture

    def _cast(self, atlas: np.ndarray, camera: Camera, opening: float) -> tuple[np.ndarray, np.ndarray]:
        """The bare room, and the mask (uint8) of the pixels that see through its door.

        As the camera is level, a column of pixels meets one wall at one distance; above and below it sees
        ceiling and floor, whose distance depends on the row alone.
        """
        scale, canvas = np.float32(self._scale), self._canvas
        slope = ((np.arange(canvas, dtype=np.float32) + 0.5) / canvas - 0.5) / np.float32(FOCAL)
        sin, cos = np.float32(np.sin(camera.yaw)), np.float32(np.cos(camera.yaw))
        dx, dz = sin + slope * cos, cos - slope * sin

        to_side = (np.where(dx < 0, -WIDTH / 2, WIDTH / 2) - camera.x) / dx
        to_front = (DEPTH - camera.z) / dz
        to_wall = np.minimum(to_side, to_front).astype(np.float32)
        to_plane = (np.where(slope < 0, EYE - HEIGHT, EYE) / slope).astype(np.float32)

        x, z = camera.x + to_wall * dx, camera.z + to_wall * dz
        along = np.where(to_front <= to_side, DEPTH + WIDTH / 2 + x, np.where(dx < 0, z, 2 * DEPTH + WIDTH - z))
        leaf = (to_front <= to_side) & (abs(x) < DOOR_WIDTH / 2)
        open_columns = leaf & (x < (opening - 0.5) * DOOR_WIDTH)
        along = along - leaf * opening * DOOR_WIDTH  # the leaf slides to the right, into the wall

        shift = (WIDTH / 2 + camera.x + WIDTH * (slope < 0)).astype(np.float32)
        wall = to_wall < to_plane[:, None]
        down = (HEIGHT - EYE) + to_wall * slope[:, None]  # below the ceiling, where the wall is hit
        map_x = np.where(wall, along.astype(np.float32) * scale, to_plane[:, None] * (dx * scale) + shift[:, None] * scale)
        far = np.float32((HEIGHT + DEPTH - camera.z) * scale)
        map_y = np.where(wall, down * scale, far - to_plane[:, None] * (dz * scale))
        picture = cv2.remap(atlas, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        doorway = wall & open_columns & (down > HEIGHT - DOOR_HEIGHT)
        return picture, doorway.astype(np.uint8)

    def _stand(self, picture: np.ndarray, thing: Thing, camera: Camera) -> None:
        """Draws a thing into a picture, in perspective."""
        column, depth = camera.project(thing)
        if depth < 0.4:
            return
        canvas, sprite = self._canvas, self._sprites[thing.kind, thing.colour]
        zoom = FOCAL * canvas / depth / self._scale
        side = zoom * len(sprite)
        left = column * canvas - side / 2
        top = canvas * (0.5 + FOCAL * EYE / depth) - side * (1 - Sprite.FLOOR / Sprite.SIDE)
        x0, y0 = max(0, int(left)), max(0, int(top))
        x1, y1 = min(canvas, int(left + side) + 1), min(canvas, int(top + side) + 1)
        if x0 >= x1 or y0 >= y1:
            return
        place = np.float32([[zoom, 0, left - x0], [0, zoom, top - y0]])
        drawn = cv2.warpAffine(sprite, place, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR)
        rest = cv2.cvtColor(255 - drawn[..., 3], cv2.COLOR_GRAY2RGB)
        area = picture[y0:y1, x0:x1]
        area[:] = cv2.add(cv2.multiply(area, rest, scale=1 / 255), cv2.cvtColor(drawn, cv2.COLOR_RGBA2RGB))
