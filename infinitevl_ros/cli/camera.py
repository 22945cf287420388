"""A camera for demos and tests: publishes a rendered patrol or a video file over DDS.

Prints one JSON object when the stream ends: {"sent": frames, "seconds": stream time}.
"""

from __future__ import annotations

import argparse
import array
import itertools
import json
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..media.source import SourceError, open_source
from ..media.video import VideoSource
from ..world.patrol import story

PATROL_RATE = 15.0  # frames a second
LONGEST_PATROL = 60.0  # seconds


def video_frames(path: str | Path) -> tuple[float, Iterator[np.ndarray]]:
    """Rate [Hz] and the RGB uint8 [height, width, 3] frames of a video. Raises SourceError."""
    source = open_source(path)
    if not isinstance(source, VideoSource):
        raise SourceError(f'{path}: {source.kind}, expected a video')
    return source.rate, (shot.pixels for shot in source)


def patrol_frames(seed: int, seconds: float) -> tuple[float, Iterator[np.ndarray]]:
    """Rate [Hz] and the frames of a rendered patrol of this length, which then begins again."""
    patrol = story(seed, round(seconds * PATROL_RATE) or 1)
    return PATROL_RATE, (picture for _ in itertools.count() for picture, _ in patrol)


def publish(
    rate: float, frames: Iterator[np.ndarray], seconds: float, subscribers: int
) -> tuple[int, float]:
    """Publish frames on `image` in real time; returns how many, and over how many seconds.

    Waits for that many subscribers first: frames sent earlier would be lost to them.
    """
    import rclpy
    from rclpy.qos import QoSProfile
    from rclpy.signals import SignalHandlerOptions
    from sensor_msgs.msg import Image

    # rclpy's own handlers would end its context beneath what follows.
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node('demo_camera')
    publisher = node.create_publisher(Image, 'image', QoSProfile(depth=2))
    deadline = time.monotonic() + 20
    while publisher.get_subscription_count() < subscribers and time.monotonic() < deadline:
        time.sleep(0.05)
    # They find this publisher a little later than it finds them.
    time.sleep(0.5)
    began = time.monotonic()
    sent = 0
    try:
        for frame in itertools.islice(frames, round(seconds * rate) or 1):
            time.sleep(max(0.0, began + sent / rate - time.monotonic()))
            height, width, _ = frame.shape
            message = Image(height=height, width=width, encoding='rgb8', step=3 * width)
            message.header.frame_id = 'camera'
            message.header.stamp = node.get_clock().now().to_msg()
            # rclpy takes an array as it is; other sequences it converts number by number.
            message.data = array.array('B', frame.tobytes())
            publisher.publish(message)
            sent += 1
        elapsed = max(time.monotonic() - began, sent / rate)
        # The writer keeps the newest frames until they are acknowledged.
        publisher.wait_for_all_acked(rclpy.duration.Duration(seconds=2))
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return sent, elapsed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--video', type=Path)
    parser.add_argument('--seconds', type=float, default=float('inf'))
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--subscribers', type=int, default=1, help='wait for that many')
    arguments = parser.parse_args()
    try:
        rate, frames = (
            video_frames(arguments.video)
            if arguments.video
            else patrol_frames(arguments.seed, min(arguments.seconds, LONGEST_PATROL))
        )
    except SourceError as error:
        print(error, file=sys.stderr)
        return 2
    seconds = min(arguments.seconds, 1e6)
    for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell's background ignores one
        signal.signal(number, signal.default_int_handler)
    try:
        sent, seconds = publish(rate, frames, seconds, arguments.subscribers)
    except KeyboardInterrupt:
        return 0  # how one ends a camera
    print(json.dumps({'sent': sent, 'seconds': seconds}))
    return 0


if __name__ == '__main__':
    sys.exit(main())
