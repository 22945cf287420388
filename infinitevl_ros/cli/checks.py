"""What `infinitevl doctor` looks at on the machine: packages, GPU, model folder, system limits.

Nothing of torch or ROS is imported before a check needs it: that it is missing is a finding.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import math
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OK, WARNING, PROBLEM = 'ok', 'warning', 'problem'

OLDEST_PYTHON, NEWEST_PYTHON = (3, 10), (3, 13)
# Module: what pip calls it and which versions do, as in requirements/engine.txt.
REQUIRED = {
    'numpy': 'numpy>=1.26',
    'torch': 'torch>=2.5',
    'safetensors': 'safetensors>=0.4.3',
    'tokenizers': 'tokenizers>=0.20',
    'llguidance': 'llguidance>=1.7',
    'jinja2': 'jinja2>=3.1',
    'cv2': 'opencv-python-headless>=4.6,<5',
    'PIL': 'pillow>=10.1',
    'tqdm': 'tqdm>=4.60',
    'yaml': 'pyyaml>=6.0',
    'rosbags': 'rosbags>=0.11',
    'aiohttp': 'aiohttp>=3.9',
}
# An image of 1280 x 720 in rgb8: what a socket should hold of a sender on another machine [bytes].
WANTED_BUFFER = 1280 * 720 * 3
# Of /dev/shm: Fast DDS takes 0.5 MiB of it a process, 64 MiB with the profile for large images.
WANTED_SHM = 128 * 2**20


@dataclass(frozen=True)
class Finding:
    """What a check found; `fix` tells in a line how to mend what is not ok."""

    level: str
    name: str
    found: str
    fix: str = ''
    values: dict[str, Any] = field(default_factory=dict)


Check = Callable[[], Iterable[Finding]]


def guarded(check: Check) -> Iterator[Finding]:
    """The findings of a check; an error in it is one more of them."""
    try:
        yield from check()
    except Exception as error:
        name = getattr(check, 'func', check).__name__.replace('_', ' ')
        yield Finding(
            PROBLEM,
            name,
            f'could not be looked at: {type(error).__name__}: {line(error)}',
            'mend what is said above first; if nothing is, please report this',
        )


def python() -> Iterator[Finding]:
    version = sys.version_info[:2]
    found = f'{sys.version.split()[0]}, {sys.executable}'
    wanted = f'{_dotted(OLDEST_PYTHON)} to {_dotted(NEWEST_PYTHON)}'
    if version < OLDEST_PYTHON:
        yield Finding(PROBLEM, 'Python', f'{found}; needed is {wanted}', f'use Python {wanted}')
    elif version > NEWEST_PYTHON:
        yield Finding(WARNING, 'Python', f'{found}; tested with {wanted}', f'use Python {wanted}')
    else:
        yield Finding(OK, 'Python', found)


def packages() -> Iterator[Finding]:
    versions: dict[str, str] = {}
    wrong: dict[str, str] = {}
    for module, requirement in REQUIRED.items():
        name = re.match(r'[\w-]+', requirement)[0]
        try:
            versions[name] = _version(module, name)
        except ModuleNotFoundError as error:
            wrong[requirement] = f'{name} is missing' + (
                '' if error.name == module else f' a part: {line(error)}'
            )
        except Exception as error:
            wrong[requirement] = f'{name} cannot be imported: {line(error)}'
        else:
            if not satisfies(versions[name], requirement):
                wrong[requirement] = f'{name} is {versions[name]}, needed is {requirement}'
    if wrong:
        quoted = ' '.join(f"'{requirement}'" for requirement in wrong)
        yield Finding(
            PROBLEM, 'packages', '; '.join(wrong.values()), f'pip install {quoted}', versions
        )
    else:
        listed = ', '.join(f'{name} {version}' for name, version in versions.items())
        yield Finding(OK, 'packages', listed, values=versions)


def satisfies(version: str, requirement: str) -> bool:
    """Whether a version fits one like `name>=4.6,<5`; one without numbers is let pass."""
    have = _numbers(version)
    for sign, text in re.findall(r'(>=|<)([\d.]+)', requirement):
        wanted = _numbers(text)
        if have and (have < wanted) == (sign == '>='):
            return False
    return True


def machine() -> Iterator[Finding]:
    """Limits of the system that large images run into."""
    file = Path('/proc/sys/net/core/rmem_max')
    if file.is_file():
        most = int(file.read_text())
        found = f'net.core.rmem_max is {size(most)}'
        if most < WANTED_BUFFER:
            yield Finding(
                WARNING,
                'UDP buffers',
                f'{found}, less than an image of 1280 x 720 ({size(WANTED_BUFFER)}): large images '
                'from other machines lose packets',
                'sudo sysctl -w net.core.rmem_max=12582912',
            )
        else:
            yield Finding(OK, 'UDP buffers', found)
    else:
        yield Finding(OK, 'UDP buffers', f'{file}: not to be seen here, as in some containers')
    shm = Path('/dev/shm')
    if not shm.is_dir():
        yield Finding(
            WARNING,
            'shared memory',
            '/dev/shm is missing: images to other processes of this machine go by UDP',
            'mount -t tmpfs tmpfs /dev/shm',
        )
        return
    usage = shutil.disk_usage(shm)
    found = f'/dev/shm has {size(usage.total)}, {size(usage.free)} free'
    if min(usage.total, usage.free) < WANTED_SHM:
        yield Finding(
            WARNING,
            'shared memory',
            f'{found}; a process with the profile for large images takes {size(64 * 2**20)} of it',
            'in a container: --shm-size=1g (or --ipc=host); else remove what fills /dev/shm',
        )
    else:
        yield Finding(OK, 'shared memory', found)


def size(count: float) -> str:
    """Bytes for people, in powers of 1000: '1.2 MB'."""
    if count < 1000:
        return f'{count:.0f} bytes'
    units = ('kB', 'MB', 'GB', 'TB')
    power = min(len(units), int(math.log10(count) / 3))
    return f'{count / 1000**power:.1f} {units[power - 1]}'


def _version(module: str, name: str) -> str:
    imported = importlib.import_module(module)
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return getattr(imported, '__version__', 'of unknown version')


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r'\d+(\.\d+)*', version)
    return tuple(map(int, found[0].split('.'))) if found else ()


def _dotted(version: tuple[int, ...]) -> str:
    return '.'.join(map(str, version))


def line(error: BaseException) -> str:
    """An error's text in one line, its first where it has many."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
