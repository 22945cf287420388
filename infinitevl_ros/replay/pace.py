"""Whether a model keeps up with a stream in real time."""

from __future__ import annotations


class Pace:
    """Counts the frames that a live camera would have lost.

    As in infinitevl_node: one frame is taken at a time, the newest one waits, and one that is
    overtaken while it waits is dropped. Captions and answers are left out, since they give way.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self._free = 0.0  # when the frame being taken is done [s]
        self._waiting: float | None = None  # how long the one that waits will take [s]

    def add(self, at: float, seconds: float) -> None:
        """A frame that comes `at` seconds of stream time and takes `seconds`."""
        if self._waiting is not None and self._free <= at:
            self._free += self._waiting
            self._waiting = None
        if self._free <= at:
            self._free = at + seconds
            return
        self.dropped += self._waiting is not None
        self._waiting = seconds
