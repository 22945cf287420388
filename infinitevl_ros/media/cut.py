"""What the readers of files that break off have in common."""

from __future__ import annotations

from typing import NamedTuple


class Topic(NamedTuple):
    """A topic of a bag, and the type of its messages."""

    name: str
    type: str


class Broken(Exception):  # noqa: N818 - what the file is, not a mistake of the reader
    """Here a file breaks off; the text says how."""
