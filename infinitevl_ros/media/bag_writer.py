"""Pictures into a bag that `ros2 bag play` takes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from .source import Shot, SourceError

NANOSECONDS = 1_000_000_000
FRAME_ID = 'camera'
JPEG_QUALITY = 95


def write_bag(path: Path, topic: str, shots: Iterable[Shot], compressed: bool = False) -> int:
    """Write a rosbag2 folder with one .mcap file; returns how many images there are.

    `topic` gets sensor_msgs/Image in rgb8 or, with `compressed`, `topic`/compressed JPEG images;
    recorded at their stamps. Raises SourceError when `path` is there already.
    """
    if path.exists():
        raise SourceError(f'{path}: is there already')
    store = get_typestore(Stores.ROS2_JAZZY)
    kind = 'sensor_msgs/msg/CompressedImage' if compressed else 'sensor_msgs/msg/Image'
    topic = f'{topic}/compressed' if compressed else topic
    written = 0
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection(topic, kind, typestore=store)
        for shot in shots:
            message = _message(store, kind, shot)
            writer.write(connection, shot.stamp, store.serialize_cdr(message, kind))
            written += 1
    return written


def _message(store: object, kind: str, shot: Shot) -> object:
    types = store.types
    sec, nanosec = divmod(shot.stamp, NANOSECONDS)
    stamp = types['builtin_interfaces/msg/Time'](sec, nanosec)
    header = types['std_msgs/msg/Header'](stamp, FRAME_ID)
    pixels = np.ascontiguousarray(shot.pixels)
    if kind.endswith('CompressedImage'):
        quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
        _, data = cv2.imencode('.jpg', cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), quality)
        return types[kind](header, 'jpeg', data.reshape(-1))
    height, width, _ = pixels.shape
    return types[kind](header, height, width, 'rgb8', 0, 3 * width, pixels.reshape(-1))
