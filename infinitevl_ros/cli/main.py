"""`infinitevl`: the package at a terminal."""

from __future__ import annotations

import argparse
import importlib
import sys

# Command: its module, with add_arguments(parser) and run(arguments) -> exit code, and its help.
COMMANDS = {
    'demo': ('demo', 'a camera stream captioned and asked about, over real DDS'),
    'bench': ('bench', 'how fast this machine takes frames and answers, against its limits'),
    'verify': ('verify', 'compare the network with golden vectors'),
    'random-checkpoint': (
        'random_checkpoint',
        'write a small checkpoint of random weights to try things with',
    ),
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit code (2: the input is at fault, said in one line)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog='infinitevl', description=__doc__)
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    module = None
    for name, (file, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=f'{text[0].upper()}{text[1:]}.')
        if arguments[:1] == [name]:
            # Only what is used is loaded: torch alone takes seconds.
            module = importlib.import_module(f'.{file}', __package__)
            module.add_arguments(command)
    parsed = parser.parse_args(arguments)
    try:
        return module.run(parsed)
    except (ValueError, OSError) as error:
        print(f'infinitevl {parsed.command}: {error}', file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if error.name not in ('rclpy', 'infinitevl_ros.msg', 'ament_index_python'):
            raise
        print(f'infinitevl {parsed.command}: needs ROS 2 sourced ({error})', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
