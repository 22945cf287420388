"""`infinitevl to-bag`: a video as a bag that `ros2 bag play` takes."""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path

from tqdm import tqdm

from ..engine.schedule import NANOSECONDS
from ..media.bag_writer import write_bag
from ..media.source import Shot, SourceError, open_source
from . import common, output

TOPIC = re.compile(r'(/[A-Za-z_][A-Za-z0-9_]*)+')
EPILOG = (
    'example: infinitevl to-bag patrol.mp4 patrol.mcap --topic /camera/image_raw. '
    '`ros2 bag info` and `ros2 bag play` take a folder and a lone file alike.'
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.add_argument('source', type=Path, metavar='VIDEO', help='video or folder of images')
    parser.add_argument(
        'bag',
        type=Path,
        metavar='OUT',
        help='folder to write (metadata.yaml and an .mcap file); NAME.mcap writes a lone file',
    )
    parser.add_argument('--topic', default='/camera/image_raw', help='default: %(default)s')
    parser.add_argument('--compressed', action='store_true', help='JPEG, on TOPIC/compressed')
    parser.add_argument(
        '--start',
        type=seconds_or_now,
        default='now',
        metavar='SECONDS|now',
        help='stamp of the first image [s since 1970] (default: %(default)s)',
    )
    parser.add_argument('--force', action='store_true', help='write over a bag that is there')
    output.add_json(parser)


def seconds_or_now(text: str) -> float:
    return time.time() if text == 'now' else float(text)


def run(arguments: argparse.Namespace) -> int:
    start, bag = arguments.start, arguments.bag.expanduser()
    if not 0 <= start < 2**31:
        raise ValueError(f'--start is {start}, expected seconds from 0 to 2**31')
    if not TOPIC.fullmatch(arguments.topic):
        raise ValueError(
            f'--topic is "{arguments.topic}", expected names of letters, digits and "_" with "/" '
            'before each'
        )
    output.check_outputs(arguments.json, inputs=(arguments.source,))
    source = open_source(arguments.source)
    if source.kind == 'bag':
        raise SourceError(f'{arguments.source}: is a bag already, expected a video or images')
    offset = round(start * NANOSECONDS)
    bar = tqdm(source, total=source.expected, unit=' images', disable=not common.on_terminal())
    with bar:
        shots = (Shot(offset + shot.stamp, shot.pixels) for shot in bar)
        written = write_bag(bag, arguments.topic, shots, arguments.compressed, arguments.force)
    output.warn(source.warnings)
    print(f'Wrote {written} images to {bag}.', file=output.results(arguments))
    result = {'bag': str(bag), 'images': written, 'start': start, 'warnings': source.warnings}
    output.write_json(arguments.json, result)
    return 0
