"""Where commands write to, and how. Loads neither torch nor ROS."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any, TextIO

from ..replay.record import one_line

STDOUT = Path('-')


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--json',
        type=Path,
        metavar='FILE',
        help='write everything to this file; - is standard output, and the rest goes to '
        'standard error',
    )


def check_outputs(*outputs: Path | None, inputs: tuple[Path | None, ...] = ()) -> None:
    """Raise ValueError, before anything takes time, for a file that cannot or must not be written.

    That is also one of the `inputs`.
    """
    for path in filter(None, outputs):
        if path == STDOUT:
            continue
        if not path.absolute().parent.is_dir():
            raise ValueError(f'{path}: no such folder to write to')
        if path.is_dir():
            raise ValueError(f'{path}: a folder, expected the name of a file to write')
        if any(given and path.exists() and path.samefile(given) for given in inputs):
            raise ValueError(f'{path}: is read, and would be overwritten')


def write_json(path: Path | None, value: Any) -> None:
    """Write a data class or plain values, if a path was given."""
    if path:
        if dataclasses.is_dataclass(value):
            value = dataclasses.asdict(value)
        text = json.dumps(value, indent=2) + '\n'
        if path == STDOUT:
            sys.stdout.write(text)
        else:
            path.expanduser().write_text(text)


def results(arguments: argparse.Namespace) -> TextIO:
    """Where results for people go: standard output, unless the JSON is there."""
    return sys.stderr if arguments.json == STDOUT else sys.stdout


def warn(warnings: list[str]) -> None:
    """What files say of themselves cannot steer the terminal."""
    for warning in warnings:
        print(f'warning: {one_line(warning)}', file=sys.stderr)
