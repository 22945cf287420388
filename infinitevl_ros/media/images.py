"""Image messages to RGB arrays: every row where its step says, every lie about sizes refused.

No ROS here: a message is anything with the fields of sensor_msgs/Image or CompressedImage.

cv_bridge is not used, even where it is installed: the results are the same bits for every encoding
that it knows, but it misreads rows whose padding is no multiple of a pixel, fails on big-endian
data under numpy 2, and has no nv12 or nv21.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np


@dataclass(frozen=True)
class Encoding:
    """How a picture lies in the data of a message, and how it becomes RGB."""

    channels: int  # values a pixel has in a row
    conversion: int | None = None  # OpenCV's to RGB; None where it is RGB
    dtype: str = 'u1'  # of a value, without its byte order
    subsampling: tuple[int, int] = (1, 1)  # columns and rows that share their chroma
    smallest: int = 1  # width and height that the conversion needs [pixels]

    def row_bytes(self, width: int) -> int:
        """Bytes of a row of `width` pixels, without padding."""
        return width * self.channels * np.dtype(self.dtype).itemsize

    def rows(self, height: int) -> int:
        """Rows of the data for `height` rows of pixels: 4:2:0 has those of its chroma below."""
        return height + height // 2 if self.subsampling[1] == 2 else height


# OpenCV names a Bayer pattern by its second row and column, ROS by its first.
ENCODINGS = {
    'rgb8': Encoding(3),
    'bgr8': Encoding(3, cv2.COLOR_BGR2RGB),
    'rgba8': Encoding(4, cv2.COLOR_RGBA2RGB),
    'bgra8': Encoding(4, cv2.COLOR_BGRA2RGB),
    'mono8': Encoding(1, cv2.COLOR_GRAY2RGB),
    'bayer_rggb8': Encoding(1, cv2.COLOR_BayerBG2RGB, smallest=3),
    'bayer_bggr8': Encoding(1, cv2.COLOR_BayerRG2RGB, smallest=3),
    'bayer_gbrg8': Encoding(1, cv2.COLOR_BayerGR2RGB, smallest=3),
    'bayer_grbg8': Encoding(1, cv2.COLOR_BayerGB2RGB, smallest=3),
}
ENCODINGS |= {f'{name[:-1]}16': replace(layout, dtype='u2') for name, layout in ENCODINGS.items()}
ENCODINGS |= {
    'yuv422': Encoding(2, cv2.COLOR_YUV2RGB_UYVY, subsampling=(2, 1)),
    'uyvy': Encoding(2, cv2.COLOR_YUV2RGB_UYVY, subsampling=(2, 1)),
    'yuv422_yuy2': Encoding(2, cv2.COLOR_YUV2RGB_YUY2, subsampling=(2, 1)),
    'yuyv': Encoding(2, cv2.COLOR_YUV2RGB_YUY2, subsampling=(2, 1)),
    'nv12': Encoding(1, cv2.COLOR_YUV2RGB_NV12, subsampling=(2, 2)),
    'nv21': Encoding(1, cv2.COLOR_YUV2RGB_NV21, subsampling=(2, 2)),
}


class ImageError(ValueError):
    """A message that holds no usable picture; the text says what was found and expected."""


# Makes room for a picture of a shape.
New = Callable[[tuple[int, int, int]], np.ndarray]


def fresh(shape: tuple[int, int, int]) -> np.ndarray:
    return np.empty(shape, np.uint8)


def from_image(message: Any, new: New = fresh) -> np.ndarray:
    """RGB uint8 [height, width, 3] of a raw image; of rgb8 a view of the message's data.

    Others are written to what `new` makes.

    YUV is BT.601 in its limited range; 16 bits are scaled to 8 and rounded, as cv_bridge does.
    Raises ImageError.
    """
    encoding = message.encoding
    if encoding not in ENCODINGS:
        raise ImageError(
            f'encoding "{message.encoding}" is not supported; supported are {", ".join(ENCODINGS)}'
        )
    layout = ENCODINGS[encoding]
    height, width, step = message.height, message.width, message.step
    if min(height, width) < layout.smallest:
        raise ImageError(
            f'an image of {width} x {height} pixels, but {encoding} takes at least '
            f'{layout.smallest} x {layout.smallest}'
        )
    columns, lines = layout.subsampling
    if width % columns or height % lines:
        raise ImageError(
            f'an image of {width} x {height} pixels, but {encoding} takes a width that is a '
            f'multiple of {columns} and a height that is one of {lines}'
        )
    row = layout.row_bytes(width)
    if step < row:
        raise ImageError(
            f'step is {step} bytes, but a row of {width} {encoding} pixels takes {row}'
        )
    data = np.frombuffer(message.data, np.uint8)
    # The padding of the last row may be left out.
    needed = (layout.rows(height) - 1) * step + row
    if data.size < needed:
        raise ImageError(
            f'{data.size} bytes of data, but {width} x {height} {encoding} with step '
            f'{step} takes {needed}'
        )
    dtype = np.dtype(layout.dtype).newbyteorder('>' if message.is_bigendian else '<')
    shape = height, width, layout.channels
    pixels = np.ndarray(shape, dtype, data, strides=(step, row // width, dtype.itemsize))
    if lines == 2:
        shape = height // 2, width // 2, 2
        chroma = np.ndarray(shape, np.uint8, data, height * step, (step, 2, 1))
        return cv2.cvtColorTwoPlane(pixels, chroma, layout.conversion, dst=new((height, width, 3)))
    # OpenCV takes this machine's byte order, and 16 bits at even addresses: else a copy.
    pixels = np.require(pixels, layout.dtype, 'A')
    if pixels.dtype == np.uint8:
        if layout.conversion is None:
            return pixels
        return cv2.cvtColor(pixels, layout.conversion, dst=new((height, width, 3)))
    if layout.conversion is not None:
        pixels = cv2.cvtColor(pixels, layout.conversion)
    return _to_8_bits(pixels, new((height, width, 3)))


def _to_8_bits(pixels: np.ndarray, room: np.ndarray | None = None) -> np.ndarray:
    return cv2.convertScaleAbs(pixels, dst=room, alpha=255 / 65535)


def from_compressed(message: Any, new: New = fresh) -> np.ndarray:
    """RGB uint8 [height, width, 3] of a JPEG or PNG image, without its alpha.

    An EXIF rotation is ignored, and `format` is only named in errors: the data says what it is.
    Raises ImageError.
    """
    data = np.frombuffer(message.data, np.uint8)
    if not data.size:
        raise ImageError('a compressed image without data')
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(data, flags)
    except cv2.error as error:
        raise ImageError(f'format "{message.format}" cannot be decoded: {error}') from None
    # OpenCV also reads pictures of floating point numbers, whose range nobody knows.
    if pixels is None or pixels.dtype not in (np.uint8, np.uint16):
        raise ImageError(
            f'{data.size} bytes of format "{message.format}" are not a readable JPEG or PNG image'
        )
    if pixels.dtype != np.uint8:
        pixels = _to_8_bits(pixels)
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=new((*pixels.shape[:2], 3)))
