"""`infinitevl to-bag`: a video as a bag that `ros2 bag play` takes."""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path

from tqdm import tqdm

from ..engine.schedule import NANOSECONDS
from ..media.bag_writer import write_bag
from ..media.source import Shot, open_source
from . import common

EPILOG = 'example: infinitevl to-bag patrol.mp4 patrol --topic /camera/image_raw'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.add_argument('source', type=Path, metavar='VIDEO', help='video or folder of images')
    parser.add_argument(
        'bag', type=Path, help='folder to write; NAME.mcap writes a lone file instead'
    )
    parser.add_argument('--topic', default='/image', help='default: %(default)s')
    parser.add_argument('--compressed', action='store_true', help='JPEG, on TOPIC/compressed')
    parser.add_argument(
        '--start', type=float, help='stamp of the first image [s] (default: the time now)'
    )
    parser.add_argument('--json', type=Path, help='write what was done to this file')


def run(arguments: argparse.Namespace) -> int:
    source = open_source(arguments.source)
    start = time.time() if arguments.start is None else arguments.start
    if not 0 <= start < 2**31:
        raise ValueError(f'--start is {start}, expected seconds from 0 to 2**31')
    bag = arguments.bag.expanduser()
    lone = bag.suffix == '.mcap'
    folder = bag.with_suffix('') if lone else bag
    for path in {bag, folder}:
        if path.exists():
            raise ValueError(f'{path}: is there already')
    offset = round(start * NANOSECONDS)
    bar = tqdm(source, total=source.expected, unit=' images', disable=not common.on_terminal())
    shots = (Shot(offset + shot.stamp, shot.pixels) for shot in bar)
    try:
        written = write_bag(folder, arguments.topic, shots, arguments.compressed)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if lone:
        # `ros2 bag play` takes a lone file, and rosbags writes folders.
        (file,) = folder.glob('*.mcap')
        file.rename(bag)
        shutil.rmtree(folder)
    common.warn(source.warnings)
    print(f'Wrote {written} images to {bag}.')
    common.write_json(arguments.json, {'bag': str(bag), 'images': written, 'start': start})
    return 0
