"""`infinitevl`: the package at a terminal."""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..model.config import CheckpointError
from . import verify


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit code (2: the input is at fault, said in one line)."""
    parser = argparse.ArgumentParser(prog='infinitevl', description=__doc__)
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')

    command = commands.add_parser('verify', help='compare the network with golden vectors')
    verify.add_arguments(command)
    command.set_defaults(run=verify.run)

    command = commands.add_parser(
        'random-checkpoint', help='write a small checkpoint of random weights to try things with'
    )
    command.add_argument('folder', type=Path)
    command.add_argument('--seed', type=int, default=0)
    command.set_defaults(run=_random_checkpoint)

    parsed = parser.parse_args(arguments)
    try:
        return parsed.run(parsed)
    except (CheckpointError, OSError) as error:
        print(f'infinitevl: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _random_checkpoint(arguments: argparse.Namespace) -> int:
    from .random_checkpoint import write_random_checkpoint

    write_random_checkpoint(arguments.folder, arguments.seed)
    print(f'wrote {arguments.folder}: random weights, its words are noise')
    return 0
