"""Paints what a patrol robot's camera sees at a moment.

A room is a box whose walls and floor are one texture, cast per pixel from the camera's place; the
things in it are painted over that.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from .scene import (
    COLOURS,
    DEPTH,
    DIGITS,
    EYE,
    FIGURE,
    FLOORS,
    FOCAL,
    HEIGHT,
    KINDS,
    PERSON,
    ROOMS,
    SIGN,
    WALLS,
    WIDTH,
    Camera,
    Moment,
    Room,
)

SHUTTER = 0.2  # part of the time between two frames for which it is open


def draw_room(room: Room, scale: int) -> np.ndarray:
    """The walls in a row, left to right, and the floor below them; `scale` is pixels per metre."""
    deep, wide, high = round(DEPTH * scale), round(WIDTH * scale), round(HEIGHT * scale)
    wall, floor = ROOMS[room.name]
    texture = np.full((high + deep, 2 * deep + wide, 3), 150.0, np.float32)
    y, x = np.mgrid[high:0:-1, 0 : 2 * deep + wide].astype(np.float32) / scale
    corner = np.minimum.reduce([abs(x - DEPTH), abs(x - DEPTH - WIDTH), HEIGHT - y])
    light = np.select([x < DEPTH, x < DEPTH + WIDTH], [0.84, 0.98], 0.9) * (0.93 + 0.03 * y)
    light *= 1 - 0.16 * np.exp(-corner / 0.3)
    paint = np.where(y[..., None] < 0.12, (236, 234, 228), WALLS[wall])
    texture[:high] = paint * light[..., None]

    z, x = np.mgrid[deep:0:-1, 0:wide].astype(np.float32) / scale
    colour, pattern = FLOORS[floor]
    edge = np.minimum.reduce([x, WIDTH - x, z, DEPTH - z])
    light = pattern(x, z) * (1 - 0.3 * np.exp(-edge / 0.25))
    for thing in room.things:
        away = np.hypot(x - WIDTH / 2 - thing.x - 0.05, z - thing.z)
        light *= 1 - 0.6 * np.exp(-((away / 0.27) ** 2))  # its shadow
    texture[high:, :wide] = light[..., None] * colour
    texture = texture.astype(np.uint8)
    _hang_sign(texture, room.sign, scale)
    return texture


def draw_door(texture: np.ndarray, is_open: bool, scale: int) -> np.ndarray:
    """A room's texture with its door."""
    texture = texture.copy()
    inside = [(0.6, 0, 2.1, (150, 114, 84)), (0.48, 1.15, 1.95, (136, 100, 72))]
    inside += [(0.48, 0.2, 1.0, (136, 100, 72))]
    if is_open:  # a dark corridor
        inside = [(0.6, 0, 2.1, (46, 44, 50)), (0.6, 0, 0.35, (96, 84, 72))]
        inside += [(0.3, 0.35, 1.6, (78, 78, 88))]
    for half, low, top, colour in ((0.7, 0, 2.2, (246, 246, 242)), *inside):
        _rectangle(texture, 0, half, low, top, colour, scale)
    return texture


def _hang_sign(texture: np.ndarray, number: int, scale: int) -> None:
    x, y = SIGN
    for edge, colour in ((0.02, (20, 24, 30)), (0, (252, 252, 250))):
        half, high = 0.36 + edge, 0.27 + edge
        _rectangle(texture, x, half, y - high, y + high, colour, scale)
    digits, thick = str(number), max(1, round(0.04 * scale))
    for place, digit in enumerate(digits):
        left = DEPTH + WIDTH / 2 + x + 0.29 * (place - len(digits) / 2) + 0.055
        for line in DIGITS[int(digit)]:
            points = np.multiply(line, (0.18, 0.33)) + np.array((left, HEIGHT - y - 0.165))
            points = [np.round(16 * scale * points).astype(np.int32)]
            cv2.polylines(texture, points, False, (20, 24, 30), thick, cv2.LINE_AA, shift=4)


def _rectangle(
    texture: np.ndarray, x: float, half: float, low: float, top: float, colour: tuple, scale: int
) -> None:
    """A rectangle on the wall with the door, `half` metres to each side of x."""
    middle = DEPTH + WIDTH / 2 + x
    columns = slice(round((middle - half) * scale), round((middle + half) * scale))
    texture[round((HEIGHT - top) * scale) : round((HEIGHT - low) * scale), columns] = colour


class Painter:
    """Paints the pictures of one room, `size` x `size` pixels."""

    def __init__(self, room: Room, size: int = 112):
        if size < 16:
            raise ValueError(f'a picture has at least 16 pixels a side, not {size}')
        self.room, self.size = room, size
        self._canvas = 2 * size  # drawn at twice the size, against jagged edges
        self._scale = max(56, size // 2)
        self._bare = draw_room(room, self._scale)
        self._textures: dict[bool, np.ndarray] = {}
        self._things = sorted(room.things, key=lambda thing: -thing.z)

    def picture(self, moment: Moment, rng: np.random.Generator) -> np.ndarray:
        """The picture of a moment: [size, size, 3] uint8 RGB; `rng` makes its noise."""
        texture = self._textures.get(moment.door_open)
        if texture is None:
            texture = draw_door(self._bare, moment.door_open, self._scale)
            self._textures[moment.door_open] = texture
        picture = self._cast(texture, moment.camera)
        if moment.person:
            self._paint(picture, FIGURE, PERSON, None, moment.camera)
        for thing in self._things:
            place = thing.x, thing.z
            self._paint(picture, KINDS[thing.kind], place, thing.colour, moment.camera)
        blur = round(abs(moment.turning) * FOCAL * self._canvas * SHUTTER)
        if blur > 1:
            picture = cv2.blur(picture, (blur, 1))
        picture = cv2.resize(picture, (self.size, self.size), interpolation=cv2.INTER_AREA)
        tint = np.array((1, 1, 1) if moment.light else (0.36, 0.38, 0.46)) * moment.exposure
        shape = picture.shape
        noise = rng.standard_normal(shape, np.float32) * np.float32(moment.noise)
        return np.clip(picture * tint.astype(np.float32) + noise + 0.5, 0, 255).astype(np.uint8)

    def _cast(self, texture: np.ndarray, camera: Camera) -> np.ndarray:
        """The bare room: [canvas, canvas, 3] uint8.

        As the camera is level, a column meets one wall, at one distance; below that wall the
        distance of the floor depends on the row alone. What is above it lies outside the texture.
        """
        slope = ((np.arange(self._canvas, dtype=np.float32) + 0.5) / self._canvas - 0.5) / FOCAL
        sin, cos, row = math.sin(camera.yaw), math.cos(camera.yaw), slope[:, None]
        dx, dz = slope * cos + sin, cos - slope * sin
        dx = np.where(dx == 0, np.float32(1e-9), dx)  # straight ahead, where no side wall is met
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

    def _paint(
        self,
        picture: np.ndarray,
        parts: list,
        place: tuple[float, float],
        paint: str | None,
        camera: Camera,
    ) -> None:
        """Paints a thing or a person into a picture, in perspective."""
        depth, column = camera.project(*place)
        if depth < 0.5:
            return
        zoom = FOCAL * self._canvas / depth
        foot = column * self._canvas, self._canvas / 2 + zoom * EYE
        for outline, light in parts:
            colour = light
            if not isinstance(light, tuple):
                colour = [min(255, light * channel) for channel in COLOURS[paint]]
            corners = np.multiply(outline, (zoom, -zoom)) + foot
            cv2.fillPoly(picture, [(16 * corners).astype(np.int32)], colour, shift=4)
