"""Install the engine and the command line without ROS: `pip install .` or `pip install .[gpu]`."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def requirements(name: str) -> list[str]:
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines()
    return [line.split('#')[0].strip() for line in lines if line.split('#')[0].strip()]


setup(
    name='infinitevl_ros',
    version=re.search(r'<version>(.+)</version>', (ROOT / 'package.xml').read_text())[1],
    description='A streaming vision-language engine whose memory never grows',
    long_description=(ROOT / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10',
    # Found again by model/default.py, which looks below every folder above it.
    data_files=[
        ('share/infinitevl_ros/models/tiny', sorted(map(str, Path('models/tiny').iterdir())))
    ],
    packages=find_packages(include=['infinitevl_ros', 'infinitevl_ros.*']),
    package_data={
        'infinitevl_ros.replay': ['report.css'],
        'infinitevl_ros.live': ['page.*'],
    },
    install_requires=requirements('engine'),
    extras_require={'gpu': requirements('gpu'), 'dev': requirements('dev')},
    entry_points={'console_scripts': ['infinitevl = infinitevl_ros.cli.main:main']},
)
