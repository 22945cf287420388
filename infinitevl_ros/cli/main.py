"""`infinitevl`: the package at a terminal."""

from __future__ import annotations

import argparse
import importlib
import os
import sys

from ..replay.record import printable
from ..version import package_version

# Command: its module, with add_arguments(parser) and run(arguments) -> exit code, and its help.
COMMANDS = {
    'ask': ('ask', 'ask about a video, a bag or images'),
    'caption': ('caption', 'say what a video or a bag shows, as text, subtitles or JSON lines'),
    'check': ('check', 'hold answers about a bag or a video to what is expected'),
    'report': ('report', 'a page of what a bag or a video brought: captions, answers, times'),
    'to-bag': ('to_bag', 'write a video as a bag for ros2 bag play'),
    'replay': ('replay', 'publish the images of a bag or a video over DDS, in their time'),
    'doctor': ('doctor', 'what is right and wrong with this installation, and how to mend it'),
    'memory': ('memory', 'what a saved memory holds, and how two of them differ'),
    'demo': ('demo', 'a camera stream captioned and asked about, over real DDS'),
    'live': ('live', 'a local page that shows a stream and takes questions about it'),
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
    name = arguments[0] if arguments else ''
    if name not in COMMANDS:
        return _overview(arguments)
    file, text = COMMANDS[name]
    try:
        # Only what is used is loaded: torch alone takes seconds.
        module = importlib.import_module(f'.{file}', __package__)
        parser = argparse.ArgumentParser(
            prog=f'infinitevl {name}', description=f'{text[0].upper()}{text[1:]}.'
        )
        module.add_arguments(parser)
        return module.run(parser.parse_intermixed_args(arguments[1:]))
    except BrokenPipeError:
        # Whoever read it has what they wanted (| head); nothing more goes there, at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as error:
        print(f'infinitevl {name}: {printable(str(error))}', file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if error.name not in ('rclpy', 'infinitevl_ros.msg', 'ament_index_python'):
            raise
        print(f'infinitevl {name}: needs ROS 2 sourced ({error})', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _overview(arguments: list[str]) -> int:
    """All commands, for --help and for a word that is none of them, which ends the program."""
    parser = argparse.ArgumentParser(prog='infinitevl', description=__doc__)
    parser.add_argument('--version', action='version', version=package_version())
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    for name, (_, text) in COMMANDS.items():
        commands.add_parser(name, help=text)
    parser.parse_args(arguments)
    return 2
