"""Pictures into a bag that `ros2 bag play` takes."""

from __future__ import annotations

import shutil
import tempfile
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
OTHERS = ('.bag', '.db3', '.zstd')  # what other bags are named like


def write_bag(
    path: Path, topic: str, shots: Iterable[Shot], compressed: bool = False, force: bool = False
) -> int:
    """Write a rosbag2 folder or, where the path ends in .mcap, a lone file; returns the images.

    `topic` gets sensor_msgs/Image in rgb8 or, with `compressed`, `topic`/compressed JPEG images;
    recorded at their stamps. The bag appears at once when it is complete; with `force` in place of
    the one that was there. Raises SourceError, for one when something else is there.
    """
    lone = path.suffix == '.mcap'
    if not path.parent.is_dir():
        raise SourceError(f'{path}: no such folder to write to')
    if path.is_dir() and (lone or not (path / 'metadata.yaml').is_file()):
        raise SourceError(f'{path}: a folder that is not a bag is there already')
    if not lone and (path.suffix in OTHERS or path.is_file()):
        raise SourceError(f'{path}: not a name for a bag: expected a folder, or a file in .mcap')
    if path.exists() and not force:
        raise SourceError(f'{path}: is there already')
    with tempfile.TemporaryDirectory(prefix='.bag-', dir=path.parent) as unfinished:
        # The name of the folder becomes that of the file in it.
        folder = Path(unfinished, path.stem if lone else path.name)
        written = _write(folder, topic, shots, compressed)
        if not written:
            raise SourceError(f'{path}: no picture to write')
        if path.is_dir():
            shutil.rmtree(path)
        (folder / f'{folder.name}.mcap' if lone else folder).replace(path)
    return written


def _write(folder: Path, topic: str, shots: Iterable[Shot], compressed: bool) -> int:
    store = get_typestore(Stores.ROS2_JAZZY)
    kind = 'sensor_msgs/msg/CompressedImage' if compressed else 'sensor_msgs/msg/Image'
    if compressed and not topic.endswith('/compressed'):
        topic = f'{topic}/compressed'
    written = 0
    # Version 8 is read by every rosbag2 that reads 9, and by Humble's.
    with Writer(folder, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection(topic, kind, typestore=store)
        for shot in shots:
            message = _message(store.types, kind, shot)
            writer.write(connection, shot.stamp, store.serialize_cdr(message, kind))
            written += 1
    return written


def _message(types: dict[str, type], kind: str, shot: Shot) -> object:
    sec, nanosec = divmod(shot.stamp, NANOSECONDS)
    if not 0 <= sec < 2**31:
        raise SourceError(f'a stamp of {sec} s, but a ROS header takes 0 to 2**31 - 1')
    stamp = types['builtin_interfaces/msg/Time'](sec, nanosec)
    header = types['std_msgs/msg/Header'](stamp, FRAME_ID)
    pixels = np.ascontiguousarray(shot.pixels)
    if kind.endswith('CompressedImage'):
        quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
        _, data = cv2.imencode('.jpg', cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), quality)
        return types[kind](header, 'jpeg', data.reshape(-1))
    height, width, _ = pixels.shape
    return types[kind](header, height, width, 'rgb8', 0, 3 * width, pixels.reshape(-1))
