"""The package's version, which stands in package.xml alone."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

PLACES = 'package.xml', 'share/infinitevl_ros/package.xml'


def package_version() -> str:
    """From the source tree, the prefix that colcon installed to, or what pip installed."""
    for parent in Path(__file__).resolve().parents:
        for place in PLACES:
            file = parent / place
            text = file.read_text() if file.is_file() else ''
            if '<name>infinitevl_ros</name>' in text:
                return re.search(r'<version>(.+)</version>', text)[1]
    return importlib.metadata.version('infinitevl_ros')
