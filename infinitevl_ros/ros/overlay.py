"""The camera's picture with its newest caption on it, for people who look on."""

from __future__ import annotations

import array
import threading
from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image as Picture
from PIL import ImageDraw, ImageFont
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image

MOST_LINES = 3
LINES_A_PICTURE = 16  # height of a picture in lines of text
SHADE = 0.4  # brightness left behind the text


def draw(pixels: np.ndarray, text: str) -> np.ndarray:
    """A copy of RGB uint8 [height, width, 3] with `text` along its lower edge."""
    height, width = pixels.shape[:2]
    size = max(9, height // (LINES_A_PICTURE + 4))
    font = ImageFont.load_default(size)
    margin, line = size // 2, size * 5 // 4
    lines = _wrap(text, font, width - 2 * margin)
    picture = np.array(pixels)
    if not lines:
        return picture
    top = max(0, height - margin * 2 - line * len(lines))
    picture[top:] = cv2.convertScaleAbs(picture[top:], alpha=SHADE)
    canvas = Picture.fromarray(picture)
    brush = ImageDraw.Draw(canvas)
    for number, words in enumerate(lines):
        brush.text((margin, top + margin + number * line), words, 'white', font)
    return np.asarray(canvas)


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Lines of at most `width` pixels, the last with an ellipsis where there is more."""
    lines: list[str] = []
    for word in text.split():
        longer = f'{lines[-1]} {word}' if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        elif len(lines) == MOST_LINES:
            lines[-1] += ' …'
            break
        else:
            lines.append(word)
    return lines


class Overlay:
    """Publishes `overlay` while someone subscribes to it, from a thread of its own.

    Only the newest image waits: drawing holds neither the camera nor the engine up.
    """

    def __init__(self, node: Node, prefix: str, decode: Callable[..., np.ndarray]):
        self._publisher = node.create_publisher(Image, f'{prefix}overlay', 1)
        self._decode = decode
        self._wake = threading.Condition()
        self._waiting: tuple[Image | CompressedImage, str] | None = None
        self._thread: threading.Thread | None = None
        self._closing = False

    def offer(self, message: Image | CompressedImage, text: str) -> None:
        """Show an image with a caption, if anyone looks."""
        if not self._publisher.get_subscription_count():
            return
        with self._wake:
            self._waiting = message, text
            self._wake.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name='overlay', daemon=True)
            self._thread.start()

    def close(self) -> None:
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not (self._closing or self._waiting):
                    self._wake.wait()
                if self._closing:
                    return
                (message, text), self._waiting = self._waiting, None
            try:
                picture = draw(self._decode(message), text)
            except ValueError:  # a broken image: the engine's thread has told of it
                continue
            shown = Image(header=message.header, encoding='rgb8')
            shown.height, shown.width = picture.shape[:2]
            shown.step = picture[0].nbytes
            # rclpy takes an array as it is; other sequences it converts number by number.
            shown.data = array.array('B', picture.tobytes())
            self._publisher.publish(shown)
