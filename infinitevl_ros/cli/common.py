"""What the commands share that look at files with a model."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from ..engine import StreamingEngine
from ..engine.loading import DTYPES, load_engine
from ..media.source import Source, open_source
from ..model.checkpoint import quietly
from ..model.default import default_checkpoint
from .output import add_json


def add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--model', type=Path, help='checkpoint folder (default: models/tiny)')
    parser.add_argument('--device', default='auto', help='cpu, cuda, ... (default: %(default)s)')
    parser.add_argument(
        '--dtype',
        choices=DTYPES,
        default='auto',
        help='precision; auto is float32 on a CPU and bfloat16 on a GPU (default: %(default)s)',
    )
    add_json(parser)


def add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('source', type=Path, metavar='VIDEO|BAG', help='video, bag or folder')
    parser.add_argument('--topic', default='', help='of a bag that has several with images')


def load(arguments: argparse.Namespace) -> StreamingEngine:
    """The engine that `add_model`'s arguments name."""
    if not arguments.model:
        print(
            'The small model knows its rendered world alone: of other pictures its words are '
            'guesses (--model names a checkpoint).',
            file=sys.stderr,
        )
    folder = arguments.model or default_checkpoint()
    progress = _loaded if on_terminal() else quietly
    return load_engine(folder, arguments.device, arguments.dtype, progress)


def _loaded(line: str) -> None:
    print(line, file=sys.stderr)


def opened(arguments: argparse.Namespace) -> Source:
    """The source that `add_source`'s arguments name."""
    return open_source(arguments.source, arguments.topic)


def say(text: str, file: TextIO, end: str = '\n') -> None:
    """Print at once, beside a progress bar."""
    tqdm.write(text, file, end)
    file.flush()


def on_terminal() -> bool:
    """Whether a progress bar has somewhere to be."""
    return sys.stderr.isatty()
