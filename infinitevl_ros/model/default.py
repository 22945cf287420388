"""Where the small trained model is that comes with the package."""

from __future__ import annotations

from pathlib import Path

PLACES = 'models/tiny', 'share/infinitevl_ros/models/tiny'


def default_checkpoint() -> Path:
    """Its checkpoint folder: in the source tree, or below the prefix of an installation.

    Raises FileNotFoundError when it was not installed.
    """
    for parent in Path(__file__).resolve().parents:
        for place in PLACES:
            if (parent / place / 'config.json').is_file():
                return parent / place
    raise FileNotFoundError('models/tiny is missing: it comes with the package, install it again')
