"""`infinitevl doctor`: what is right and wrong with an installation, and how to mend it."""

from __future__ import annotations

import argparse
import functools
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from ..replay.record import one_line
from . import checks, device_checks, output, ros_checks
from .checks import OK, PROBLEM, WARNING, Finding, guarded

WIDTH = 100  # columns
INDENT = 27  # columns before a finding's text
# The longest that ROS may take: it listens for 4 s and measures for 2.
ROS_TIMEOUT = 60.0
COLOURS = {OK: '32', WARNING: '33', PROBLEM: '31'}
EPILOG = 'example: infinitevl doctor --topic /camera/image_raw --model ~/checkpoints/InfiniteVL'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.add_argument(
        '--topic', default='', help='the image topic to measure (default: all, at most four)'
    )
    parser.add_argument('--model', type=Path, help='checkpoint folder (default: models/tiny)')
    output.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the findings as they come; 1 when one of them is a problem."""
    output.check_outputs(arguments.json)
    silent = arguments.json == output.STDOUT
    found: list[dict] = []
    for section, findings in sections(arguments.topic, arguments.model):
        if not silent:
            print(section, flush=True)
        for finding in findings:
            found.append({'section': section, **asdict(finding)})
            if not silent:
                print(shown(finding, sys.stdout.isatty()), flush=True)
    counts = {
        level: sum(item['level'] == level for item in found) for level in (PROBLEM, WARNING, OK)
    }
    if not silent:
        print(', '.join(_counted(number, level) for level, number in counts.items()))
    if arguments.json:
        output.write_json(arguments.json, {**counts, 'findings': found})
    return 1 if counts[PROBLEM] else 0


def sections(topic: str, folder: Path | None) -> Iterator[tuple[str, Iterable[Finding]]]:
    """The headings, and the findings below each as they come."""
    model = functools.partial(device_checks.model, folder)
    for section, parts in (
        ('Software', (checks.python, checks.packages)),
        ('Model and device', (device_checks.gpu, model)),
        ('System limits', (checks.machine,)),
        ('ROS 2', (functools.partial(ros, topic),)),
    ):
        yield section, (finding for part in parts for finding in guarded(part))


def ros(topic: str) -> Iterator[Finding]:
    """What ros_checks finds, in a process of its own.

    ROS's libraries end the whole process when, for example, RMW_IMPLEMENTATION is wrong.
    """
    command = [sys.executable, '-m', f'{__package__}.ros_checks', topic]
    complete = False
    with (
        tempfile.TemporaryFile('w+', errors='replace') as errors,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, errors='replace'
        ) as process,
    ):
        timer = threading.Timer(ROS_TIMEOUT, process.kill)
        timer.start()
        try:
            for line in process.stdout:
                if line == f'{ros_checks.END}\n':
                    complete = True
                elif finding := ros_checks.parsed(line):
                    yield finding
            code = process.wait()
        finally:
            timer.cancel()
            process.kill()
        errors.seek(0)
        said = [line.strip() for line in errors if line.strip()]
    if complete:
        return
    reason = f'after {ROS_TIMEOUT:.0f} s' if code == -signal.SIGKILL else f'exit code {code}'
    name = os.environ.get('RMW_IMPLEMENTATION')
    distribution = os.environ.get('ROS_DISTRO', '$ROS_DISTRO')
    yield Finding(
        PROBLEM,
        'ROS',
        f'its libraries ended the process ({reason}): {said[-1] if said else "no message"}',
        f'unset RMW_IMPLEMENTATION, or apt install ros-{distribution}-{name.replace("_", "-")}'
        if name
        else 'source the distribution and this workspace anew, in a fresh terminal',
    )


def shown(finding: Finding, colour: bool) -> str:
    """A finding as lines of at most WIDTH columns."""
    indent = ' ' * INDENT
    lines = textwrap.wrap(
        one_line(finding.found), WIDTH, initial_indent=indent, subsequent_indent=indent,
        break_on_hyphens=False,
    )  # fmt: skip
    if finding.fix:
        lines += textwrap.wrap(
            f'-> {finding.fix}', WIDTH, initial_indent=indent, subsequent_indent=f'{indent}   ',
            break_on_hyphens=False,
        )  # fmt: skip
    level = f'{finding.level:8}'
    if colour:
        level = f'\033[{COLOURS[finding.level]}m{level}\033[0m'
    lines[0] = f'  {level} {finding.name:15} {lines[0].strip()}'
    return '\n'.join(lines)


def _counted(number: int, level: str) -> str:
    plural = '' if number == 1 or level == OK else 's'
    return f'{number} {level}{plural}'
