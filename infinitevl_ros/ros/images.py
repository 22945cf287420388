"""Image messages to RGB arrays: every row where its step says, every lie about sizes refused."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image

# Encoding: channels, and OpenCV's conversion to RGB.
ENCODINGS = {
    'rgb8': (3, None),
    'bgr8': (3, cv2.COLOR_BGR2RGB),
    'rgba8': (4, cv2.COLOR_RGBA2RGB),
    'bgra8': (4, cv2.COLOR_BGRA2RGB),
    'mono8': (1, cv2.COLOR_GRAY2RGB),
}


class ImageError(ValueError):
    """A message that holds no usable picture; the text says what was found and expected."""


def from_image(message: Image) -> np.ndarray:
    """RGB uint8 [height, width, 3] of a raw image; a view of its data where it can be."""
    if message.encoding not in ENCODINGS:
        raise ImageError(
            f'encoding "{message.encoding}" is not supported; supported are {", ".join(ENCODINGS)}'
        )
    channels, conversion = ENCODINGS[message.encoding]
    height, width, step = message.height, message.width, message.step
    row = width * channels
    if not height or not width:
        raise ImageError(f'an image of {width} x {height} pixels')
    if step < row:
        raise ImageError(
            f'step is {step} bytes, but a row of {width} {message.encoding} pixels takes {row}'
        )
    data = np.frombuffer(message.data, np.uint8)
    # The padding of the last row may be left out.
    needed = (height - 1) * step + row
    if data.size < needed:
        raise ImageError(
            f'{data.size} bytes of data, but {width} x {height} {message.encoding} with step '
            f'{step} takes {needed}'
        )
    pixels = np.lib.stride_tricks.as_strided(data, (height, width, channels), (step, channels, 1))
    return pixels if conversion is None else cv2.cvtColor(pixels, conversion)


def from_compressed(message: CompressedImage) -> np.ndarray:
    """RGB uint8 [height, width, 3] of a JPEG or PNG image."""
    data = np.frombuffer(message.data, np.uint8)
    if not data.size:
        raise ImageError('a compressed image without data')
    try:
        pixels = cv2.imdecode(data, cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise ImageError(f'format "{message.format}" cannot be decoded: {error}') from None
    if pixels is None:
        raise ImageError(
            f'{data.size} bytes of format "{message.format}" are not a readable JPEG or PNG image'
        )
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


TRANSPORTS: dict[str, tuple[type, Callable[..., np.ndarray]]] = {
    'raw': (Image, from_image),
    'compressed': (CompressedImage, from_compressed),
}
