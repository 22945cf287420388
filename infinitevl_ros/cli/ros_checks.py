"""What `infinitevl doctor` looks at of ROS 2, in a process of its own that prints its findings.

Nothing of ROS is imported before a check needs it: that it is missing is a finding.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from xml.etree import ElementTree

from .checks import OK, PROBLEM, WARNING, Finding, guarded, size

# Said last, so that the reader knows that nothing broke off.
END = 'end of findings'

# Fast DDS's shared memory for what a process sends, unless a profile says otherwise [bytes].
SEGMENT = 512 * 1024
PROFILE = 'fastdds_large_images.xml'
RANGES = ('SUBNET', 'LOCALHOST', 'OFF', 'SYSTEM_DEFAULT')
# Domains whose ports are in the range that Linux hands out to any program.
BUSY_DOMAINS = range(102, 215)
LARGEST_DOMAIN = 232
INTERFACES = {
    'msg': ('Caption',),
    'srv': ('Query', 'SaveMemory', 'LoadMemory'),
    'action': ('Ask', 'Watch'),
}
MESSAGES = (
    'sensor_msgs.msg', 'diagnostic_msgs.msg', 'lifecycle_msgs.srv', 'std_srvs.srv',
    'rcl_interfaces.msg',
)  # fmt: skip


def parsed(line: str) -> Finding | None:
    """The finding in a line of this process's output; None where it is something else."""
    try:
        return Finding(**json.loads(line))
    except (ValueError, TypeError):
        return None


def main(topic: str = '') -> None:
    """Print each finding as a line of JSON, then END."""
    checks = (
        distribution,
        functools.partial(library, topic),
        settings,
        profile,
        interfaces,
        functools.partial(discovery, topic),
    )
    for check in checks:
        findings = []
        for finding in guarded(check):
            findings.append(finding)
            print(json.dumps(asdict(finding)), flush=True)
        if any(finding.values.get('usable') is False for finding in findings):
            break  # what follows needs it, and might end the process
    print(END, flush=True)


def distribution() -> Iterator[Finding]:
    name, version = os.environ.get('ROS_DISTRO', ''), os.environ.get('ROS_VERSION', '2')
    if name and os.environ.get('AMENT_PREFIX_PATH'):
        if version != '2' or name < 'jazzy':
            yield Finding(
                PROBLEM,
                'distribution',
                f'ROS {version} {name} is sourced; needed is ROS 2 Jazzy or newer',
                'in a fresh terminal: source /opt/ros/jazzy/setup.bash',
            )
        else:
            yield Finding(OK, 'distribution', f'ROS 2 {name}, sourced')
        return
    try:
        importlib.metadata.version('ros-rclpy')
    except importlib.metadata.PackageNotFoundError:
        return  # `library` tells what is missing
    yield Finding(OK, 'distribution', 'from wheels, as ./dev installs them')


def library(topic: str) -> Iterator[Finding]:
    """Whether rclpy can be imported; the node needs it, replaying files does not."""
    sourced = sorted(path.parent for path in Path('/opt/ros').glob('*/setup.bash'))
    where = sourced[-1] if sourced else '/opt/ros/jazzy'
    try:
        import rclpy

        identifier = rclpy.get_rmw_implementation_identifier()
    except ModuleNotFoundError as error:
        if error.name != 'rclpy':
            raise
        yield Finding(
            PROBLEM if topic or os.environ.get('ROS_DISTRO') else WARNING,
            'rclpy',
            'no ROS 2 here (no module rclpy): the node cannot run; the engine and the commands '
            'that read files can',
            f'source {where}/setup.bash and the workspace, or use ./dev run infinitevl doctor',
            {'usable': False},
        )
        return
    except Exception as error:
        yield Finding(
            PROBLEM,
            'rclpy',
            f'cannot be imported by {sys.executable}: {error}',
            'the Python that ROS was built for: /usr/bin/python3 -m venv --system-site-packages',
            {'usable': False},
        )
        return
    asked = os.environ.get('RMW_IMPLEMENTATION')
    how = 'by RMW_IMPLEMENTATION' if asked else 'the default'
    yield Finding(OK, 'rclpy', f'{_version()}; middleware {identifier} ({how})')


def _version() -> str:
    """Of rclpy, as the wheels or a distribution call it."""
    for name in ('ros-rclpy', 'rclpy'):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    return 'importable'


def settings() -> Iterator[Finding]:
    """The variables that decide which other nodes are found."""
    text = os.environ.get('ROS_DOMAIN_ID', '')
    domain = int(text or 0) if text.strip().lstrip('-').isdecimal() or not text else None
    values = {'domain': domain}
    fix = 'export ROS_DOMAIN_ID=N, 0 to 101, the same for all nodes that are to meet'
    if domain is None or not 0 <= domain <= LARGEST_DOMAIN:
        yield Finding(
            PROBLEM,
            'domain',
            f'ROS_DOMAIN_ID is "{text}", expected a number from 0 to {LARGEST_DOMAIN}',
            fix,
            {**values, 'usable': False},
        )
    elif domain in BUSY_DOMAINS:
        found = f'ROS_DOMAIN_ID is {domain}, whose ports Linux may give to other programs'
        yield Finding(WARNING, 'domain', found, fix, values)
    else:
        default = '' if text else ' (not set)'
        yield Finding(OK, 'domain', f'ROS_DOMAIN_ID {domain}{default}', values=values)
    reach = os.environ.get('ROS_AUTOMATIC_DISCOVERY_RANGE', '')
    peers = os.environ.get('ROS_STATIC_PEERS', '')
    more = f'; static peers {peers}' if peers else ''
    if server := os.environ.get('ROS_DISCOVERY_SERVER'):
        more += f'; discovery server {server}'
    name = 'discovery'
    if os.environ.get('ROS_LOCALHOST_ONLY') == '1':
        found = f'this machine only: ROS_LOCALHOST_ONLY is 1, and comes before the range{more}'
        fix = 'unset ROS_LOCALHOST_ONLY; ROS_AUTOMATIC_DISCOVERY_RANGE took its place'
        yield Finding(WARNING, name, found, fix)
    elif reach and reach not in RANGES:
        found = f'ROS_AUTOMATIC_DISCOVERY_RANGE is "{reach}", expected one of {", ".join(RANGES)}'
        yield Finding(
            WARNING, name, f'{found}; it counts as LOCALHOST', f'export one of these{more}'
        )
    elif reach == 'OFF' and not peers:
        found = f'ROS_AUTOMATIC_DISCOVERY_RANGE is OFF: no other node is found{more}'
        yield Finding(WARNING, name, found, 'export ROS_AUTOMATIC_DISCOVERY_RANGE=SUBNET')
    else:
        meaning = 'this machine only' if reach == 'LOCALHOST' else 'this machine and its subnet'
        if reach in ('OFF', 'SYSTEM_DEFAULT'):
            meaning = "as the middleware's own settings say"
        yield Finding(OK, name, f'range {reach or "SUBNET (not set)"}: {meaning}{more}')


def profile() -> Iterator[Finding]:
    """Fast DDS's profile, which matters to the process that publishes images."""
    import rclpy

    if not rclpy.get_rmw_implementation_identifier().startswith('rmw_fastrtps'):
        return
    variable = profile_variable()
    file, name = os.environ.get(variable, ''), 'Fast DDS'
    if not file:
        found = f'{variable} is not set: shared memory of {size(SEGMENT)} a process'
        yield Finding(OK, name, f'{found}, enough unless a camera sends larger images best effort')
        return
    fix = f'export {variable}=$(ros2 pkg prefix --share infinitevl_ros)/config/{PROFILE}'
    try:
        tree = ElementTree.parse(file)
    except (OSError, ElementTree.ParseError) as error:
        found = f'{variable} is {file}, which cannot be read and is passed over: {error}'
        yield Finding(PROBLEM, name, found, fix)
        return
    segments = [int(e.text or 0) for e in tree.iter() if e.tag.split('}')[-1] == 'segment_size']
    found = f'{variable} is {file}, shared memory of {size(max(segments, default=SEGMENT))}'
    if max(segments, default=0) <= SEGMENT:
        yield Finding(WARNING, name, f'{found}, no more than without it', fix)
    else:
        yield Finding(OK, name, f'{found} a process; the camera must be started with it too')


def profile_variable() -> str:
    """What names Fast DDS's profile; renamed with Fast DDS 3, which Kilted brought."""
    newer = os.environ.get('ROS_DISTRO', 'jazzy') >= 'kilted'
    return 'FASTDDS_DEFAULT_PROFILES_FILE' if newer else 'FASTRTPS_DEFAULT_PROFILES_FILE'


def interfaces() -> Iterator[Finding]:
    """The messages of others and of this package, with the libraries that carry them."""
    from rclpy.type_support import check_for_type_support

    for module in MESSAGES:
        try:
            importlib.import_module(module)
        except ImportError as error:
            yield Finding(
                PROBLEM,
                'messages',
                f'{module} cannot be imported: {error}',
                'rosdep install --from-paths src --ignore-src',
            )
    names = []
    try:
        for part, kinds in INTERFACES.items():
            module = importlib.import_module(f'infinitevl_ros.{part}')
            for kind in kinds:
                check_for_type_support(getattr(module, kind))
                names.append(kind)
    except Exception as error:
        yield Finding(
            PROBLEM,
            'interfaces',
            f"infinitevl_ros's interfaces cannot be used: {error}",
            'colcon build --packages-select infinitevl_ros && . install/setup.bash',
        )
    else:
        yield Finding(OK, 'interfaces', f'built and sourced: {", ".join(names)}')


def discovery(topic: str) -> Iterator[Finding]:
    from .listen import listen

    yield from listen(topic)


if __name__ == '__main__':
    main(*sys.argv[1:])
