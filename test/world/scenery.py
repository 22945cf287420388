"""Rooms for tests, their pictures, and what to look for in them."""

import numpy as np

from infinitevl_ros.world.paint import Painter
from infinitevl_ros.world.patrol import Visit
from infinitevl_ros.world.scene import COLOURS, PLACES, Camera, Moment, Room, Thing

THIRDS = ('left', 'ahead', 'right')
ENTRANCE = Moment(Camera(0.0, 0.0, 0.0), noise=0)
BEFORE_THE_SIGN = Moment(Camera(0.0, 1.5, 0.0), noise=0)
DRIVES = [
    Visit(0, 24, swing=swing, noise=0).moment(index)
    for swing in (1.0, -1.0)
    for index in range(24)
]


def furnished(*names, sign=42):
    """A garage, whose walls and floor are grey, with a thing at each place in turn."""
    things = (Thing(*name.split()[::-1], *at) for name, at in zip(names, PLACES, strict=False))
    return Room('garage', sign, tuple(things))


def paint(room, moment, seed=0, size=112):
    return Painter(room, size).picture(moment, np.random.default_rng(seed))


def pixels_of(picture, colour):
    """Where a picture has a colour under any brightness of white light: [H, W] bool."""
    picture, colour = picture.astype(float), np.array(COLOURS[colour], float)
    brightness = np.linalg.norm(picture, axis=2)
    alike = picture @ colour / np.linalg.norm(colour) / np.maximum(brightness, 1)
    return (alike > 0.985) & (brightness > 60)


def third(mask, side):
    return np.array_split(mask, 3, axis=1)[THIRDS.index(side)]


def even_light(picture):
    return picture / picture.mean()


def changed(one, other):
    """Where two pictures differ: [H, W] bool."""
    return (one != other).any(axis=2)


def only_within(mask, columns, rows):
    """Whether a mask is set in a part of the picture alone, told in pictures, give a pixel."""
    size, inside = len(mask), np.zeros_like(mask)
    first, last = (int(size * end) for end in columns)
    top, bottom = (int(size * end) for end in rows)
    inside[max(0, top - 1) : bottom + 2, max(0, first - 1) : last + 2] = True
    return mask.any() and not mask[~inside].any()
