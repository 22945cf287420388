"""What falls due by the stamps of a stream."""

from __future__ import annotations

NANOSECONDS = 1_000_000_000
# Frames may overtake one another a little; a stamp older than this [ns] is another time.
JUMP = NANOSECONDS


class Schedule:
    """What falls due once in each period of stream time, counted from the first stamp it is shown.

    The stamps alone decide: a bag that is played faster, or again, gives the same times.
    """

    def __init__(self, at_once: bool = False):
        """`at_once`: due at the first stamp already."""
        self._at_once = at_once
        self.reset()

    def reset(self) -> None:
        """Begin anew with the next stamp."""
        self._origin: int | None = None
        self._newest = self._period = self._slot = 0

    def due(self, stamp: int, period: int) -> bool:
        """Whether it is due at `stamp` [ns]; a jump back or another period [ns] begins anew."""
        began = self._origin is None
        if began or period != self._period or stamp < self._newest - JUMP:
            self._origin, self._newest, self._period, self._slot = stamp, stamp, period, 0
            return began and self._at_once
        self._newest = max(self._newest, stamp)
        slot = (stamp - self._origin) // period if period else 0
        due, self._slot = slot > self._slot, max(slot, self._slot)
        return due
